"""The solver contract: a frozen record of options and two pure functions."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

from ._ops import Number, Ops
from ._tree import Leaves


class Point(NamedTuple):
    """What is known about the current iterate after one evaluation of f."""

    z: Leaves
    """The iterate."""
    f: Leaves
    """f(z)."""
    residual: Leaves
    """f(z) − z."""
    error: Number
    """Per system ‖f(z) − z‖ in the norm of the stopping rule."""


class AbstractSolver(ABC):
    """A rule that proposes the next iterate.

    A subclass is a frozen dataclass of options; whatever changes during a solve is returned as
    state, a (nested) named tuple of leaves, histories and numbers. ``step`` is pure apart from
    history buffers, which it may hand back written. It does mathematics only: tolerances, masks,
    the best iterate and the status belong to the loop.
    """

    name: ClassVar[str]

    @abstractmethod
    def init(self, ops: Ops, z: Leaves) -> Any:
        """The state before the first step from z."""

    @abstractmethod
    def step(self, ops: Ops, point: Point, state: Any) -> tuple[Leaves, Any]:
        """The next iterate and the new state. A system must not influence another."""

    def inverse(self, ops: Ops, state: Any, v: Leaves, tangent: bool) -> Leaves:
        """An estimate of (I − J)⁻ᵀv, or of (I − J)⁻¹v if ``tangent``, from the state of a solve.

        v itself, which is what a solver knows that learns nothing of J.
        """
        del ops, state, tangent
        return v
