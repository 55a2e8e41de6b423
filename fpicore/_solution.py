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
    Result.MAX_STEPS: "max_steps was reached; the best iterate is returned. Raise max_steps, "
    "loosen rtol, or change the solver (Anderson and Broyden need fewer steps than Picard, "
    "NewtonKrylov solves stiff maps); set "
    "atol if f(z) tends to 0",
    Result.NONFINITE: "an iterate or f(z) became infinite or NaN; the best finite iterate is "
    "returned. The map may be expansive: try Anderson or Broyden, Picard with damping < 1, "
    "NewtonKrylov, which goes back from where f is not finite, or a start closer to the solution",
    Result.STAGNATED: "the residual has not improved for many steps; the best iterate is "
    "returned. It may sit at rounding level (loosen rtol or use a wider dtype) in a cycle (try "
    "Anderson, or Picard with damping < 1), or the map is expansive (try Anderson, Broyden or "
    "NewtonKrylov); set "
    "atol if f(z) tends to 0",
    Result.TRUNCATED: "a fixed number of terms was taken, as asked; nothing was measured",
    Result.INACCURATE: "the point misses its equation by more than the tolerance: a given fixed "
    "point was solved for too loosely (tighten that, or pass a larger rtol or atol), or rounding "
    "grew while an iteration was run backwards (smaller damping, fewer steps or float64)",
}


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
        codes = getattr(self.codes, "tolist", lambda: self.codes)()
        if not isinstance(codes, list) and hasattr(codes, "numpy"):
            codes = codes.numpy().tolist()
        stack, flat = [codes], []
        while stack:
            item = stack.pop()
            if isinstance(item, list):
                stack.extend(reversed(item))
            else:
                flat.append(int(item))
        return flat

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
