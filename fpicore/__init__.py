"""fpicore: differentiable fixed points, defined once and registered in every framework.

Import a backend to use it: ``fpicore_numpy``, ``fpicore_torch``, ``fpicore_jax`` or
``fpicore_tensorflow``; each exposes the names below and ``fixed_point``, ``adjoint_solve``,
``implicit``, ``custom_fixed_point``, ``jacobian_penalty``, ``spectral_radius``, and the maps
``gradient_step``, ``proximal_step``, ``projected_step`` and ``damped``.
"""

from ._adjoint import AbstractAdjoint, AbstractPullBack, Forward
from ._arrays import ArrayOps, ArrayPassage, Passage
from ._backend import Backend, Linear, Outcome
from ._bind import Functions, bind
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
from ._host import HostNamespace, HostNumbers
from ._iterate import Iteration, Run, outcome
from ._ops import Branch, Ops, Precision, Process, accumulation_eps, precision_of
from ._packed import Joints, Packing, packing
from ._plot import plot_convergence
from ._problem import Problem
from ._progress import ProgressBar
from ._reporting import report_failure
from ._solution import Backward, Result, Results, Solution, Stats
from ._solver import AbstractLinearSolver, AbstractSolver, AbstractStage, Expansion, Point
from ._tree import Leaves, flatten, flatten_like, map_leaves
from ._watch import Progress
from .adjoints import Implicit, Neumann, OneStep, Phantom, Reversible, Unrolled
from .layers import (
    LayerOptions,
    LayerReport,
    LayerSummary,
    activation_of,
    check_block,
    check_part,
    report_of,
    summarize,
    warm,
)
from .solvers import GMRES, Anderson, Auto, Broyden, NewtonKrylov, Picard

__all__ = [
    "GMRES",
    "AbstractAdjoint",
    "AbstractLinearSolver",
    "AbstractPullBack",
    "AbstractSolver",
    "AbstractStage",
    "Anderson",
    "ArrayOps",
    "ArrayPassage",
    "Auto",
    "Backend",
    "Backward",
    "Branch",
    "Broyden",
    "ConvergenceError",
    "ConvergenceWarning",
    "DerivativeError",
    "Expansion",
    "FixedPointError",
    "Forward",
    "Functions",
    "HostNamespace",
    "HostNumbers",
    "Implicit",
    "InputError",
    "Iteration",
    "Joints",
    "LayerOptions",
    "LayerReport",
    "LayerSummary",
    "Leaves",
    "Linear",
    "MapError",
    "MissingBackendError",
    "Neumann",
    "NewtonKrylov",
    "OneStep",
    "Ops",
    "Outcome",
    "Packing",
    "Passage",
    "Phantom",
    "Picard",
    "Point",
    "Precision",
    "PrecisionWarning",
    "Problem",
    "Process",
    "Progress",
    "ProgressBar",
    "Result",
    "Results",
    "Reversible",
    "Run",
    "Solution",
    "Stats",
    "Unrolled",
    "accumulation_eps",
    "activation_of",
    "bind",
    "check_block",
    "check_part",
    "flatten",
    "flatten_like",
    "map_leaves",
    "outcome",
    "packing",
    "plot_convergence",
    "precision_of",
    "report_failure",
    "report_of",
    "summarize",
    "warm",
]

__version__ = "0.1.0"
