"""The one loop: every solver, forward or adjoint, in every framework, runs through it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from . import _tree as tree
from ._ops import Number, Ops
from ._solution import Result, Results, Stats
from ._solver import AbstractSolver, Point
from ._stopping import PATIENCE, Tolerance
from ._tree import Leaves

_INF = float("inf")
_CONVERGED, _STAGNATED, _NONFINITE = map(
    float, (Result.CONVERGED, Result.STAGNATED, Result.NONFINITE)
)


class Carry(NamedTuple):
    """Everything that changes from one evaluation to the next; numbers are per system."""

    z: Leaves
    """The iterate that f is evaluated at next."""
    memory: Any
    """The solver's state."""
    step: Number
    """Steps taken so far, one for the whole batch."""
    floor: Number
    """Absolute part of the tolerance."""
    active: Number
    """Which systems still iterate."""
    value: Leaves
    """The iterate to return: the converged one, or the best so far."""
    error: Number
    """Residual at ``value``."""
    tolerance: Number
    """Tolerance at ``value``."""
    best_step: Number
    """When ``value`` was found."""
    steps: Number
    """Steps taken until the system stopped."""
    codes: Number
    """`Result` of each system; MAX_STEPS until it is known better."""


@dataclass(frozen=True)
class Iteration:
    """A solver, a stopping rule and a budget: hashable, so that traced code can be cached on it."""

    solver: AbstractSolver
    tolerance: Tolerance
    max_steps: int

    def start(self, ops: Ops, z: Leaves, floor: Number) -> Carry:
        """The carry before the first evaluation."""
        number = partial(ops.numbers, z[0])
        return Carry(
            z=z,
            memory=self.solver.init(ops, z),
            step=ops.scalar(0.0),
            floor=number(0.0) + floor,
            active=number(0.0) < 1.0,
            value=z,
            error=number(_INF),
            tolerance=number(0.0),
            best_step=number(0.0),
            steps=number(float(self.max_steps)),
            codes=number(float(Result.MAX_STEPS)),
        )

    @property
    def limit(self) -> int:
        """The most evaluations of f: one a step and one that certifies the last iterate."""
        return self.max_steps + 1

    def active(self, ops: Ops, carry: Carry) -> Number:
        """Whether any system still iterates."""
        return ops.xp.any(carry.active)

    def update(self, ops: Ops, carry: Carry, f: Leaves) -> Carry:
        """Judge the iterate whose f was just evaluated, then take a step from it."""
        residual = tree.subtract(f, carry.z)
        error = self.tolerance.measure(ops, residual)
        carry, running = self._judge(ops, carry, f, error)
        if not ops.traced and not ops.xp.any(running):
            # Python can see that nobody needs another step.
            return carry._replace(step=carry.step + 1)
        z, memory = self.solver.step(ops, Point(carry.z, f, residual, error), carry.memory)
        if ops.traced or not ops.xp.all(running):
            # A stopped system is fed its own result again, so that nothing runs off to infinity.
            z = tree.select(ops, running, z, carry.value)
        return carry._replace(z=z, memory=memory, step=carry.step + 1)

    def _judge(self, ops: Ops, c: Carry, f: Leaves, error: Number) -> tuple[Carry, Number]:
        """Record what the residual says: better? met? hopeless? Comparisons with NaN are false."""
        where = ops.xp.where
        tolerance = c.floor + self.tolerance.rtol * self.tolerance.measure(ops, f)
        met = (error <= tolerance) & (tolerance < _INF)
        improved = c.active & (error < c.error)
        accept = improved | (c.active & met)
        best_step = where(improved, c.step, c.best_step)
        patient = (c.step - best_step) < PATIENCE
        unsettled = c.active & (error > tolerance) & (error < _INF) & patient
        running = unsettled & (c.step < self.max_steps)
        verdict = where(met, _CONVERGED, where(error < _INF, _STAGNATED, _NONFINITE))
        settled = c.active != unsettled
        return (
            c._replace(
                active=running,
                value=tree.select(ops, accept, c.z, c.value),
                error=where(accept, error, c.error),
                tolerance=where(accept, tolerance, c.tolerance),
                best_step=best_step,
                steps=where(settled, c.step, c.steps),
                codes=where(settled, verdict, c.codes),
            ),
            running,
        )

    def run(
        self, ops: Ops, f: Callable[[Leaves], Leaves], z: Leaves, floor: Number
    ) -> tuple[Leaves, Results, Stats]:
        """Iterate from z until every system has stopped.

        One evaluation of f a step, and one more that certifies the last iterate.
        """
        carry = ops.loop(f, self, self.start(ops, z, floor))
        stats = Stats(
            steps=ops.report(carry.steps, integer=True),
            evaluations=ops.report(carry.step, integer=True),
            residual=ops.report(carry.error),
            tolerance=ops.report(carry.tolerance),
        )
        return carry.value, Results(ops.report(carry.codes, integer=True)), stats
