"""fpicore on NumPy: solves, and adjoint solves for a vector-Jacobian product of the caller's.

NumPy differentiates nothing: the value of ``fixed_point`` is an array, and its gradient is formed
from ``adjoint_solve`` and the caller's own derivative of f.
"""

from fpicore import *  # noqa: F403
from fpicore import bind

from ._backend import NumPyBackend

(
    fixed_point,
    adjoint_solve,
    implicit,
    custom_fixed_point,
    jacobian_penalty,
    spectral_radius,
    gradient_step,
    proximal_step,
    projected_step,
    damped,
) = bind(NumPyBackend())
