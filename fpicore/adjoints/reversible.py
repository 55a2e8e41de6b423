"""The gradient of an iteration that can be run backwards."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from .. import _tree as tree
from .._adjoint import AbstractBackward
from .._iterate import Carry, Iteration
from .._ops import Number, Ops
from .._options import check_interval
from .._problem import Problem
from .._reporting import check_callback, check_on_failure, report
from .._solution import Result, Results, Stats
from .._solver import AbstractSolver, Point
from .._stopping import Tolerance
from .._tree import Leaves

if TYPE_CHECKING:
    from .._backend import Backend, Outcome

Pull = Callable[[tuple[Leaves, Leaves]], tuple[Leaves, Leaves, Leaves]]
"""(z, c) ↦ (f(z), Jᵀc, (∂f/∂θ)ᵀc)."""


@dataclass(frozen=True)
class Reversible(AbstractBackward):
    """The exact gradient of a reversible iteration, in memory that does not depend on its length.

    Replaces the solver by z_{k+1} = (1 − β) z_{k−1} + β f(z_k), z_{−1} = z_0, one evaluation a
    step, which converges where f contracts. It can be undone, z_{k−1} = (z_{k+1} − β f(z_k)) /
    (1 − β), so the backward pass recomputes the iterates instead of keeping them: one evaluation
    and one vector-Jacobian product a step. Like that of `Unrolled` the gradient is that of the
    program that ran, z0 included, not of the fixed point. McCallum, Arora, Foster,
    arXiv 2509.12917; their pair of half steps (y, z) is this recurrence.

    Undoing a step magnifies rounding by up to 1/(1 − β), so the recomputed start is compared
    with the true one: a gradient whose start is off by more than ``rtol`` is reported as
    INACCURATE. A smaller β, fewer steps or float64 are the remedies.

    Attributes:
        damping: β, 0 < damping < 1.
        rtol: largest ‖recomputed start − start‖ / ‖last iterate‖, in the norm of the solve.
        on_failure: "warn", "raise" or "ignore" when the recomputed start is off, in eager code.
        callback: called with (results, stats) of each backward pass, as for `Implicit`;
            ``stats.evaluations`` counts its vector-Jacobian products.

    Raises:
        InputError: an attribute is out of its range.
    """

    damping: float = 0.5
    rtol: float = 1e-3
    what: ClassVar[str] = "the reversed iteration"
    on_failure: str = "warn"
    callback: Callable[[Results, Stats], Any] | None = None

    def __post_init__(self) -> None:
        check_interval("damping", self.damping, 0.0, 1.0 - 2.0**-20)
        check_interval("rtol", self.rtol, 0.0, 1.0)
        check_on_failure(self.on_failure)
        check_callback(self.callback)

    def solve(self, backend: "Backend", problem: Problem, iteration: Iteration) -> "Outcome":
        """Iterate, and register the backward sweep."""
        forward = ReversibleIteration(
            _Leapfrog(self.damping), iteration.tolerance, iteration.max_steps
        )
        return backend.reverse(problem, iteration.around(forward), self)

    def sweep(
        self,
        ops: Ops,
        pull: Pull,
        last: "Track",
        start: Leaves,
        v: Leaves,
        theta: Leaves,
        iteration: Iteration,
    ) -> tuple[Leaves, Leaves, Results, Stats]:
        """Cotangents of z0 and of θ, from that of the last iterate.

        ``theta`` is zeros like θ, where the sum begins; ``iteration`` is the forward one.
        """
        zero = tree.zeros(ops, v)
        carry = _Sweep(
            z=(last.before, _weighed(ops, self.damping, last.steps, v, zero)),
            ahead=last.here,
            cotangent=v,
            cotangent_before=zero,
            theta=theta,
            left=last.steps,
            products=ops.scalar(0.0),
            zero=zero,
        )
        carry = ops.loop(pull, _Backwards(self.damping, iteration.max_steps), carry)
        z0 = tree.add(carry.cotangent, carry.cotangent_before)
        return z0, carry.theta, *self._certificate(ops, carry, start, last, iteration.tolerance)

    @staticmethod
    def track(carry: Carry) -> "Track":
        """What the sweep begins from, of the forward iteration's last carry."""
        return Track(carry.z, carry.memory, carry.steps)

    def _certificate(
        self, ops: Ops, carry: "_Sweep", start: Leaves, last: "Track", tolerance: Tolerance
    ) -> tuple[Results, Stats]:
        """How far the recomputed start is from the true one."""
        error = tolerance.measure(ops, tree.subtract(carry.ahead, start))
        allowed = self.rtol * tolerance.measure(ops, last.here)
        near = (error <= allowed) & (allowed < float("inf"))
        return report(
            ops,
            ops.xp.where(near, float(Result.CONVERGED), float(Result.INACCURATE)),
            steps=last.steps,
            evaluations=carry.products,
            residual=error,
            tolerance=allowed,
        )


class Track(NamedTuple):
    """What the forward iteration leaves for the sweep."""

    here: Leaves
    """The last iterate."""
    before: Leaves
    """The one before it."""
    steps: Number


@dataclass(frozen=True)
class _Leapfrog(AbstractSolver):
    """z_{k+1} = (1 − β) z_{k−1} + β f(z_k); the state is z_{k−1}."""

    damping: float
    name = "leapfrog"

    def init(self, ops: Ops, z: Leaves) -> Leaves:
        """z_{−1} = z_0."""
        return z

    def step(self, ops: Ops, point: Point, state: Leaves) -> tuple[Leaves, Leaves]:
        """Step from the iterate before."""
        return _mix(self.damping, state, point.f), point.z


@dataclass(frozen=True)
class ReversibleIteration(Iteration):
    """Returns the last iterate, not the best, and keeps the one before it for each system."""

    def update(self, ops: Ops, carry: Carry, f: Leaves) -> Carry:
        """Judge the iterate; step where the system goes on, stand still elsewhere."""
        z, before = carry.z, carry.memory
        error = self.tolerance.measure(ops, tree.subtract(f, z))
        tolerance = self.tolerance.threshold(ops, f)
        latest = carry.active & (error < float("inf"))
        judged = self._judge(ops, carry, error, tolerance)
        proposal, _ = self.solver.step(ops, Point(z, f, f, error), before)
        return judged._replace(
            z=tree.select(ops, judged.active, proposal, z),
            memory=tree.select(ops, judged.active, z, before),
            value=tree.select(ops, latest, z, carry.value),
            error=ops.xp.where(latest, error, carry.error),
            tolerance=ops.xp.where(latest, tolerance, carry.tolerance),
        )


class _Sweep(NamedTuple):
    z: tuple[Leaves, Leaves]
    """z_k, and the cotangent β·a_{k+1} of f(z_k), zero for a system that is done."""
    ahead: Leaves
    """z_{k+1}."""
    cotangent: Leaves
    """a_{k+1}, of z_{k+1}."""
    cotangent_before: Leaves
    """What has reached z_k so far."""
    theta: Leaves
    left: Number
    """Steps to undo, per system."""
    products: Number
    zero: Leaves
    """0 of the state's kind."""


@dataclass(frozen=True)
class _Backwards:
    """Undoes one step of every system that has one left."""

    damping: float
    limit: int

    def active(self, ops: Ops, carry: _Sweep) -> Number:
        """Whether a step is left anywhere."""
        return ops.xp.any(carry.left > 0.0)

    def update(self, ops: Ops, carry: _Sweep, f: tuple[Leaves, Leaves, Leaves]) -> _Sweep:
        """From (z_{k+1}, z_k) to (z_k, z_{k−1}), and their cotangents with them."""
        here, going = carry.z[0], carry.left > 0.0
        value, pulled, theta = f
        kept = 1.0 - self.damping
        before = [(z - self.damping * fz) / kept for z, fz in zip(carry.ahead, value, strict=True)]
        cotangent = tree.add(carry.cotangent_before, pulled)
        passed = [kept * a for a in carry.cotangent]
        left = carry.left - ops.xp.where(going, 1.0, 0.0)
        cotangent = tree.select(ops, going, cotangent, carry.cotangent)
        return _Sweep(
            z=(
                tree.select(ops, going, tuple(before), here),
                _weighed(ops, self.damping, left, cotangent, carry.zero),
            ),
            ahead=tree.select(ops, going, here, carry.ahead),
            cotangent=cotangent,
            cotangent_before=tree.select(ops, going, tuple(passed), carry.cotangent_before),
            theta=tree.add(carry.theta, theta),
            left=left,
            products=carry.products + 1.0,
            zero=carry.zero,
        )


def _mix(damping: float, old: Leaves, new: Leaves) -> Leaves:
    """(1 − β)·old + β·new."""
    return tuple([(1.0 - damping) * a + damping * b for a, b in zip(old, new, strict=True)])


def _weighed(ops: Ops, damping: float, left: Number, a: Leaves, zero: Leaves) -> Leaves:
    """β·a for a system with steps left, else zero."""
    return tree.select(ops, left > 0.0, tuple([damping * x for x in a]), zero)
