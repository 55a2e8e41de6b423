"""The loop of the linear solvers: it multiplies, certifies, and keeps the books of each system."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from . import _tree as tree
from ._iterate import Map
from ._ops import Number, Ops
from ._solution import Result
from ._solver import AbstractLinearSolver
from ._stopping import Tolerance
from ._tree import Leaves

_INF = float("inf")
_CONVERGED, _STAGNATED, _NONFINITE = map(
    float, (Result.CONVERGED, Result.STAGNATED, Result.NONFINITE)
)


class LinearCarry(NamedTuple):
    """Everything that changes from one product to the next; numbers are per system."""

    z: Leaves
    """What is multiplied next: a vector that the solver asked for, or an iterate on trial."""
    memory: Any
    """The solver's state."""
    step: Number
    """Products so far, one number for the whole batch."""
    active: Number
    """Which systems still iterate."""
    trial: Number
    """Where z is an iterate, whose true residual the product will tell."""
    right: Leaves
    """The right-hand side v."""
    origin: Leaves
    """The iterate that the solver's cycle began from."""
    value: Leaves
    """The iterate to return: the converged one, or the best so far."""
    error: Number
    """True residual at ``value``."""
    tolerance: Number
    """What it must not exceed."""
    steps: Number
    """Steps taken until the system stopped."""
    codes: Number
    """`Result` of each system; MAX_STEPS until it is known better."""


@dataclass(frozen=True)
class LinearIteration:
    """A linear solver, a stopping rule and a budget: the `Process` that solves (I − Jᵀ) g = v.

    The solver knows the residual of its iterate by recurrence, in any norm and without a product.
    Where that meets the tolerance, the iterate is formed and multiplied: convergence and the
    residual that is reported rest on that product alone. A cycle that is merely full goes over
    into the next one by the recurrence, which saves the product that a restart usually costs.
    """

    solver: AbstractLinearSolver
    tolerance: Tolerance
    max_steps: int

    def start(self, ops: Ops, v: Leaves) -> LinearCarry:
        """The carry before the first product; the residual at g = 0 is v itself."""
        error = self.tolerance.measure(ops, v)
        tolerance = self.tolerance.threshold(ops, v)
        active = (error > tolerance) & (error < _INF)
        zero = tree.zeros(ops, v)
        vector, memory = self.solver.init(ops, tree.select(ops, active, v, zero))
        # Where v is not finite no g is: the answer must not be a harmless zero.
        value = tree.select(ops, error < _INF, zero, v)
        codes = ops.xp.where(error <= tolerance, _CONVERGED, _NONFINITE)
        unknown = ops.numbers(v[0], float(Result.MAX_STEPS))
        return LinearCarry(
            z=tree.select(ops, active, vector, value),
            memory=memory,
            step=ops.scalar(0.0),
            active=active,
            trial=ops.numbers(v[0], 0.0) > 1.0,
            right=v,
            origin=zero,
            value=value,
            error=error,
            tolerance=tolerance,
            steps=ops.xp.where(active, float(self.max_steps), ops.numbers(v[0], 0.0)),
            codes=ops.xp.where(active, unknown, codes),
        )

    @property
    def limit(self) -> int:
        """The most products: one a step and one that certifies the last iterate."""
        return self.max_steps + 1

    def active(self, ops: Ops, carry: LinearCarry) -> Number:
        """Whether any system still iterates."""
        return ops.xp.any(carry.active)

    def update(self, ops: Ops, carry: LinearCarry, f: Leaves) -> LinearCarry:
        """Judge what was on trial, let the solver take in the product, choose what is next."""
        xp, trial = ops.xp, carry.trial
        image = tree.subtract(carry.z, f)
        residual = tree.subtract(carry.right, image)
        if ops.traced or xp.any(trial):
            carry = self._judge(ops, carry, residual)
            if not ops.traced and not xp.any(carry.active):
                return carry._replace(step=carry.step + 1)
        new = self.solver.expand(ops, carry.z, image, carry.memory)
        error = self.tolerance.measure(ops, new.residual)
        expanded = carry.active & xp.logical_not(trial)
        lost = expanded & xp.logical_not(error < _INF)
        expanded = expanded & (error < _INF)
        last = carry.step + 1 >= self.max_steps
        due = expanded & ((error <= carry.tolerance) | new.stuck | last)
        full = expanded & new.full & xp.logical_not(due)
        origin = self._close(ops, due | full, carry.origin, new.state)
        vector, memory = new.vector, new.state
        restart = full | (trial & carry.active)
        if ops.traced or xp.any(restart):
            known = tree.select(ops, trial, residual, new.residual)
            first, memory = self.solver.begin(ops, restart, known, memory)
            vector = tree.select(ops, restart, first, vector)
        vector = tree.select(ops, due, origin, vector)
        active = carry.active & xp.logical_not(lost)
        return carry._replace(
            # A stopped system is fed its own result again.
            z=tree.select(ops, active, vector, carry.value),
            memory=memory,
            step=carry.step + 1,
            active=active,
            trial=due,
            origin=origin,
            steps=xp.where(lost, carry.step, carry.steps),
            codes=xp.where(lost, _NONFINITE, carry.codes),
        )

    def _judge(self, ops: Ops, c: LinearCarry, residual: Leaves) -> LinearCarry:
        """Record what the true residual says of the iterates on trial."""
        xp, step = ops.xp, c.step
        error = self.tolerance.measure(ops, residual)
        met = error <= c.tolerance
        better = error < c.error
        # A cycle depends on its residual alone: one that gained nothing would only be repeated.
        settled = c.trial & (met | xp.logical_not(better))
        accept = c.trial & (met | better)
        verdict = xp.where(met, _CONVERGED, xp.where(error < _INF, _STAGNATED, _NONFINITE))
        # Another step needs a product to expand with and one to certify.
        stopped = c.trial & (settled | (step + 2 > self.max_steps))
        return c._replace(
            active=c.active & xp.logical_not(stopped),
            value=tree.select(ops, accept, c.z, c.value),
            error=xp.where(accept, error, c.error),
            steps=xp.where(stopped, step, c.steps),
            codes=xp.where(settled, verdict, c.codes),
        )

    def _close(self, ops: Ops, ended: Number, origin: Leaves, memory: Any) -> Leaves:
        """The iterates of the systems whose cycle has ended."""

        def moved() -> Leaves:
            there = tree.add(origin, self.solver.correction(ops, memory))
            return tree.select(ops, ended, there, origin)

        # TensorFlow's graph optimiser was seen to lose the outputs of a cond in a loop whose leaves
        # differ in shape.
        if ops.traced and len(origin) > 1:
            return moved()
        return ops.cond(ops.xp.any(ended), moved, lambda: origin)

    def iterate(self, ops: Ops, product: Map, v: Leaves) -> LinearCarry:
        """Solve g = product(g) + v from g = 0, with product(g) = Jᵀg."""
        return ops.loop(product, self, self.start(ops, v))
