"""Packages of the optional extras, imported where they are needed."""

import importlib
from types import ModuleType

from ._errors import InputError


def require(module: str, purpose: str, package: str, extra: str = "cli") -> ModuleType:
    """Import a module.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"expected {package} to be installed for {purpose}, received: {error}; "
            f'pip install "fpicore[{extra}]"'
        ) from error
