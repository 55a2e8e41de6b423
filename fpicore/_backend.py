"""Backend: what an adapter package supplies besides `Ops`."""

from typing import Any, Protocol

from ._adjoint import AbstractPullBack
from ._iterate import Iteration
from ._ops import Ops
from ._problem import Problem, Structure
from ._solution import Backward, Results, Stats
from ._tree import Leaves

Outcome = tuple[Leaves, Results, Stats, Any, Backward | None]
"""Differentiable leaves of z*, the forward result and stats, aux, the adjoint's record."""


class Backend(Structure, Protocol):
    """A framework as the entry sees it. It translates; it decides nothing."""

    name: str
    """Name of the framework, as in ``fpicore verify --backend``."""

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

    def is_concrete(self, results: Results) -> bool:
        """Whether Python can read the outcome; false in traced code."""
        ...
