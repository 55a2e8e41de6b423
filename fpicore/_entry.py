"""What the entries share: options checked and put together, failures reported."""

import operator
import warnings
from typing import Any

from ._adjoint import AbstractAdjoint, AbstractPullBack
from ._backend import Backend
from ._errors import InputError, PrecisionWarning
from ._iterate import Iteration
from ._ops import Precision
from ._options import check_count, check_nonnegative
from ._problem import Problem, make_problem
from ._reporting import check_on_failure, report_failure
from ._solution import Results, Stats
from ._solver import AbstractLinearSolver, AbstractSolver
from ._stopping import DEFAULT_RTOL, Tolerance, check_norm, clamp_rtol
from .adjoints import Implicit


def pose(
    backend: Backend,
    f: Any,
    z0: Any,
    args: Any,
    batch_ndim: int,
    has_aux: bool,
    on_failure: str = "warn",
) -> Problem:
    """Check what every entry takes, and evaluate f for the first time.

    Raises:
        InputError: an argument is not usable.
        MapError: f(z) does not look like z.
    """
    check_on_failure(on_failure)
    count = check_count("batch_ndim", batch_ndim, 0)
    return make_problem(backend, f, z0, args, batch_ndim=count, has_aux=has_aux)


def make_iteration(
    solver: Any,
    rtol: float | None,
    atol: float,
    norm: str,
    max_steps: int,
    precision: Precision,
    frames: int,
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
                stacklevel=3 + frames,
            )
    return Iteration(solver, Tolerance(possible, floor, norm, precision), steps)


def make_budget(backend: Backend, problem: Problem, budget: Any, max_steps: int) -> Any:
    """The budget as an integer, or as the tensor of traced code that it is.

    Raises:
        InputError: it is no integer, or out of range as far as that can be seen.
    """
    try:
        # A tensor of PyTorch's that has one entry is an index, with axes or boolean as well.
        plain = getattr(budget, "shape", ()) == () and "bool" not in str(
            getattr(budget, "dtype", type(budget))
        )
        count = operator.index(budget) if plain else None
    except (TypeError, AttributeError, RuntimeError):  # the last where torch.func.vmap maps it
        count = None
    if count is None and _is_traced_integer(backend, problem, budget):
        return budget
    if count is None or not 1 <= count <= max_steps:
        raise InputError(
            "expected budget to be an integer, 1 <= budget <= max_steps, or in traced code an "
            f"integer tensor without axes; received budget={budget!r}, max_steps={max_steps}"
        )
    return count


def make_adjoint(adjoint: Any) -> AbstractAdjoint:
    """The adjoint, or the default one; `InputError` if it is none."""
    if adjoint is None:
        return _IMPLICIT
    if not isinstance(adjoint, AbstractAdjoint):
        raise InputError(
            f"expected adjoint to be an fpicore adjoint such as Implicit(), received {adjoint!r}"
        )
    return adjoint


def make_pull_back(adjoint: Any) -> AbstractPullBack:
    """The adjoint, which must be one that solves or approximates the adjoint equation."""
    made = make_adjoint(adjoint)
    if not isinstance(made, AbstractPullBack):
        raise InputError(
            f"expected an adjoint such as Implicit() or Neumann(), received {made!r}, which "
            "differentiates an iteration, and there is none here"
        )
    return made


def finish(backend: Backend, results: Results, stats: Stats, on_failure: str, what: str) -> None:
    """Warn or raise on failure, where the outcome is known."""
    if backend.is_concrete(results):
        report_failure(results, stats, on_failure, what, stacklevel=4 + backend.frames)
    elif on_failure == "raise":
        raise InputError(
            'expected on_failure to be "warn" or "ignore" in traced code, where the status is '
            'data, received "raise"; read solution.result, or call outside of the trace'
        )


def given(option: Any, default: Any) -> Any:
    """The option, or the default where it is None."""
    return default if option is None else option


def _is_traced_integer(backend: Backend, problem: Problem, budget: Any) -> bool:
    try:
        (leaf,), _ = backend.flatten(budget)
    except (InputError, ValueError):
        return False
    shape, name = tuple(leaf.shape), backend.dtype_name(leaf)
    if shape != () or not name.startswith(("int", "uint")) or backend.is_concrete(Results(leaf)):
        return False
    return backend.ops(problem.leaves, problem.batch_ndim).traced


def _is_frozen(solver: Any) -> bool:
    """Whether traced code may be cached on it."""
    parameters = getattr(solver, "__dataclass_params__", None)
    return parameters is not None and parameters.frozen


_IMPLICIT = Implicit()
