"""The exact gradient of the fixed point."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, NamedTuple

from .. import _tree as tree
from .._adjoint import AbstractPullBack, Forward, Product
from .._errors import InputError
from .._iterate import Carry, Iteration, outcome
from .._linear import LinearCarry, LinearIteration
from .._numbers import nowhere
from .._ops import Number, Ops
from .._options import as_number, check_count
from .._reporting import check_callback, check_on_failure
from .._solution import Result, Results, Stats
from .._solver import AbstractLinearSolver, AbstractSolver
from .._stopping import DEFAULT_RTOL, Tolerance, clamp_rtol
from .._tree import Leaves
from .._watch import watch
from ..solvers import Anderson

AnySolver = AbstractSolver | AbstractLinearSolver


@dataclass(frozen=True)
class Implicit(AbstractPullBack):
    """The exact gradient of the fixed point: solves g = Jᵀg + v to a tolerance relative to v.

    Matrix-free: one vector-Jacobian product a step. It is right wherever the solver converges,
    so with Anderson or Broyden also where the spectral radius of J exceeds 1.

    Attributes:
        solver: any fpicore solver, `GMRES` among them; None takes the solver of the forward pass
            (`GMRES` for `NewtonKrylov`).
        fallback: the solver that takes up those systems that ``solver`` did not bring to
            convergence, from the best g so far (`GMRES` from 0). None gives up; so does the solver
            that has just failed.
        reuse: precondition with P, the inverse of I − Jᵀ that the forward solver (Anderson,
            Broyden) has estimated on its way: solve g = g + P (Jᵀg + v − g) from g = Pv first,
            then the equation itself from there, which certifies. Saves a sixth to a third of the
            products where P is good; keeps the forward solver's memory until the backward pass.
            The estimate is that of Ramzi et al., arXiv 2106.00553 (SHINE), who stop at Pv.
        rtol: stop when ‖Jᵀg + v − g‖ ≤ rtol·‖v‖, per system; None takes the forward rtol,
            or 1e-4 where that is 0.
        max_steps: most solver steps; None takes the forward max_steps. The fallback has as many
            again.
        order: None gives every order, whatever the framework. A number k attaches k levels in
            PyTorch's plain autograd, and in TensorFlow where an eager map cannot be traced, each
            at the price of one more evaluation of f: derivatives up to order k are right whatever
            f does, higher ones raise `DerivativeError`.
        on_failure: "warn", "raise" or "ignore" when an eager backward pass does not converge;
            traced JAX warns through a host callback, other traced code cannot.
        callback: called with (results, stats) of each adjoint solve: at once in eager
            frameworks, through a host callback in traced JAX and in a tf.function (not XLA).
        trace: keep the residual of every product of that solve, relative to ‖v‖, in its stats, as
            for ``fixed_point``: ``solution.backward.stats.trace`` in eager frameworks. That of the
            last solve with ``solver``; None where that is `GMRES`, and without the fallback.

    Raises:
        InputError: an attribute is not usable.
    """

    solver: AnySolver | None = None
    rtol: float | None = None
    max_steps: int | None = None
    fallback: AnySolver | None = field(default_factory=Anderson)
    reuse: bool = False
    order: int | None = None
    exact: ClassVar[bool] = True
    on_failure: str = "warn"
    callback: Callable[[Results, Stats], Any] | None = None
    trace: bool = False

    def __post_init__(self) -> None:
        for name in ("solver", "fallback"):
            given = getattr(self, name)
            if given is not None and not isinstance(given, AnySolver):
                raise InputError(
                    f"expected {name} to be an fpicore solver or None, received {given!r}"
                )
        if self.rtol is not None and not 0.0 < as_number("rtol", self.rtol) < 1.0:
            raise InputError(f"expected 0 < rtol < 1, received rtol={self.rtol!r}")
        if self.max_steps is not None:
            check_count("max_steps", self.max_steps, 1)
        if not isinstance(self.reuse, bool):
            raise InputError(f"expected reuse to be True or False, received {self.reuse!r}")
        if not isinstance(self.trace, bool):
            raise InputError(f"expected trace to be True or False, received {self.trace!r}")
        if self.reuse and isinstance(self.solver, AbstractLinearSolver):
            raise InputError(
                "expected a solver such as Anderson() with reuse=True, received "
                f"{self.solver!r}, which takes no preconditioner"
            )
        if self.order is not None:
            check_count("order", self.order, 1)
        check_on_failure(self.on_failure)
        check_callback(self.callback)

    @property
    def uniform(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As its solvers are."""
        return all(s is None or s.uniform for s in (self.solver, self.fallback))

    def forward(self, iteration: Iteration, memory: Any) -> Forward:
        """Keep the solver's memory if it is to be reused."""
        return Forward(iteration, memory if self.reuse else None)

    def pull_back(
        self, ops: Ops, product: Product, v: Leaves, forward: Forward, tangent: bool = False
    ) -> tuple[Leaves, Results, Stats]:
        """Solve g = product(g) + v, scaled to a right-hand side of unit norm.

        The scaling makes the answer proportional to v even where squares of v underflow. The
        residual and tolerance that are returned are relative to ‖v‖.
        """
        tolerance = self._tolerance(forward.iteration.tolerance)
        size = _safe_size(ops, tolerance, v)
        equation = _Equation(
            product=product,
            right=tree.scale(ops, 1.0 / size, v),
            tolerance=tolerance,
            max_steps=self.max_steps or forward.iteration.max_steps,
            trace=self.trace,
        )
        solver = self.solver or self._inherited(forward)
        if self.reuse and forward.memory is not None and isinstance(solver, AbstractSolver):
            carry = equation.preconditioned(ops, solver, partial(_estimate, ops, forward, tangent))
        else:
            carry = equation.solve(ops, solver, equation.right)
        if self.fallback is not None and self.fallback != solver:
            carry = _go_on(ops, equation, self.fallback, carry)
        g, results, stats, _ = outcome(ops, _without_absorbed(ops, tolerance, carry))
        return tree.scale(ops, size, g), results, stats

    def _inherited(self, forward: Forward) -> AnySolver:
        """The forward solver, or its counterpart for linear equations; that takes no estimate."""
        solver = forward.iteration.solver
        return solver if self.reuse else solver.linear()

    def _tolerance(self, forward: Tolerance) -> Tolerance:
        """What was left open is taken from the forward solve; the right-hand side has norm 1."""
        relative = clamp_rtol(self.rtol or forward.rtol or DEFAULT_RTOL, forward.precision)
        return Tolerance(0.0, relative, forward.norm, forward.precision)


class _Equation(NamedTuple):
    """g = product(g) + right, and when it counts as solved."""

    product: Product
    right: Leaves
    tolerance: Tolerance
    max_steps: int
    trace: bool

    def __call__(self, g: Leaves) -> Leaves:
        """One evaluation of the right-hand side. Itself the map, its tensors can be told."""
        return tree.add(self.product(g), self.right)

    def solve(
        self, ops: Ops, solver: AnySolver, start: Leaves, active: Number | None = None
    ) -> Carry | LinearCarry:
        """Solve for the systems that are ``active``; a linear solver begins at 0."""
        if isinstance(solver, AbstractLinearSolver):
            right = self.right
            if active is not None:  # a system without a right-hand side is solved at once
                right = tree.select(ops, active, right, tree.zeros(ops, right))
            return LinearIteration(solver, self.tolerance, self.max_steps).iterate(
                ops, self.product, right
            )
        iteration = watch(Iteration(solver, self.tolerance, self.max_steps), self.trace, None)
        return iteration.iterate(ops, self, start, active)

    def preconditioned(
        self, ops: Ops, solver: AbstractSolver, estimate: Product
    ) -> Carry | LinearCarry:
        """Two solves: of the preconditioned equation, then of this one from the answer.

        The first measures P times the residual, which may be small where the residual is not, so
        it certifies nothing; the second usually needs the one product that does.
        """

        def shifted(g: Leaves) -> Leaves:
            return tree.add(g, estimate(tree.subtract(self(g), g)))

        iteration = Iteration(solver, self.tolerance, self.max_steps)
        first = iteration.iterate(ops, shifted, estimate(self.right))
        solved = first.codes == float(Result.CONVERGED)
        second = self.solve(ops, solver, tree.select(ops, solved, first.value, self.right))
        return second._replace(step=first.step + second.step, steps=first.steps + second.steps)


def _without_absorbed(
    ops: Ops, tolerance: Tolerance, carry: Carry | LinearCarry
) -> Carry | LinearCarry:
    """INACCURATE where g is so large that v, of norm 1, is lost in the rounding of Jᵀg + v.

    There I − Jᵀ is singular, as far as the precision tells, and a residual of zero says nothing.
    """
    rounding = tolerance.precision.eps * tolerance.measure(ops, carry.value)
    absorbed = (carry.codes == float(Result.CONVERGED)) & (rounding >= 1.0)
    if nowhere(ops, absorbed):
        return carry
    return carry._replace(
        error=ops.xp.where(absorbed, rounding, carry.error),
        codes=ops.xp.where(absorbed, float(Result.INACCURATE), carry.codes),
    )


def _safe_size(ops: Ops, tolerance: Tolerance, v: Leaves) -> Number:
    """Per system the norm of v, or a stand-in whose reciprocal is a normal number."""
    size, smallest = tolerance.measure(ops, v), tolerance.precision.smallest
    largest = tolerance.precision.huge
    finite = ops.xp.where(size < float("inf"), size, ops.scalar(1.0))
    size = ops.xp.where(size >= smallest, finite, ops.scalar(smallest))
    return ops.xp.where(size <= largest, size, ops.scalar(largest))


def _estimate(ops: Ops, forward: Forward, tangent: bool, v: Leaves) -> Leaves:
    """Pv; v itself for a system where the solver has no estimate or it is not finite."""
    found = forward.iteration.solver.inverse(ops, forward.memory, v, tangent)
    return tree.select(ops, ops.xp.isfinite(tree.peak(ops, found)), found, v)


def _go_on(
    ops: Ops, equation: _Equation, fallback: AnySolver, first: Carry | LinearCarry
) -> Carry | LinearCarry:
    """The first solve, with its failed systems taken up by a second one where that gets nearer.

    Not so much as its memory is made where nothing failed.
    """
    xp = ops.xp
    # As the codes say, which a compiler can drop from the first loop if nobody else reads them.
    allowed = equation.tolerance.threshold(ops, equation.right)
    failed = xp.logical_not(first.error <= allowed)
    names = ("step", "value", "error", "tolerance", "steps", "codes")

    def as_it_is() -> tuple[Any, ...]:
        return tuple([getattr(first, name) for name in names])

    def taken_up() -> tuple[Any, ...]:
        carry = equation.solve(ops, fallback, first.value, failed)
        nearer = failed & (carry.error < first.error)
        return (
            first.step + carry.step,
            tree.select(ops, nearer, carry.value, first.value),
            xp.where(nearer, carry.error, first.error),
            xp.where(nearer, carry.tolerance, first.tolerance),
            first.steps + xp.where(failed, carry.steps, 0.0),
            xp.where(nearer, carry.codes, first.codes),
        )

    found = ops.cond(xp.any(failed), taken_up, as_it_is, wait=True)
    return first._replace(**dict(zip(names, found, strict=True)))
