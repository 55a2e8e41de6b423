"""A picture of a solve: residuals against evaluations."""

import math
from typing import Any

from ._errors import InputError
from ._extras import require
from ._solution import MANY, Stats, listed


def plot_convergence(solution: Any, ax: Any = None) -> Any:
    """Draw ‖f(z) − z‖ of every evaluation on a logarithmic scale, and the tolerance.

    One line for each system, and a dashed one at its tolerance, which is that at the returned
    value. Up to ten systems have colours and names of their own; of more, the tolerances are a
    band. A residual that is zero or not finite is left out.

    Args:
        solution: what ``fixed_point(..., trace=True)`` returned; its ``backward``, where that was
            asked of ``Implicit(trace=True)``; or the stats of either.
        ax: the matplotlib axes to draw on; None makes a figure.

    Returns:
        The axes.

    Raises:
        InputError: there is no trace, it is that of a trace of JAX or TensorFlow without values,
            or matplotlib is not installed.
    """
    stats = getattr(solution, "stats", solution)
    if not isinstance(stats, Stats):
        raise InputError(
            f"expected a Solution or its stats, received {type(solution).__name__}; pass what "
            "fixed_point(..., trace=True) returned"
        )
    if stats.trace is None:
        raise InputError(
            "expected a solution with a trace, received one without; pass trace=True to "
            "fixed_point, or to Implicit with a solver other than GMRES"
        )
    traces, tolerances = _rows(stats)
    if ax is None:
        ax = require("matplotlib.pyplot", "a plot", "matplotlib", "plot").subplots()[1]
    few = len(traces) <= MANY
    for index, (trace, tolerance) in enumerate(zip(traces, tolerances, strict=True)):
        last = max([k for k, r in enumerate(trace) if not math.isnan(r)], default=0)
        shown = [r if 0.0 < r < math.inf else math.nan for r in trace[: last + 1]]
        label = f"system {index}" if few and len(traces) > 1 else "_residual"
        style = {"label": label, "marker": "."} if few else {"alpha": 0.3, "color": "C0"}
        (line,) = ax.plot(range(last + 1), shown, **style)
        if few and tolerance > 0.0:
            ax.axhline(tolerance, color=line.get_color(), linestyle="--", linewidth=0.8)
    positive = [t for t in tolerances if 0.0 < t < math.inf]
    if not few and positive:
        ax.axhspan(min(positive), max(positive), color="C1", alpha=0.3, label="tolerance")
    ax.set(yscale="log", xlabel="evaluation", ylabel="residual")
    if len(traces) > 1:
        ax.legend()
    return ax


def _rows(stats: Stats) -> tuple[list[list[float]], list[float]]:
    """The traces and tolerances of the systems."""
    try:
        flat, tolerances = listed(stats.trace), listed(stats.tolerance)
    except Exception as error:  # each framework has its own for a tensor without values
        raise InputError(
            "expected a trace with values, received one of traced code; return the solution from "
            "it, or solution.stats, and plot that"
        ) from error
    width = len(flat) // max(len(tolerances), 1)
    return [flat[i : i + width] for i in range(0, len(flat), width)], tolerances
