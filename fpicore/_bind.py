"""The public functions of a backend package."""

from typing import NamedTuple

from ._adjoint_solve import AdjointSolve, bind_adjoint_solve
from ._backend import Backend
from ._diagnostics import JacobianPenalty, SpectralRadius, bind_diagnostics
from ._fixed_point import FixedPoint, bind_fixed_point
from ._implicit import CustomFixedPoint, ImplicitFunction, bind_implicit
from .maps import Damped, GradientStep, ProjectedStep, ProximalStep, bind_maps
from .solvers import Broyden

SOLVER = Broyden(8, kind="bad", scaled=True)
"""The default. On the problems of benchmarks/solvers its profile is above that of every peer at
every factor. It stores 18 states; Anderson(5), with 12, fails on twice as many and more."""


class Functions(NamedTuple):
    """What every backend exposes besides the names of the core, in the order of `bind`."""

    fixed_point: FixedPoint
    adjoint_solve: AdjointSolve
    implicit: ImplicitFunction
    custom_fixed_point: CustomFixedPoint
    jacobian_penalty: JacobianPenalty
    spectral_radius: SpectralRadius
    gradient_step: GradientStep
    proximal_step: ProximalStep
    projected_step: ProjectedStep
    damped: Damped


def bind(backend: Backend) -> Functions:
    """The functions of a backend, which solve by `SOLVER` where nothing else is asked for."""
    return Functions(
        bind_fixed_point(backend, SOLVER),
        bind_adjoint_solve(backend, SOLVER),
        *bind_implicit(backend, SOLVER),
        *bind_diagnostics(backend),
        *bind_maps(backend),
    )
