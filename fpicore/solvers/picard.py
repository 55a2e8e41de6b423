"""Plain (Picard) iteration with damping."""

from dataclasses import dataclass
from typing import ClassVar

from .._ops import Ops
from .._options import check_interval
from .._solver import AbstractSolver, Point
from .._tree import Leaves


@dataclass(frozen=True)
class Picard(AbstractSolver):
    """z ← (1 − damping)·z + damping·f(z).

    Converges linearly where the damped map contracts: every eigenvalue λ of ∂f/∂z must satisfy
    |1 − damping·(1 − λ)| < 1. Banach (1922); the forward FPI of Jeon, Lee, Choi,
    arXiv 2002.02868, is the undamped case.

    Attributes:
        damping: weight of the new value, 0 < damping ≤ 1; 1 is the plain iteration.

    Raises:
        InputError: damping is outside (0, 1].
    """

    damping: float = 1.0
    name: ClassVar[str] = "picard"
    uniform: ClassVar[bool] = True
    remembers: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_interval("damping", self.damping, 0.0, 1.0)

    def init(self, ops: Ops, z: Leaves) -> tuple[()]:
        """Nothing to remember."""
        return ()

    def step(self, ops: Ops, point: Point, state: tuple[()]) -> tuple[Leaves, tuple[()]]:
        """Move towards f(z)."""
        if self.damping == 1.0:
            return point.f, state
        return tuple(
            [z + self.damping * r for z, r in zip(point.z, point.residual, strict=True)]
        ), state
