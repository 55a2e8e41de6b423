"""NumPy as fpicore's entry sees it."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

import fpicore
from fpicore import (
    AbstractPullBack,
    DerivativeError,
    Forward,
    Iteration,
    Leaves,
    Linear,
    Outcome,
    Problem,
    Results,
    Stats,
)

from ._ops import NumPyOps

T = TypeVar("T")


def _is_array(x: Any) -> bool:
    return isinstance(x, (np.ndarray, np.generic))


def _read_only(f: Callable[[Leaves], Leaves]) -> Callable[[Leaves], Leaves]:
    """f, which NumPy will not let write to its argument."""

    def evaluate(z: Leaves) -> Leaves:
        views = tuple([np.asarray(leaf)[...] for leaf in z])
        for view in views:
            view.flags.writeable = False
        return f(views)

    return evaluate


class NumPyBackend:
    """Plain arrays, no derivatives."""

    name = "numpy"
    frames = 0

    def flatten(self, tree: Any) -> tuple[Leaves, Callable[[Leaves], Any]]:
        """Leaves and rebuild."""
        leaves, rebuild = fpicore.flatten(tree, _is_array)
        return tuple(np.asarray(leaf) for leaf in leaves), rebuild

    def flatten_like(self, tree: Any, like: Any) -> Leaves:
        """Leaves in the order of ``like``."""
        return fpicore.flatten_like(tree, like, _is_array)

    def dtype_name(self, leaf: Any) -> str:
        """NumPy's name."""
        return leaf.dtype.name

    def admit(self, new: Any, old: Any) -> Any:
        """A copy if alike: f may return a buffer of its own and write to it again."""
        return np.array(new) if new.shape == old.shape and new.dtype == old.dtype else None

    def ops(self, leaves: Leaves, batch_ndim: int) -> NumPyOps:
        """Ops on the host."""
        names = tuple(self.dtype_name(leaf) for leaf in leaves)
        return NumPyOps(batch_ndim, fpicore.accumulation_eps(names))

    def solve(self, problem: Problem, iteration: Iteration, adjoint: AbstractPullBack) -> Outcome:
        """Solve; there is nothing to attach."""
        return self.unroll(problem, iteration, None)

    def unroll(self, problem: Problem, iteration: Iteration, segment: int | None) -> Outcome:
        """Solve; one more evaluation if aux is wanted."""
        ops = self.ops(problem.leaves, problem.batch_ndim)
        start = tuple(leaf.copy() for leaf in problem.leaves)
        z, results, stats, _ = iteration.run(ops, _read_only(problem.map), start, problem.budget)
        aux = problem.evaluate(z)[1] if problem.has_aux else None
        return z, results, stats, aux, None

    def reverse(self, problem: Problem, iteration: Iteration, sweep: Any) -> Outcome:
        """Solve; there is nothing to register."""
        return self.unroll(problem, iteration, None)

    def solve_adjoint(
        self, problem: Problem, iteration: Iteration, adjoint: AbstractPullBack
    ) -> tuple[Leaves, Results, Stats]:
        """The adjoint solve itself."""
        ops = self.ops(problem.leaves, problem.batch_ndim)
        return adjoint.pull_back(ops, problem.map, problem.leaves, Forward(iteration))

    def linearize(self, problem: Problem, use: Callable[[Linear], T], recorded: bool) -> T:
        """Refused: NumPy differentiates nothing."""
        raise DerivativeError(
            "expected a framework that differentiates f, received NumPy arrays; use fpicore_torch, "
            "fpicore_jax or fpicore_tensorflow for figures of the Jacobian"
        )

    def gradient(self, energy: Callable[..., Any], z: Leaves, args: tuple[Any, ...]) -> Leaves:
        """Refused: NumPy differentiates nothing."""
        raise DerivativeError(
            "expected the gradient of the energy, which NumPy cannot find, received an energy "
            "alone; pass gradient_step(None, step_size, gradient=...), or use fpicore_torch, "
            "fpicore_jax or fpicore_tensorflow"
        )

    def detach(self, tree: Any) -> Any:
        """As it is."""
        return tree

    def is_concrete(self, results: Results) -> bool:
        """Always."""
        return True
