"""fpicore on TensorFlow: eager, in a tf.function, and compiled by XLA."""

try:
    import tensorflow as _tensorflow  # noqa: F401
except ImportError as error:
    from fpicore import MissingBackendError

    raise MissingBackendError(
        "fpicore_tensorflow needs TensorFlow, which is not installed: "
        'pip install "fpicore[tensorflow]"'
    ) from error

from fpicore import *  # noqa: F403
from fpicore import bind

from ._backend import TensorFlowBackend

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
) = bind(TensorFlowBackend())
