"""The contract of a gradient strategy.

With z* = f(z*, θ) and a cotangent v of z*, the cotangent of θ is (∂f/∂θ)ᵀ g where
g = (I − J)⁻ᵀ v, J = ∂f/∂z at z*. That is again a fixed point: g = Jᵀ g + v.
Jeon, Lee, Choi, arXiv 2002.02868, eq. (backward FPI); Bai, Kolter, Koltun, arXiv 1909.01377.
Strategies that approximate or solve this equation are pull-backs; others differentiate the
iteration itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from ._iterate import Iteration
from ._ops import Ops
from ._problem import Problem
from ._reporting import report_failure
from ._solution import Results, Stats
from ._tree import Leaves

if TYPE_CHECKING:
    from ._backend import Backend, Outcome

Product = Callable[[Leaves], Leaves]


class AbstractAdjoint(ABC):
    """A gradient strategy: how the answer of a solve becomes differentiable."""

    @abstractmethod
    def solve(self, backend: "Backend", problem: Problem, iteration: Iteration) -> "Outcome":
        """Solve, and make the answer differentiable by what the backend registers."""


class AbstractBackward(AbstractAdjoint):
    """A strategy whose backward pass is a computation of its own, which may fail and is told of."""

    what: ClassVar[str] = "the adjoint solve"
    """The name of that computation in messages."""
    on_failure: str = "warn"
    """"warn", "raise" or "ignore" when it fails."""
    callback: Callable[[Results, Stats], Any] | None = None
    """Told the outcome of each backward pass."""

    def silent(self) -> Self:
        """The same computation with nobody to tell, and so equal to that for other listeners."""
        if not is_dataclass(self):
            return self
        told = {"callback": None, "on_failure": "ignore"}
        return replace(self, **{f.name: told[f.name] for f in fields(self) if f.name in told})

    def conclude(self, results: Results, stats: Stats) -> None:
        """Tell the callback, then warn or raise on failure; needs concrete values."""
        if self.callback is not None:
            self.callback(results, stats)
        report_failure(results, stats, self.on_failure, self.what, stacklevel=5)


class Forward(NamedTuple):
    """What a pull-back knows of the forward solve."""

    iteration: Iteration
    """Its solver, stopping rule and budget."""
    memory: Any = None
    """The solver's final state, where the strategy asked to keep it; else None."""


class AbstractPullBack(AbstractBackward):
    """Turns the cotangent of z* into the cotangent g of f(z*)."""

    order: int | None = 1
    """Derivatives of this order and below are right; higher ones are refused, unless the
    framework gives them all. None: as many as the framework can give."""
    exact: ClassVar[bool] = False
    """Whether g is the solution and not an approximation of it. Only an exact g has derivatives
    that mean something where the framework could differentiate without end."""
    uniform: ClassVar[bool] = False
    """Whether no leaf is special to the strategy, as for an `AbstractSolver`."""

    @abstractmethod
    def pull_back(
        self, ops: Ops, product: Product, v: Leaves, forward: Forward, tangent: bool = False
    ) -> tuple[Leaves, Results, Stats]:
        """g, and how its computation went.

        ``product`` maps g to Jᵀg or, where ``tangent`` is true, to Jg: the same equation with J
        serves forward mode and derivatives of a pull-back.
        """

    def solve(self, backend: "Backend", problem: Problem, iteration: Iteration) -> "Outcome":
        """Solve apart from any derivative, then attach the pull-back."""
        return backend.solve(problem, iteration, self)

    def forward(self, iteration: Iteration, memory: Any) -> Forward:
        """What to keep of the forward solve until the backward pass."""
        del memory
        return Forward(iteration)
