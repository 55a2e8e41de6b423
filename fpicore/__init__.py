"""fpicore: differentiable fixed points, defined once and registered in every framework.

Import a backend to use it: ``fpicore_numpy``, ``fpicore_torch``, ``fpicore_jax`` or
``fpicore_tensorflow``; each exposes the names below and ``fixed_point``, ``adjoint_solve``.
"""

from ._adjoint import AbstractAdjoint, Implicit
from ._backend import Backend, Outcome
from ._errors import (
    ConvergenceError,
    ConvergenceWarning,
    DerivativeError,
    FixedPointError,
    InputError,
    MapError,
    MissingBackendError,
    PrecisionWarning,
)
from ._fixed_point import bind
from ._host import HostNamespace, HostNumbers
from ._iterate import Iteration
from ._ops import Ops, Precision, Process, accumulation_eps, precision_of
from ._problem import Problem
from ._reporting import report_failure
from ._solution import Backward, Result, Results, Solution, Stats
from ._solver import AbstractLinearSolver, AbstractSolver, Expansion, Point
from ._tree import Leaves, flatten, flatten_like
from .solvers import GMRES, Anderson, Broyden, Picard

__all__ = [
    "GMRES",
    "AbstractAdjoint",
    "AbstractLinearSolver",
    "AbstractSolver",
    "Anderson",
    "Backend",
    "Backward",
    "Broyden",
    "ConvergenceError",
    "ConvergenceWarning",
    "DerivativeError",
    "Expansion",
    "FixedPointError",
    "HostNamespace",
    "HostNumbers",
    "Implicit",
    "InputError",
    "Iteration",
    "Leaves",
    "MapError",
    "MissingBackendError",
    "Ops",
    "Outcome",
    "Picard",
    "Point",
    "Precision",
    "PrecisionWarning",
    "Problem",
    "Process",
    "Result",
    "Results",
    "Solution",
    "Stats",
    "accumulation_eps",
    "bind",
    "flatten",
    "flatten_like",
    "precision_of",
    "report_failure",
]

__version__ = "0.1.0"
