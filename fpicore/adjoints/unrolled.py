"""The gradient of the iteration itself."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .._adjoint import AbstractAdjoint
from .._errors import InputError
from .._iterate import Iteration
from .._problem import Problem
from .._watch import Watched

if TYPE_CHECKING:
    from .._backend import Backend, Outcome


@dataclass(frozen=True)
class Unrolled(AbstractAdjoint):
    """Differentiates the iterate that the solver reached, step by step, in whatever mode and order.

    The derivative is exactly that of the program that ran, z0 included: it tends to that of the
    fixed point as the iterate does, and is the one to take for a solve cut short on purpose. The
    memory grows with the number of steps; with ``checkpoint`` with its square root, at the price
    of evaluating f twice.

    Attributes:
        checkpoint: True keeps the state every √max_steps steps and recomputes the steps between;
            an integer is that distance, in steps.

    Raises:
        InputError: checkpoint is neither a bool nor a positive integer; at the solve, the solver
            tries points that it may take back (`NewtonKrylov`): derivatives of difference
            quotients would be rounding, and of the branches not taken NaN.
    """

    checkpoint: bool | int = False

    def __post_init__(self) -> None:
        if not isinstance(self.checkpoint, int) or self.checkpoint < 0:
            raise InputError(
                "expected checkpoint to be True, False or a positive number of steps, received "
                f"{self.checkpoint!r}"
            )

    def segment(self, iteration: Iteration) -> int | None:
        """Steps between two kept states; None keeps them all."""
        if self.checkpoint is True:
            return max(1, math.isqrt(iteration.limit))
        return int(self.checkpoint) or None

    def solve(self, backend: "Backend", problem: Problem, iteration: Iteration) -> "Outcome":
        """Iterate under the framework's own differentiation."""
        if iteration.solver.tentative:
            raise InputError(
                "expected a solver whose every step can be differentiated, such as Anderson() or "
                f"Picard(), with Unrolled(), received {iteration.solver!r}; take Implicit()"
            )
        if self.checkpoint and isinstance(iteration, Watched) and iteration.tells:
            raise InputError(
                "expected no callback with Unrolled(checkpoint=...), whose backward pass would "
                "tell of every step again, received one; use Unrolled(), or trace=True"
            )
        return backend.unroll(problem, iteration, self.segment(iteration))
