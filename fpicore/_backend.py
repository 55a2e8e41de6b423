"""Backend: what an adapter package supplies besides `Ops`."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from ._adjoint import AbstractPullBack
from ._iterate import Iteration
from ._ops import Ops
from ._problem import Problem, Structure
from ._solution import Backward, Results, Stats
from ._tree import Leaves

Outcome = tuple[Leaves, Results, Stats, Any, Backward | None]
"""Differentiable leaves of z*, the forward result and stats, aux, the adjoint's record."""

T = TypeVar("T")


class Linear(Protocol):
    """f at one z, linearised."""

    @property
    def ops(self) -> Ops:
        """For the states that ``pull`` maps to one another."""
        ...

    def pull(self, g: Leaves) -> Leaves:
        """Jᵀg, or J*g in frameworks that conjugate."""
        ...

    def signs(self, count: int, rng: Any) -> list[Leaves]:
        """``count`` states of independent random entries ±1; (±1 ± i)/√2 where z is complex.

        Raises:
            InputError: rng is no source of random numbers in this framework.
        """
        ...

    def fill(self, formula: Callable[[Any], Any]) -> Leaves:
        """A state with the entries formula(i)/2³¹, the same in every system.

        i counts the entries of a system from 1, leaf after leaf, in integers of 64 bits or, in
        arithmetic modulo 2³², of 32; a complex leaf has its real parts first.
        """
        ...


class Backend(Structure, Protocol):
    """A framework as the entry sees it. It translates; it decides nothing."""

    name: str
    """Name of the framework, as in ``fpicore verify --backend``."""
    frames: int
    """Python frames that the framework puts between the caller and an entry, for warnings."""

    def ops(self, leaves: Leaves, batch_ndim: int) -> Ops:
        """The Ops for a state with these leaves."""
        ...

    def solve(self, problem: Problem, iteration: Iteration, adjoint: AbstractPullBack) -> Outcome:
        """Solve apart from any derivative, then attach the pull-back."""
        ...

    def unroll(self, problem: Problem, iteration: Iteration, segment: int | None) -> Outcome:
        """Solve under the framework's own differentiation, which reaches z0, args and closures.

        With a ``segment`` only the state every so many steps is kept, the rest recomputed.
        """
        ...

    def reverse(self, problem: Problem, iteration: Iteration, sweep: Any) -> Outcome:
        """Iterate, and register ``sweep`` as the pull-back to z0, args and closures.

        ``iteration`` is the `ReversibleIteration`, ``sweep`` the `Reversible` that asked for it.
        """
        ...

    def solve_adjoint(
        self, problem: Problem, iteration: Iteration, adjoint: AbstractPullBack
    ) -> tuple[Leaves, Results, Stats]:
        """``adjoint.pull_back`` of z0, with the map as the product, outside of any recording."""
        ...

    def detach(self, tree: Any) -> Any:
        """A structure with its tensors cut off from differentiation; the rest as it is."""
        ...

    def gradient(self, energy: Callable[..., Any], z: Leaves, args: tuple[Any, ...]) -> Leaves:
        """∂/∂z of the sum of energy(z, *args), itself as differentiable as the energy is.

        The partial derivative: args and closures that depend on z are held. For complex leaves
        ∂/∂Re z + i ∂/∂Im z.

        Raises:
            DerivativeError: the framework has no derivatives.
        """
        ...

    def is_concrete(self, results: Results) -> bool:
        """Whether Python can read the outcome; false in traced code."""
        ...

    def linearize(self, problem: Problem, use: Callable[[Linear], T], recorded: bool) -> T:
        """``use`` of f linearised at z0.

        With ``recorded``, products and numbers can be differentiated with respect to z0, args and
        closures; otherwise neither they nor what ``use`` makes of them carries a derivative.

        Raises:
            DerivativeError: the framework has no derivatives.
        """
        ...
