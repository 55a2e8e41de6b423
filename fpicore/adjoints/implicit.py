"""The exact gradient of the fixed point."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from .. import _tree as tree
from .._adjoint import AbstractPullBack, Forward, Product
from .._errors import InputError
from .._iterate import Carry, Iteration
from .._ops import Number, Ops
from .._options import as_number, check_count
from .._reporting import check_on_failure
from .._solution import Result, Results, Stats
from .._solver import AbstractSolver
from .._stopping import DEFAULT_RTOL, Tolerance, clamp_rtol
from .._tree import Leaves


@dataclass(frozen=True)
class Implicit(AbstractPullBack):
    """The exact gradient of the fixed point: solves g = Jᵀg + v to a tolerance relative to v.

    Matrix-free: one vector-Jacobian product a step. It is right wherever the solver converges,
    so with Anderson or Broyden also where the spectral radius of J exceeds 1.

    Attributes:
        solver: any fpicore solver; None takes the solver of the forward pass.
        fallback: the solver that goes on, from the best g so far, for those systems that
            ``solver`` did not bring to convergence; None gives up.
        reuse: start from v times the inverse Jacobian that the forward solver has estimated
            (Anderson, Broyden), instead of from v. Keeps the forward solver's memory until the
            backward pass. Ramzi et al., arXiv 2106.00553 (SHINE), who stop at that estimate.
        rtol: stop when ‖Jᵀg + v − g‖ ≤ rtol·‖v‖, per system; None takes the forward rtol,
            or 1e-4 where that is 0.
        max_steps: most solver steps; None takes the forward max_steps. The fallback has as many
            again.
        order: derivatives up to this order are right in PyTorch, at the price of one more
            evaluation of f a level; higher ones raise `DerivativeError`. JAX and TensorFlow
            differentiate to every order whatever is given here; only an eager TensorFlow map that
            tf.function cannot trace needs it.
        on_failure: "warn", "raise" or "ignore" when an eager backward pass does not converge;
            traced JAX warns through a host callback, other traced code cannot.
        callback: called with (results, stats) of each adjoint solve: at once in eager
            frameworks, through a host callback in traced JAX and in a tf.function (not XLA).

    Raises:
        InputError: an attribute is not usable.
    """

    exact: ClassVar[bool] = True

    solver: AbstractSolver | None = None
    rtol: float | None = None
    max_steps: int | None = None
    fallback: AbstractSolver | None = None
    reuse: bool = False
    order: int = 1
    on_failure: str = "warn"
    callback: Callable[[Results, Stats], Any] | None = None

    def __post_init__(self) -> None:
        for name in ("solver", "fallback"):
            given = getattr(self, name)
            if given is not None and not isinstance(given, AbstractSolver):
                raise InputError(
                    f"expected {name} to be an fpicore solver or None, received {given!r}"
                )
        if self.rtol is not None and not 0.0 < as_number("rtol", self.rtol) < 1.0:
            raise InputError(f"expected 0 < rtol < 1, received rtol={self.rtol!r}")
        if self.max_steps is not None:
            check_count("max_steps", self.max_steps, 1)
        if not isinstance(self.reuse, bool):
            raise InputError(f"expected reuse to be True or False, received {self.reuse!r}")
        check_count("order", self.order, 1)
        check_on_failure(self.on_failure)
        if self.callback is not None and not callable(self.callback):
            raise InputError(f"expected callback to be callable, received {self.callback!r}")

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
        first = self._iteration(forward.iteration)
        size = _safe_size(ops, first.tolerance, v)
        unit = tree.scale(ops, 1.0 / size, v)
        start = unit
        if self.reuse:
            start = _estimate(ops, forward, unit, tangent)

        def equation(g: Leaves) -> Leaves:
            return tree.add(product(g), unit)

        carry = first.iterate(ops, equation, start)
        if self.fallback is not None:
            second = Iteration(self.fallback, first.tolerance, first.max_steps)
            carry = _go_on(ops, second, equation, carry)
        g, results, stats, _ = first.report(ops, carry)
        return tree.scale(ops, size, g), results, stats

    def _iteration(self, forward: Iteration) -> Iteration:
        """The solve of the adjoint equation, with what was left open taken from the forward one."""
        precision = forward.tolerance.precision
        rtol = self.rtol or forward.tolerance.rtol or DEFAULT_RTOL
        relative = clamp_rtol(rtol, precision)  # the right-hand side has unit norm
        return Iteration(
            solver=forward.solver if self.solver is None else self.solver,
            tolerance=Tolerance(0.0, relative, forward.tolerance.norm, precision),
            max_steps=forward.max_steps if self.max_steps is None else self.max_steps,
        )


def _safe_size(ops: Ops, tolerance: Tolerance, v: Leaves) -> Number:
    """Per system the norm of v, or a stand-in whose reciprocal is finite."""
    size, smallest = tolerance.measure(ops, v), tolerance.precision.smallest
    size = ops.xp.where(size >= smallest, size, ops.scalar(smallest))
    return ops.xp.where(size < float("inf"), size, ops.scalar(1.0))


def _estimate(ops: Ops, forward: Forward, v: Leaves, tangent: bool) -> Leaves:
    """v times the estimated inverse; v itself where the solver has none or it is not finite."""
    found = forward.iteration.solver.inverse(ops, forward.memory, v, tangent)
    return tree.select(ops, ops.xp.isfinite(tree.peak(ops, found)), found, v)


def _go_on(
    ops: Ops, second: Iteration, equation: Callable[[Leaves], Leaves], first: Carry
) -> Carry:
    """The first solve, with its failed systems taken up by a second one where that gets nearer.

    The others do not iterate, so where nothing failed the second loop costs traced code nothing.
    """
    xp = ops.xp
    failed = first.codes != float(Result.CONVERGED)
    if not ops.traced and not xp.any(failed):
        return first
    carry = second.iterate(ops, equation, first.value, failed)
    nearer = failed & (carry.error < first.error)
    return first._replace(
        step=first.step + carry.step,
        value=tree.select(ops, nearer, carry.value, first.value),
        error=xp.where(nearer, carry.error, first.error),
        tolerance=xp.where(nearer, carry.tolerance, first.tolerance),
        steps=first.steps + xp.where(failed, carry.steps, 0.0),
        codes=xp.where(nearer, carry.codes, first.codes),
    )
