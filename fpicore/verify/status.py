"""Whether a derivative is right, and the one way in which that is found out."""

import traceback
import warnings
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .._errors import DerivativeError
from .arrays import Array, leaf_error

ACCEPTED = 1e-8
"""Largest relative error of a derivative that is right; the solves are asked for 1e-12."""
_KEPT = 200
"""Characters of either end of an exception's message that are kept."""


class Status(StrEnum):
    """What came of asking a framework for a derivative."""

    RIGHT = "right"
    REFUSED = "refused"
    """fpicore raised `DerivativeError` rather than answer wrongly."""
    MISSING = "missing"
    """The framework has no such thing."""
    WRONG = "wrong"
    """A number, and not the right one."""
    FAILED = "failed"
    """Another exception."""

    @property
    def passed(self) -> bool:
        """Whether no promise is broken: a derivative is right or refused."""
        return self not in (Status.WRONG, Status.FAILED)


class Outcome(NamedTuple):
    """What came of one attempt."""

    status: Status
    error: float | None = None
    """Relative, the largest over the arrays that were asked for; None without an answer."""
    note: str = ""
    """Why there is none."""


def attempt(compute: Callable[[], Sequence[Array]], truth: Sequence[Array]) -> Outcome:
    """Compute arrays and compare them with the truth, whatever happens on the way."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the answer is judged, not what is said about it
            found = [np.asarray(array) for array in compute()]
    except DerivativeError as error:
        return Outcome(Status.REFUSED, note=" ".join(str(error).split()))
    except Exception as error:  # whatever a framework raises is a finding, not an abort
        return Outcome(Status.FAILED, note=describe(error))
    shapes = [array.shape for array in found], [array.shape for array in truth]
    if shapes[0] != shapes[1]:
        note = f"expected arrays of shapes {shapes[1]}, received {shapes[0]}"
        return Outcome(Status.WRONG, note=note)
    error = leaf_error(found, truth)
    return Outcome(Status.RIGHT if error <= ACCEPTED else Status.WRONG, error)


def describe(error: Exception) -> str:
    """The error and the place that raised it; assertions and some others have no message."""
    *_, last = traceback.extract_tb(error.__traceback__)
    text = " ".join(str(error).split())
    if len(text) > 2 * _KEPT:
        text = f"{text[:_KEPT]} … {text[-_KEPT:]}"
    place = f"{Path(last.filename).name}:{last.lineno}"
    return f"{type(error).__name__} at {place}: {text or last.line}"
