"""The list of cases."""

from collections.abc import Callable, Mapping
from functools import cache

from .case import Case
from .iterations import ITERATIONS
from .optimisation import OPTIMISATION
from .roots import ROOTS

CASES: Mapping[str, Callable[[], Case]] = {
    make.__name__: cache(make) for make in (*ITERATIONS, *OPTIMISATION, *ROOTS)
}
"""Every case by name, built on demand."""
