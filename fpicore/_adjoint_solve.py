"""The adjoint equation by itself, for a product that the caller supplies."""

from collections.abc import Callable
from typing import Any, Protocol

from ._adjoint import AbstractAdjoint
from ._backend import Backend
from ._entry import finish, given, make_iteration, make_pull_back, pose
from ._solution import Solution
from ._solver import AbstractSolver


class AdjointSolve(Protocol):
    """The signature of ``adjoint_solve``; every backend exposes the same."""

    def __call__(
        self,
        vjp: Callable[[Any], Any],
        v: Any,
        *,
        solver: AbstractSolver | None = None,
        adjoint: AbstractAdjoint | None = None,
        rtol: float | None = None,
        norm: str = "l2",
        max_steps: int = 100,
        batch_ndim: int = 0,
        on_failure: str = "warn",
    ) -> Solution:
        """Solve g = vjp(g) + v for a vector-Jacobian product that the caller supplies.

        With z* = f(z*, θ), v = dL/dz* and vjp(g) = (∂f/∂z)ᵀ g at z*, the gradient of the loss
        is dL/dθ = (∂f/∂θ)ᵀ g. Convergence is relative to v: ‖vjp(g) + v − g‖ ≤ rtol·‖v‖, and so
        are the residual and tolerance in the stats. Arguments and errors are those of
        ``fixed_point``; the answer itself is not differentiable.
        """
        ...


def bind_adjoint_solve(backend: Backend, default_solver: AbstractSolver) -> AdjointSolve:
    """``adjoint_solve`` of a backend."""

    def adjoint_solve(
        vjp: Callable[[Any], Any],
        v: Any,
        *,
        solver: AbstractSolver | None = None,
        adjoint: AbstractAdjoint | None = None,
        rtol: float | None = None,
        norm: str = "l2",
        max_steps: int = 100,
        batch_ndim: int = 0,
        on_failure: str = "warn",
    ) -> Solution:
        problem = pose(backend, vjp, v, (), batch_ndim, False, on_failure)
        iteration = make_iteration(
            given(solver, default_solver),
            rtol,
            0.0,
            norm,
            max_steps,
            problem.precision,
            backend.frames,
        )
        leaves, results, stats = backend.solve_adjoint(problem, iteration, make_pull_back(adjoint))
        finish(backend, results, stats, on_failure, "adjoint_solve")
        return Solution(problem.rebuild(leaves), results, stats)

    adjoint_solve.__doc__ = AdjointSolve.__call__.__doc__
    return adjoint_solve
