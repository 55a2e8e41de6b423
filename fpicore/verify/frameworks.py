"""Which frameworks are installed, and their harnesses, imported only when asked for."""

import importlib
import importlib.util
from importlib import metadata
from typing import Any

from .._errors import InputError
from .harness import Harness
from .problem import FRAMEWORKS

_DISTRIBUTIONS = {"tensorflow": ("tensorflow", "tensorflow-cpu", "tensorflow-macos", "tf-nightly")}


def installed(name: str) -> bool:
    """Whether a framework can be found; nothing is imported."""
    return importlib.util.find_spec(name) is not None


def version(name: str) -> str | None:
    """The version of a framework by its package metadata; nothing is imported."""
    for distribution in _DISTRIBUTIONS.get(name, (name,)):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return None


def select(named: list[str] | None) -> tuple[list[str], list[str]]:
    """Names of the frameworks to verify, and of those left out because they are not installed.

    Raises:
        InputError: a framework that was named is unknown or not installed.
    """
    for name in named or ():
        if name not in FRAMEWORKS:
            raise InputError(
                f"expected --backend to be one of {', '.join(FRAMEWORKS)}; received {name!r}"
            )
        if not installed(name):
            raise InputError(
                f"expected {name} to be installed because --backend {name} names it; "
                f'it is not: pip install "fpicore[{name}]"'
            )
    wanted = [name for name in FRAMEWORKS if named is None or name in named]
    return [n for n in wanted if installed(n)], [n for n in wanted if not installed(n)]


def load(name: str) -> Harness:
    """The harness of an installed framework.

    Raises:
        ImportError: the framework is installed and cannot be imported.
    """
    module: Any = importlib.import_module(f"fpicore_{name}._harness")
    return module.HARNESS()
