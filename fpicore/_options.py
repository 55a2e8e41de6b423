"""Checks of numeric options, shared by solvers, adjoints and the entry."""

import math
import operator
from typing import Any

from ._errors import InputError


def check_interval(name: str, value: Any, low: float, high: float) -> float:
    """The value as a float if low < value ≤ high, else `InputError`."""
    number = as_number(name, value)
    if not low < number <= high:
        raise InputError(f"expected {low} < {name} <= {high}, received {name}={value!r}")
    return number


def check_nonnegative(name: str, value: Any) -> float:
    """The value as a finite float ≥ 0, else `InputError`."""
    number = as_number(name, value)
    if not 0.0 <= number < math.inf:
        raise InputError(f"expected {name} to be finite and >= 0, received {name}={value!r}")
    return number


def check_count(name: str, value: Any, least: int) -> int:
    """The value as an integer ≥ least, else `InputError`."""
    try:
        count = operator.index(value)
    except TypeError:
        count = None
    if count is None or isinstance(value, bool) or count < least:
        raise InputError(f"expected {name} to be an integer >= {least}, received {name}={value!r}")
    return count


def as_number(name: str, value: Any) -> float:
    """The value as a Python float, else `InputError`."""
    if not isinstance(value, bool):
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    raise InputError(f"expected {name} to be a real number, received {name}={value!r}")
