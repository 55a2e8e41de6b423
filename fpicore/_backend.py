"""Backend: what an adapter package supplies besides `Ops`."""

from collections.abc import Callable
from typing import Any, Protocol

from ._adjoint import AbstractAdjoint, Product
from ._iterate import Iteration
from ._ops import Leaf, Ops
from ._problem import Problem
from ._solution import Backward, Results, Stats
from ._tree import Leaves

Outcome = tuple[Leaves, Results, Stats, Any, Backward | None]
"""Differentiable leaves of z*, the forward result and stats, aux, the adjoint's record."""


class Backend(Protocol):
    """A framework as the entry sees it. It translates; it decides nothing."""

    name: str
    """Name of the framework, as in ``fpicore verify --backend``."""

    def flatten(self, tree: Any) -> tuple[Leaves, Callable[[Leaves], Any]]:
        """Leaves of a nested structure, and the function that rebuilds it from leaves.

        Raises:
            InputError: something in it is not a tensor of this framework.
        """
        ...

    def flatten_like(self, tree: Any, like: Any) -> Leaves:
        """Leaves of a tree that must have the structure of ``like``.

        Raises:
            InputError: it has not.
        """
        ...

    def dtype_name(self, leaf: Leaf) -> str:
        """The dtype by NumPy's name: "float32"."""
        ...

    def admit(self, new: Leaf, old: Leaf) -> Leaf | None:
        """``new`` if it has the shape and dtype of ``old``, or can be taken for it; else None."""
        ...

    def ops(self, leaves: Leaves, batch_ndim: int) -> Ops:
        """The Ops for a state with these leaves."""
        ...

    def solve(self, problem: Problem, iteration: Iteration, adjoint: AbstractAdjoint) -> Outcome:
        """Solve and attach the gradient."""
        ...

    def solve_adjoint(
        self, vjp: Product, v: Leaves, forward: Iteration, adjoint: AbstractAdjoint, ops: Any
    ) -> tuple[Leaves, Results, Stats]:
        """``adjoint.pull_back`` outside of any recording of gradients; ``ops`` are its own."""
        ...

    def is_concrete(self, results: Results) -> bool:
        """Whether Python can read the outcome; false in traced code."""
        ...
