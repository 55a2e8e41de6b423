"""The entry: validate, iterate, attach the gradient."""

import warnings
from collections.abc import Callable
from typing import Any, Protocol

from ._adjoint import AbstractAdjoint, Implicit
from ._backend import Backend
from ._errors import InputError, PrecisionWarning
from ._iterate import Iteration
from ._ops import Precision
from ._options import check_count, check_nonnegative
from ._problem import make_problem
from ._reporting import check_on_failure, report_failure
from ._solution import Results, Solution, Stats
from ._solver import AbstractLinearSolver, AbstractSolver
from ._stopping import DEFAULT_RTOL, Tolerance, check_norm, clamp_rtol


class FixedPoint(Protocol):
    """The signature of ``fixed_point``; every backend exposes the same."""

    def __call__(
        self,
        f: Callable[..., Any],
        z0: Any,
        args: tuple[Any, ...] = (),
        *,
        solver: AbstractSolver | None = None,
        adjoint: AbstractAdjoint | None = None,
        rtol: float | None = None,
        atol: float = 0.0,
        norm: str = "l2",
        max_steps: int = 100,
        batch_ndim: int = 0,
        has_aux: bool = False,
        on_failure: str = "warn",
    ) -> Solution:
        """Solve z = f(z, *args) and make the answer differentiable.

        Args:
            f: the map; called as f(z, *args), returns the structure, shapes and dtypes of z.
            z0: the start: a floating or complex tensor, or a nested structure of them.
            args: further arguments of f. Gradients reach them, and tensors that f closes over.
            solver: the strategy; None is Anderson().
            adjoint: the gradient strategy; None is Implicit().
            rtol: a system has converged when ‖f(z) − z‖ ≤ atol + rtol·‖f(z)‖ at the returned z.
                None is 1e-4, or what the dtype resolves if that is coarser.
            atol: see rtol; needed only where f(z) tends to 0.
            norm: "l2", "rms" (l2 over the root of the number of entries) or "max", per system.
            max_steps: most solver steps, ≥ 1; f is evaluated at most once more than that in the
                solve, and once more where a gradient is attached or aux is wanted.
            batch_ndim: leading axes of every leaf that index independent systems; a system's
                result does not depend on the others. 0 is one system.
            has_aux: f returns (z, aux); the solution holds aux at the returned value.
            on_failure: "warn", "raise" or "ignore" when a system does not converge. In traced
                code the status is data: read ``solution.result``.

        Returns:
            A `Solution`.

        Raises:
            InputError: an argument is not usable.
            MapError: f(z) does not look like z.
            ConvergenceError: a system failed and ``on_failure="raise"``.

        Warns:
            ConvergenceWarning: a system failed and ``on_failure="warn"``.
            PrecisionWarning: rtol was below what the dtype resolves and was raised.
        """
        ...


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


def bind(backend: Backend, default_solver: AbstractSolver) -> tuple[FixedPoint, AdjointSolve]:
    """The public functions of a backend package."""

    def fixed_point(
        f: Callable[..., Any],
        z0: Any,
        args: tuple[Any, ...] = (),
        *,
        solver: AbstractSolver | None = None,
        adjoint: AbstractAdjoint | None = None,
        rtol: float | None = None,
        atol: float = 0.0,
        norm: str = "l2",
        max_steps: int = 100,
        batch_ndim: int = 0,
        has_aux: bool = False,
        on_failure: str = "warn",
    ) -> Solution:
        check_on_failure(on_failure)
        count = check_count("batch_ndim", batch_ndim, 0)
        problem = make_problem(backend, f, z0, args, batch_ndim=count, has_aux=has_aux)
        iteration = make_iteration(
            _given(solver, default_solver), rtol, atol, norm, max_steps, problem.precision
        )
        leaves, results, stats, aux, backward = backend.solve(
            problem, iteration, make_adjoint(adjoint)
        )
        finish(backend, results, stats, on_failure, "fixed_point")
        return Solution(problem.rebuild(leaves), results, stats, aux, backward)

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
        check_on_failure(on_failure)
        count = check_count("batch_ndim", batch_ndim, 0)
        problem = make_problem(backend, vjp, v, (), batch_ndim=count, has_aux=False)
        iteration = make_iteration(
            _given(solver, default_solver), rtol, 0.0, norm, max_steps, problem.precision
        )
        leaves, results, stats = backend.solve_adjoint(problem, iteration, make_adjoint(adjoint))
        finish(backend, results, stats, on_failure, "adjoint_solve")
        return Solution(problem.rebuild(leaves), results, stats)

    fixed_point.__doc__ = FixedPoint.__call__.__doc__
    adjoint_solve.__doc__ = AdjointSolve.__call__.__doc__
    return fixed_point, adjoint_solve


def make_iteration(
    solver: Any, rtol: float | None, atol: float, norm: str, max_steps: int, precision: Precision
) -> Iteration:
    """Check the options of a solve and put them together.

    Raises:
        InputError: an option is unknown or out of range.
    """
    if isinstance(solver, AbstractLinearSolver):
        raise InputError(
            f"expected a solver of nonlinear equations, such as Anderson() or Broyden(), received "
            f"{solver!r}, which solves linear ones; pass it as "
            f"adjoint=Implicit(solver={type(solver).__name__}())"
        )
    if not isinstance(solver, AbstractSolver):
        raise InputError(
            f"expected solver to be an fpicore solver such as Anderson(), received {solver!r}"
        )
    if not _is_frozen(solver):
        raise InputError(
            f"expected the solver to be a frozen dataclass, received {type(solver).__qualname__}; "
            "decorate it with @dataclass(frozen=True) and keep what changes in its state"
        )
    check_norm(norm)
    steps = check_count("max_steps", max_steps, 1)
    floor = check_nonnegative("atol", atol)
    wanted = DEFAULT_RTOL if rtol is None else check_nonnegative("rtol", rtol)
    possible = clamp_rtol(wanted, precision)
    if possible > wanted:
        if wanted == 0.0 and floor > 0.0:
            possible = 0.0  # a purely absolute test was asked for
        elif rtol is not None:
            warnings.warn(
                f"expected rtol >= {possible:.2g}, the finest that a state of precision "
                f"{precision.eps:.2g} resolves, received rtol={rtol!r}; {possible:.2g} is used. "
                "Use a wider dtype or a larger rtol",
                PrecisionWarning,
                stacklevel=3,
            )
    return Iteration(solver, Tolerance(possible, floor, norm, precision), steps)


def make_adjoint(adjoint: Any) -> AbstractAdjoint:
    """The adjoint, or the default one; `InputError` if it is none."""
    if adjoint is None:
        return _IMPLICIT
    if not isinstance(adjoint, AbstractAdjoint):
        raise InputError(
            f"expected adjoint to be an fpicore adjoint such as Implicit(), received {adjoint!r}"
        )
    return adjoint


def finish(backend: Backend, results: Results, stats: Stats, on_failure: str, what: str) -> None:
    """Warn or raise on failure, where the outcome is known."""
    if backend.is_concrete(results):
        report_failure(results, stats, on_failure, what, stacklevel=4)
    elif on_failure == "raise":
        raise InputError(
            'expected on_failure to be "warn" or "ignore" in traced code, where the status is '
            'data, received "raise"; read solution.result, or call outside of the trace'
        )


def _given(option: Any, default: Any) -> Any:
    return default if option is None else option


def _is_frozen(solver: Any) -> bool:
    """Whether traced code may be cached on it."""
    parameters = getattr(solver, "__dataclass_params__", None)
    return parameters is not None and parameters.frozen


_IMPLICIT = Implicit()
