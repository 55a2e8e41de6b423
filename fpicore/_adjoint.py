"""Gradient strategies, written once over vector-Jacobian products.

With z* = f(z*, θ) and a cotangent v of z*, the cotangent of θ is (∂f/∂θ)ᵀ g where
g = (I − J)⁻ᵀ v, J = ∂f/∂z at z*. That is again a fixed point: g = Jᵀ g + v.
Jeon, Lee, Choi, arXiv 2002.02868, eq. (backward FPI); Bai, Kolter, Koltun, arXiv 1909.01377.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import _tree as tree
from ._errors import InputError
from ._iterate import Iteration
from ._linear import LinearIteration
from ._ops import Ops
from ._options import as_number, check_count
from ._reporting import check_on_failure, report_failure
from ._solution import Results, Stats
from ._solver import AbstractLinearSolver, AbstractSolver
from ._stopping import DEFAULT_RTOL, Tolerance, clamp_rtol
from ._tree import Leaves

Product = Callable[[Leaves], Leaves]


class AbstractAdjoint(ABC):
    """Turns the cotangent of z* into the cotangent g of f(z*)."""

    order: int
    """Derivatives of this order and below are right; higher ones are refused, unless the
    framework gives them all."""

    on_failure: str
    """"warn", "raise" or "ignore" when the computation of g fails."""
    callback: Callable[[Results, Stats], Any] | None
    """Told the outcome of each computation of g."""

    def conclude(self, results: Results, stats: Stats) -> None:
        """Tell the callback, then warn or raise on failure; needs concrete values."""
        if self.callback is not None:
            self.callback(results, stats)
        report_failure(results, stats, self.on_failure, "the adjoint solve", stacklevel=5)

    @abstractmethod
    def pull_back(
        self, ops: Ops, vjp: Product, v: Leaves, forward: Iteration
    ) -> tuple[Leaves, Results, Stats]:
        """g, and how its computation went. ``vjp`` maps g to Jᵀg (or, transposed, to Jg)."""


@dataclass(frozen=True)
class Implicit(AbstractAdjoint):
    """The exact gradient of the fixed point: solves g = Jᵀg + v to a tolerance relative to v.

    Matrix-free: one vector-Jacobian product a step. It is right wherever the solver converges,
    so with Anderson or Broyden also where the spectral radius of J exceeds 1.

    Attributes:
        solver: any fpicore solver, `GMRES` among them; None takes the solver of the forward pass.
        rtol: stop when ‖Jᵀg + v − g‖ ≤ rtol·‖v‖, per system; None takes the forward rtol,
            or 1e-4 where that is 0.
        max_steps: most solver steps; None takes the forward max_steps.
        order: derivatives up to this order are right in PyTorch and TensorFlow, at the price of
            one more evaluation of f a level; higher ones raise `DerivativeError`. JAX and its
            transforms differentiate to every order whatever is given here.
        on_failure: "warn", "raise" or "ignore" when an eager backward pass does not converge;
            traced JAX warns through a host callback, other traced code cannot.
        callback: called with (results, stats) of each adjoint solve: at once in eager
            frameworks, through a host callback in traced JAX and in a tf.function (not XLA).

    Raises:
        InputError: an attribute is not usable.
    """

    solver: AbstractSolver | AbstractLinearSolver | None = None
    rtol: float | None = None
    max_steps: int | None = None
    order: int = 1
    on_failure: str = "warn"
    callback: Callable[[Results, Stats], Any] | None = None

    def __post_init__(self) -> None:
        if self.solver is not None and not isinstance(
            self.solver, (AbstractSolver, AbstractLinearSolver)
        ):
            raise InputError(
                f"expected solver to be an fpicore solver or None, received {self.solver!r}"
            )
        if self.rtol is not None and not 0.0 < as_number("rtol", self.rtol) < 1.0:
            raise InputError(f"expected 0 < rtol < 1, received rtol={self.rtol!r}")
        if self.max_steps is not None:
            check_count("max_steps", self.max_steps, 1)
        check_count("order", self.order, 1)
        check_on_failure(self.on_failure)
        if self.callback is not None and not callable(self.callback):
            raise InputError(f"expected callback to be callable, received {self.callback!r}")

    def pull_back(
        self, ops: Ops, vjp: Product, v: Leaves, forward: Iteration
    ) -> tuple[Leaves, Results, Stats]:
        """Solve g = vjp(g) + v, scaled to a right-hand side of unit norm.

        It starts at g = v, a linear solver at g = 0. The scaling makes the answer proportional
        to v even where squares of v underflow. The residual and tolerance that are returned are
        relative to ‖v‖.
        """
        precision = forward.tolerance.precision
        rtol = self.rtol or forward.tolerance.rtol or DEFAULT_RTOL
        relative = clamp_rtol(rtol, precision)  # the right-hand side has unit norm
        stopping = Tolerance(0.0, relative, forward.tolerance.norm, precision)
        solver = forward.solver if self.solver is None else self.solver
        max_steps = forward.max_steps if self.max_steps is None else self.max_steps
        size = stopping.measure(ops, v)
        # The reciprocal of a subnormal size would overflow.
        size = ops.xp.where(size >= precision.smallest, size, ops.scalar(precision.smallest))
        size = ops.xp.where(size < float("inf"), size, ops.scalar(1.0))
        unit = tree.scale(ops, 1.0 / size, v)
        if isinstance(solver, AbstractLinearSolver):
            linear = LinearIteration(solver, stopping, max_steps)
            g, results, stats = linear.run(ops, vjp, unit)
        else:
            iteration = Iteration(solver, stopping, max_steps)
            g, results, stats = iteration.run(ops, lambda g: tree.add(vjp(g), unit), unit)
        return tree.scale(ops, size, g), results, stats
