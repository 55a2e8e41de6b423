"""fpicore on JAX, inside and outside of jit, for every transform and order of derivative."""

try:
    import jax as _jax  # noqa: F401
except ImportError as error:
    from fpicore import MissingBackendError

    raise MissingBackendError(
        'fpicore_jax needs JAX, which is not installed: pip install "fpicore[jax]"'
    ) from error

from fpicore import *  # noqa: F403
from fpicore import bind

from ._backend import JaxBackend

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
) = bind(JaxBackend())
