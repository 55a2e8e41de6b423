"""What the caller is told: results and stats, and on failure a warning or an error."""

import warnings
from typing import Any

from ._errors import ConvergenceError, ConvergenceWarning, InputError
from ._ops import Number, Ops
from ._solution import Result, Results, Stats

ON_FAILURE = ("warn", "raise", "ignore")
_AS_ASKED = (Result.CONVERGED, Result.TRUNCATED)


def check_on_failure(on_failure: str) -> None:
    """Raise `InputError` unless the option is known."""
    if on_failure not in ON_FAILURE:
        raise InputError(f"expected on_failure to be one of {ON_FAILURE}, received {on_failure!r}")


def check_callback(callback: Any) -> None:
    """Raise `InputError` unless there is none or it can be called."""
    if callback is not None and not callable(callback):
        raise InputError(f"expected callback to be callable, received {callback!r}")


def report(
    ops: Ops,
    codes: Number,
    *,
    steps: Number,
    evaluations: Number,
    residual: Number,
    tolerance: Number,
    trace: Any = (),
) -> tuple[Results, Stats]:
    """The numbers of a loop as the user sees them."""
    stats = Stats(
        steps=ops.report(steps, integer=True),
        evaluations=ops.report(evaluations, integer=True),
        residual=ops.report(residual),
        tolerance=ops.report(tolerance),
        trace=None if isinstance(trace, tuple) else ops.report(trace),
    )
    return Results(ops.report(codes, integer=True)), stats


def report_failure(
    results: Results, stats: Stats, on_failure: str, what: str, stacklevel: int = 3
) -> None:
    """Warn or raise if a system did not converge; needs concrete values.

    Raises:
        ConvergenceError: a system failed and ``on_failure`` is "raise".
    """
    if on_failure == "ignore":
        return
    codes = results.flat()
    first = next((i for i, code in enumerate(codes) if code not in _AS_ASKED), None)
    if first is None:
        return
    where = f" (first failing system: {first})" if len(codes) > 1 else ""
    residual, tolerance = _pick(stats.residual, first), _pick(stats.tolerance, first)
    message = f"{what} did not converge{where}: {results}. "
    message += f"Residual {residual}, tolerance {tolerance}."
    if on_failure == "raise":
        raise ConvergenceError(message)
    warnings.warn(message, ConvergenceWarning, stacklevel=stacklevel)


def _pick(number: object, index: int) -> str:
    flat = number
    if hasattr(flat, "reshape"):
        flat = flat.reshape(-1)[index]  # pyright: ignore[reportAttributeAccessIssue]
    elif hasattr(flat, "numpy"):
        flat = flat.numpy().reshape(-1)[index]  # pyright: ignore[reportAttributeAccessIssue]
    return f"{float(flat):.3g}"  # pyright: ignore[reportArgumentType]
