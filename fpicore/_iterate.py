"""The one loop: every solver, forward or adjoint, in every framework, runs through it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

from . import _tree as tree
from ._ops import Number, Ops
from ._reporting import report
from ._solution import Result, Results, Stats
from ._solver import AbstractSolver, Point
from ._stopping import MARGIN, PATIENCE, Tolerance
from ._tree import Leaves

Map = Callable[[Leaves], Leaves]
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
    """Evaluations so far, one number for the whole batch; the iterate is that of this step."""
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
    """Steps taken until the system stopped; until then the most that it may take. That is data,
    so that another budget compiles nothing anew."""
    codes: Number
    """`Result` of each system; MAX_STEPS until it is known better."""
    budget: Any
    """Most steps of this solve; in traced code nothing, unless the call has a budget of its own."""
    ceiling: Any
    """No less than the tolerance that ‖z‖ would give, where Python can see; else nothing."""
    unmeasured: Leaves
    """f at ``value`` where ``tolerance`` is only such a bound as yet; else nothing."""
    trace: Any = ()
    """Residuals of every evaluation, if they were asked for: see `Watched`."""


class Run(NamedTuple):
    """What an iteration came to."""

    value: Leaves
    results: Results
    stats: Stats
    memory: Any
    """The solver's final state."""


@dataclass(frozen=True)
class Iteration:
    """A solver and a stopping rule: hashable, so that traced code can be cached on it."""

    solver: AbstractSolver
    tolerance: Tolerance
    max_steps: int
    compact: ClassVar[bool] = False
    """Whether f is called with fewer systems as they finish."""

    def start(self, ops: Ops, z: Leaves, active: Number | None = None, budget: Any = None) -> Any:
        """The carry before the first evaluation; ``active`` says which systems iterate."""
        number = partial(ops.numbers, z[0])
        most = self.max_steps if budget is None else budget
        allowance = self._allowance(ops, z, most)
        own = () if budget is None else allowance
        return Carry(
            z=z,
            memory=self.solver.init(ops, z),
            step=ops.scalar(0.0),
            active=number(0.0) < 1.0 if active is None else active,
            value=z,
            error=number(_INF),
            tolerance=number(0.0),
            best_step=number(0.0),
            steps=allowance,
            codes=number(float(Result.MAX_STEPS)),
            budget=own if ops.traced else float(most),
            ceiling=() if ops.traced else _INF,
            unmeasured=(),
        )

    def _allowance(self, ops: Ops, z: Leaves, budget: Any) -> Number:
        """Per system the budget; one that Python cannot see is brought within 1 and max_steps."""
        if isinstance(budget, int):
            return ops.numbers(z[0], float(budget))
        most = ops.scalar(float(self.max_steps))
        wanted = ops.xp.maximum(ops.scalar(budget), ops.scalar(1.0))
        return ops.numbers(z[0], 0.0) + ops.xp.where(wanted < most, wanted, most)

    @property
    def limit(self) -> int:
        """The most evaluations of f: one a step and one that certifies the last iterate."""
        return self.max_steps + 1

    @property
    def silent(self) -> bool:
        """Whether it tells nobody of its evaluations: all that it does is then in its answer."""
        return True

    def around(self, iteration: "Iteration") -> "Iteration":
        """Another iteration, watched as this one is."""
        return iteration

    def active(self, ops: Ops, carry: Any) -> Number:
        """Whether any system still iterates."""
        return ops.xp.any(carry.active)

    def update(self, ops: Ops, carry: Any, f: Leaves) -> Any:
        """Judge the iterate whose f was just evaluated, then take a step from it."""
        residual = self.solver.residual(ops, f, carry.z, carry.memory)
        if ops.traced:  # the derivative of a norm is infinite at zero
            error, tolerance = ops.cut(self.tolerance.sides(ops, residual, f, carry.z))
            return self._judged(ops, carry, Point(carry.z, f, residual, error), tolerance)
        error = self.tolerance.measure(ops, residual)
        point = Point(carry.z, f, residual, error)
        if carry.step >= carry.budget or self.solver.tentative:
            return self._judged(ops, carry, point, self.tolerance.threshold(ops, f))
        # The common step, told apart where Python can see: all improve and none stops. Far from
        # the solution a bound on ‖f‖ says so, and the norm itself is not needed.
        improves = ops.xp.all(carry.active & (error < carry.error))
        if improves:
            bound = carry.ceiling + self.tolerance.rtol * error
            if ops.xp.all(error > MARGIN * bound):
                return self._advanced(ops, carry, point, bound, f)
        tolerance = self.tolerance.threshold(ops, f)
        if improves and ops.xp.all(error > tolerance):
            return self._advanced(ops, carry, point, tolerance, ())
        return self._judged(ops, carry, point, tolerance)

    def _advanced(
        self, ops: Ops, c: Carry, point: Point, tolerance: Number, unmeasured: Leaves
    ) -> Carry:
        """The carry after a step where every system improved and goes on."""
        proposal, memory = self.solver.step(ops, point, c.memory)
        ceiling = tolerance if proposal is point.f else _INF
        return Carry(
            proposal,
            memory,
            c.step + 1,
            c.active,
            point.z,
            point.error,
            tolerance,
            c.step,
            c.steps,
            c.codes,
            c.budget,
            ceiling,
            unmeasured,
        )

    def _judged(self, ops: Ops, carry: Carry, point: Point, tolerance: Number) -> Carry:
        """The carry after any step: each system is judged, and those that go on are moved."""
        if carry.unmeasured:
            exact = self.tolerance.threshold(ops, carry.unmeasured)
            carry = carry._replace(tolerance=exact, unmeasured=())
        carry = self._judge(ops, carry, point.error, tolerance)
        running = carry.active
        if not ops.traced and not ops.xp.any(running):
            return carry
        if self.solver.tentative:
            point = point._replace(tolerance=tolerance)
        # A step from where a system has stopped comes to nothing, but may have no derivative.
        point, memory = ops.cut((point, carry.memory), running)
        proposal, memory = self.solver.step(ops, point, memory)
        if ops.batch_ndim:
            # A stopped system is fed its own result again, lest it run off to infinity.
            proposal = tree.select(ops, running, proposal, carry.value)
        return carry._replace(z=proposal, memory=memory)

    def _judge(self, ops: Ops, c: Carry, error: Number, tolerance: Number) -> Carry:
        """Record what the residual says: better? met? hopeless? Comparisons with NaN are false."""
        xp, step = ops.xp, c.step
        finite = error < _INF
        met = (error <= tolerance) & (tolerance < _INF)
        improved = c.active & (error < c.error)
        accept = improved | (c.active & met)
        best_step = xp.where(improved, step, c.best_step)
        patient = step - best_step < max(PATIENCE, self.max_steps // 4)
        short = (error > tolerance) & finite
        hopeful = short
        if self.solver.tentative:  # it goes back from where f is not finite
            hopeful = short | ((c.error < _INF) & xp.logical_not(finite))
        unsettled = c.active & hopeful & patient
        settled = c.active != unsettled
        # Not c.steps: where nobody reads them, a compiler then drops them from the loop.
        most = self.max_steps if isinstance(c.budget, tuple) else c.budget
        verdict = xp.where(met, _CONVERGED, xp.where(short, _STAGNATED, _NONFINITE))
        return Carry(
            z=c.z,
            memory=c.memory,
            step=step + 1,
            active=unsettled & (step < most),
            value=tree.select(ops, accept, c.z, c.value),
            error=xp.where(accept, error, c.error),
            tolerance=xp.where(accept, tolerance, c.tolerance),
            best_step=best_step,
            steps=xp.where(settled, step, c.steps),
            codes=xp.where(settled, verdict, c.codes),
            budget=c.budget,
            ceiling=() if ops.traced else _INF,
            unmeasured=(),
        )

    def iterate(
        self, ops: Ops, f: Map, z: Leaves, active: Number | None = None, budget: Any = None
    ) -> Carry:
        """Iterate from z until every system has stopped, of those that are to iterate at all.

        One evaluation of f a step, and one more that certifies the last iterate. ``budget`` is
        the most steps, where that is fewer than max_steps: an integer or a tensor without axes.
        """
        return self.end(ops, ops.loop(f, self, self.start(ops, z, active, budget)))

    def end(self, ops: Ops, carry: Any) -> Carry:
        """What is left of the last carry of a loop."""
        del ops
        return carry

    def run(self, ops: Ops, f: Map, z: Leaves, budget: Any = None) -> Run:
        """Iterate, and say how it went in the user's terms."""
        return outcome(ops, self.iterate(ops, f, z, budget=budget))


@dataclass(frozen=True)
class Inspection(Iteration):
    """An iteration of no step: measures the residual at the start and returns that point."""

    @property
    def limit(self) -> int:
        """One evaluation."""
        return 1

    def update(self, ops: Ops, carry: Carry, f: Leaves) -> Carry:
        """Judge the start."""
        error = self.tolerance.measure(ops, tree.subtract(f, carry.z))
        judged = self._judge(ops, carry, error, self.tolerance.threshold(ops, f))
        nothing = ops.numbers(f[0], 0.0)
        poor = judged.active | (judged.codes == float(Result.MAX_STEPS))
        return judged._replace(
            active=nothing > 0.0,
            steps=nothing,
            error=error,
            codes=ops.xp.where(poor, float(Result.INACCURATE), judged.codes),
        )


def outcome(ops: Ops, carry: Any) -> Run:
    """What the last carry of a loop says to the caller."""
    results, stats = report(
        ops,
        carry.codes,
        steps=carry.steps,
        evaluations=carry.step,
        residual=carry.error,
        tolerance=carry.tolerance,
        trace=getattr(carry, "trace", ()),
    )
    return Run(carry.value, results, stats, carry.memory)
