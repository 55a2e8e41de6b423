"""Packages of the ``cli`` extra, imported where they are needed."""

import importlib
from types import ModuleType

from .._errors import InputError


def require(module: str, purpose: str, package: str) -> ModuleType:
    """Import a module.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"expected {package} to be installed for {purpose}, received: {error}; "
            'pip install "fpicore[cli]"'
        ) from error
