"""The public functions of a backend package."""

from typing import NamedTuple

from ._adjoint_solve import AdjointSolve, bind_adjoint_solve
from ._backend import Backend
from ._diagnostics import JacobianPenalty, SpectralRadius, bind_diagnostics
from ._fixed_point import FixedPoint, bind_fixed_point
from ._implicit import CustomFixedPoint, ImplicitFunction, bind_implicit
from ._solver import AbstractSolver
from .maps import Damped, GradientStep, ProjectedStep, ProximalStep, bind_maps


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


def bind(backend: Backend, default_solver: AbstractSolver) -> Functions:
    """The functions of a backend, with the solver that they take where none is given."""
    return Functions(
        bind_fixed_point(backend, default_solver),
        bind_adjoint_solve(backend, default_solver),
        *bind_implicit(backend, default_solver),
        *bind_diagnostics(backend),
        *bind_maps(backend),
    )
