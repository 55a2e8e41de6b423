"""The contracts of solvers: a frozen record of options and a few pure functions."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

from . import _tree as tree
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
    tolerance: Any = ()
    """What it must not exceed; a `AbstractSolver.tentative` solver alone is told."""


class AbstractSolver(ABC):
    """A rule that proposes the next iterate.

    A subclass is a frozen dataclass of options; whatever changes during a solve is returned as
    state, a (nested) named tuple of leaves, histories and numbers. ``step`` is pure apart from
    history buffers, which it may hand back written. It does mathematics only: tolerances, masks,
    the best iterate and the status belong to the loop.

    Every point that a solver proposes is evaluated once, and judged by the loop as a candidate.
    """

    name: ClassVar[str]
    tentative: ClassVar[bool] = False
    """Whether the solver tries points that it may take back: probes, or steps that may be too
    long. The loop then tells it `Point.tolerance`, and f need be finite at the start only: where
    it is not, ``step`` is called all the same, and shall go back."""
    uniform: ClassVar[bool] = False
    """Whether no leaf is special to the solver, so that a state may come to it as one leaf of all
    entries of a system: see `_packed`."""
    remembers: ClassVar[bool] = True
    """Whether it has a state at all."""

    @abstractmethod
    def init(self, ops: Ops, z: Leaves) -> Any:
        """The state before the first step from z."""

    @abstractmethod
    def step(self, ops: Ops, point: Point, state: Any) -> tuple[Leaves, Any]:
        """The next iterate and the new state. A system must not influence another."""

    def residual(self, ops: Ops, f: Leaves, z: Leaves, state: Any) -> Leaves:
        """f − z; a solver that stores it may have it written there."""
        del ops, state
        return tree.subtract(f, z)

    def linear(self) -> "AbstractSolver | AbstractLinearSolver":
        """The solver for linear equations of the same kind: itself, unless it says another."""
        return self

    def inverse(self, ops: Ops, state: Any, v: Leaves, tangent: bool) -> Leaves:
        """An estimate of (I − J)⁻ᵀv, or of (I − J)⁻¹v if ``tangent``, from the state of a solve.

        v itself, which is what a solver knows that learns nothing of J.
        """
        del ops, state, tangent
        return v


class AbstractStage(AbstractSolver):
    """A solver that others are composed of: it may begin later, and for some systems only."""

    @abstractmethod
    def renew(self, ops: Ops, mask: Number, point: Point, state: Any, count: Number) -> Any:
        """The state in which the systems of the mask have an empty memory and are at ``point``.

        ``count`` is the number of steps that the whole batch has taken so far, in this stage or
        not. Whatever the state counts for all systems together it derives from that, lest a
        system feel when another one came.
        """


class Expansion(NamedTuple):
    """What a linear solver makes of one product."""

    vector: Leaves
    """What to multiply next."""
    residual: Leaves
    """v − A g of the iterate that the state now stands for, by recurrence."""
    full: Number
    """Per system: the memory is used up; the solver must begin again from that iterate."""
    stuck: Number
    """Per system: going on would gain nothing."""
    state: Any


class AbstractLinearSolver(ABC):
    """A rule that solves A g = v, A = I − Jᵀ, by one product Jᵀq a step.

    Like an `AbstractSolver` it is a frozen dataclass of options whose state is data, and it does
    mathematics only. The loop multiplies, forms the iterate when it is due, certifies it with a
    product of its own, and begins a new cycle from the residual.
    """

    name: ClassVar[str]
    uniform: ClassVar[bool] = False
    """Whether no leaf is special to the solver, as for an `AbstractSolver`."""

    @abstractmethod
    def init(self, ops: Ops, residual: Leaves) -> tuple[Leaves, Any]:
        """The first vector to multiply and the state, from v − A g at the first iterate."""

    @abstractmethod
    def expand(self, ops: Ops, vector: Leaves, image: Leaves, state: Any) -> Expansion:
        """Take in image = A·vector. A system must not influence another."""

    @abstractmethod
    def correction(self, ops: Ops, state: Any) -> Leaves:
        """What to add to the iterate that the cycle began from."""

    @abstractmethod
    def begin(self, ops: Ops, mask: Number, residual: Leaves, state: Any) -> tuple[Leaves, Any]:
        """A new cycle from this residual for the systems of the mask: first vector and state."""
