"""Derivatives for a fixed point that something else has found."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol

from ._adjoint import AbstractPullBack
from ._backend import Backend
from ._entry import finish, make_iteration, make_pull_back, pose
from ._errors import InputError
from ._iterate import Inspection
from ._solution import Solution
from ._solver import AbstractSolver

MAX_STEPS = 100
"""Most steps of the adjoint solve, where the adjoint does not say."""


class ImplicitFunction(Protocol):
    """The signature of ``implicit``; every backend exposes the same."""

    def __call__(
        self,
        f: Callable[..., Any],
        z_star: Any,
        args: tuple[Any, ...] = (),
        *,
        adjoint: AbstractPullBack | None = None,
        rtol: float | None = None,
        atol: float = 0.0,
        norm: str = "l2",
        batch_ndim: int = 0,
        has_aux: bool = False,
        on_failure: str = "warn",
    ) -> Solution:
        """Make a known fixed point z* = f(z*, *args) differentiable, whoever has solved for it.

        The value is z_star itself, and its derivative that of the solution of z = f(z, *args):
        dz*/dθ = (I − ∂f/∂z)⁻¹ ∂f/∂θ. How z_star was found plays no part, so it may come from
        SciPy, C++ or a loop of one's own, and any derivative that it carries is dropped. A root
        of g is a fixed point of z − g(z).

        The derivative is as good as the point: ‖f(z*) − z*‖ is measured, by one evaluation of f,
        and one that exceeds atol + rtol·‖f(z*)‖ is INACCURATE.

        Args:
            f: the map; called as f(z, *args).
            z_star: the fixed point, in tensors of this framework.
            args: further arguments of f. Gradients reach them, and tensors that f closes over.
            adjoint: Implicit(), Neumann(), Phantom() or OneStep(); None is Implicit(), which
                solves by Broyden(8, kind="bad", scaled=True) in at most 100 steps unless it says
                otherwise.
            rtol: of the check and, where the adjoint has none, of the adjoint solve; None is 1e-4.
            atol: see above.
            norm: as in ``fixed_point``.
            batch_ndim: as in ``fixed_point``.
            has_aux: f returns (z, aux); the solution holds aux at z_star.
            on_failure: "warn", "raise" or "ignore" when z_star is not a fixed point.

        Returns:
            A `Solution`; its stats count no step.

        Raises:
            InputError: an argument is not usable.
            MapError: f(z) does not look like z.
            ConvergenceError: z_star is not a fixed point and ``on_failure="raise"``.
        """
        ...


class CustomFixedPoint(Protocol):
    """The signature of ``custom_fixed_point``; every backend exposes the same."""

    def __call__(
        self, f: Callable[..., Any], **options: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Decorate a solver of z = f(z, *args), whatever it does inside, to be differentiable.

        The decorated function takes ``args`` and returns z*::

            @fpi.custom_fixed_point(f)
            def solve(x):
                ...  # any solver; x comes without derivatives
                return z_star

        It is called with the tensors in ``args`` cut off from differentiation, and what it
        returns goes through ``implicit(f, z_star, args, **options)``. Inside jax.jit or a
        tf.function a solver that needs values must go through jax.pure_callback or
        tf.numpy_function.

        Raises:
            InputError: f is not callable, or an option is none of ``implicit``.
        """
        ...


def bind_implicit(
    backend: Backend, default_solver: AbstractSolver
) -> tuple[ImplicitFunction, CustomFixedPoint]:
    """``implicit`` and ``custom_fixed_point`` of a backend."""

    def implicit(
        f: Callable[..., Any],
        z_star: Any,
        args: tuple[Any, ...] = (),
        *,
        adjoint: AbstractPullBack | None = None,
        rtol: float | None = None,
        atol: float = 0.0,
        norm: str = "l2",
        batch_ndim: int = 0,
        has_aux: bool = False,
        on_failure: str = "warn",
    ) -> Solution:
        problem = pose(backend, f, z_star, args, batch_ndim, has_aux, on_failure)
        made = make_iteration(
            default_solver, rtol, atol, norm, MAX_STEPS, problem.precision, backend.frames
        )
        inspection = Inspection(made.solver, made.tolerance, made.max_steps)
        leaves, results, stats, aux, backward = make_pull_back(adjoint).solve(
            backend, problem, inspection
        )
        finish(backend, results, stats, on_failure, "implicit")
        return Solution(problem.rebuild(leaves), results, stats, aux, backward)

    def custom_fixed_point(
        f: Callable[..., Any], **options: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        if not callable(f):
            raise InputError(f"expected f to be callable as f(z, *args), received {f!r}")
        unknown = set(options) - _OPTIONS
        if unknown:
            raise InputError(f"expected options among {sorted(_OPTIONS)}, received {unknown}")

        def decorate(solve: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(solve)
            def solved(*args: Any) -> Any:
                z_star = solve(*[backend.detach(argument) for argument in args])
                return implicit(f, z_star, args, **options).value

            return solved

        return decorate

    implicit.__doc__ = ImplicitFunction.__call__.__doc__
    custom_fixed_point.__doc__ = CustomFixedPoint.__call__.__doc__
    return implicit, custom_fixed_point


_OPTIONS = {"adjoint", "rtol", "atol", "norm", "batch_ndim", "on_failure"}
