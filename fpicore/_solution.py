"""What a solve returns: the value, what became of each system, and what it cost."""

from enum import IntEnum
from typing import Any, NamedTuple


class Result(IntEnum):
    """How the solve of one system ended."""

    CONVERGED = 0
    MAX_STEPS = 1
    NONFINITE = 2
    STAGNATED = 3
    TRUNCATED = 4
    INACCURATE = 5

    @property
    def message(self) -> str:
        """What happened and what to try next."""
        return _MESSAGES[self]


_MESSAGES = {
    Result.CONVERGED: "the residual met its tolerance",
    Result.MAX_STEPS: "max_steps, or the budget, was reached; the best iterate is returned. Raise "
    "max_steps if the residual still falls (trace=True shows it), loosen rtol, or change the "
    "solver: Anderson and Broyden need fewer steps than Picard, NewtonKrylov solves stiff maps, "
    "Auto tries them in turn. If f(z) tends to 0, set atol",
    Result.NONFINITE: "an iterate or f(z) became infinite or NaN; the best finite iterate is "
    "returned. If f(z0) is not finite, correct f or z0. Otherwise the map may be expansive: try "
    "Anderson or Broyden, Picard with damping < 1, NewtonKrylov, which goes back from where f is "
    "not finite, or a start closer to the solution",
    Result.STAGNATED: "the residual has not improved for many steps; the best iterate is "
    "returned. If it is near the tolerance, it sits at rounding level: loosen rtol or use a wider "
    "dtype. If it goes up and down, the iteration is in a cycle: try Anderson, or Picard with "
    "damping < 1. If it is large, the map may be expansive (try Anderson, Broyden or Auto) "
    "or change at every call (draw its random numbers before the solve). If f(z) tends to 0, set "
    "atol",
    Result.TRUNCATED: "a fixed number of terms was taken, as asked; nothing was measured, so take "
    "Implicit() where the exact gradient is wanted",
    Result.INACCURATE: "the point misses its equation by more than the tolerance. A fixed point "
    "that was given: solve for it more tightly, or pass a larger rtol or atol. An adjoint solve: "
    "I − J is singular there, as far as the dtype tells. An iteration that was run backwards: "
    "rounding grew, so take a smaller damping, fewer steps or float64",
}


def listed(numbers: Any) -> list[Any]:
    """A tensor of any framework, or a number, as a flat list.

    Raises:
        Exception: there are no values, as in traced code; each framework has its own.
    """
    found = getattr(numbers, "tolist", lambda: numbers)()
    if not isinstance(found, list) and hasattr(found, "numpy"):
        found = found.numpy().tolist()
    stack, flat = [found], []
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(reversed(item))
        elif isinstance(item, (int, float)):
            flat.append(item)
        else:
            raise TypeError(f"expected a number that is known, received {item!r}")
    return flat


class Results(NamedTuple):
    """The outcome of every system, as data; ``str()`` says what to do."""

    codes: Any
    """Integer of the batch shape, one `Result` value per system."""

    @property
    def converged(self) -> Any:
        """Boolean of the batch shape: which systems converged."""
        return self.codes == int(Result.CONVERGED)

    def counts(self) -> dict[Result, int]:
        """How many systems ended in each way; needs concrete values."""
        codes = self.flat()
        return {r: codes.count(int(r)) for r in Result if int(r) in codes}

    def flat(self) -> list[int]:
        """The codes as a flat list of Python integers; needs concrete values."""
        return [int(code) for code in listed(self.codes)]

    def __str__(self) -> str:
        try:
            counts = self.counts()
        except Exception:  # a tracer has no values to describe; each framework has its own error
            return f"Results(codes={self.codes!r})"
        if sum(counts.values()) == 1:
            (result,) = counts
            return f"{result.name}: {result.message}"
        return "; ".join(
            f"{result.name} ({count} of {sum(counts.values())} systems): {result.message}"
            for result, count in counts.items()
        )


class Stats(NamedTuple):
    """What a solve cost and how close it came; per system unless said otherwise.

    A system converged exactly if ``residual <= tolerance`` (and the tolerance is finite).
    """

    steps: Any
    """Solver steps taken until the system stopped."""
    evaluations: Any
    """Calls of f in the solve, one number for the whole batch: one a step, and one that
    certifies the last iterate."""
    residual: Any
    """‖f(z) − z‖ at the returned z, undamped, in the chosen norm."""
    tolerance: Any
    """atol + rtol·‖f(z)‖ at the returned z."""
    trace: Any = None
    """With ``trace=True``, ‖f(z) − z‖ of every evaluation, batch + (max_steps + 1,): NaN from where
    a system has stopped, infinite where f was not finite."""

    def __str__(self) -> str:
        """A table: a row for each system, or of least, median and most where they are many."""
        try:
            return _table(self)
        except Exception:  # a tracer has no values to describe; each framework has its own error
            return repr(self)


MANY = 10
"""Systems from which a table sums up."""


def _table(stats: Stats) -> str:
    columns = [listed(x) for x in (stats.steps, stats.residual, stats.tolerance)]
    count = max(map(len, columns))
    columns = [column * (count // len(column)) for column in columns]  # some are of all systems
    # Infinity meets an infinite tolerance, and that is no convergence.
    met = [r <= t < float("inf") for r, t in zip(*columns[1:], strict=True)]
    summed = count > MANY
    names = ["least", "median", "most"] if summed else list(map(str, range(count)))
    if summed:
        ordered = [sorted(column, key=_nan_last) for column in columns]
        columns = [[column[0], column[count // 2], column[-1]] for column in ordered]
    lines = [["systems" if summed else "system", "steps", "residual", "tolerance"]]
    for name, steps, residual, tolerance in zip(names, *columns, strict=True):
        lines.append([name, str(int(steps)), f"{residual:.2e}", f"{tolerance:.2e}"])
    if not summed:
        lines[0].append("converged")
        for line, good in zip(lines[1:], met, strict=True):
            line.append("yes" if good else "no")
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = ["  ".join(map(str.rjust, line, widths)) for line in lines]
    ended = f"{sum(met)} of {count} systems converged, " if count > 1 else ""
    return "\n".join([*rows, f"{ended}{max(map(int, listed(stats.evaluations)))} evaluations"])


def _nan_last(number: float) -> tuple[bool, float]:
    return (number != number, number)


class Backward:
    """The adjoint's own outcome, filled in by an eager framework's backward pass.

    ``result`` and ``stats`` are None until a backward pass has run, and those of the latest one
    afterwards. Traced frameworks report through ``Implicit(callback=...)`` instead.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.result: Results | None = None
        self.stats: Stats | None = None

    def note(self, results: Results, stats: Stats) -> None:
        """Record the outcome of an adjoint solve."""
        self.result, self.stats = results, stats

    def __repr__(self) -> str:
        return f"Backward(result={self.result}, stats={self.stats})"


class Solution(NamedTuple):
    """The answer of ``fixed_point``."""

    value: Any
    """z*, of the structure of z0; differentiable. The best iterate seen if the solve failed."""
    result: Results
    """Per system how the solve ended."""
    stats: Stats
    """Cost and certificate."""
    aux: Any = None
    """The auxiliary output of f at the returned value, with ``has_aux=True``."""
    backward: Backward | None = None
    """Outcome of the adjoint solve, in eager frameworks."""

    @property
    def converged(self) -> Any:
        """Boolean of the batch shape: which systems converged."""
        return self.result.converged

    def __str__(self) -> str:
        """How it went; the value is for ``repr``."""
        return f"{self.result}\n{self.stats}"
