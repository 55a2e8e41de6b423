"""fpicore on PyTorch, eager and inside compiled models (a graph break), on CPU and GPU."""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    from fpicore import MissingBackendError

    raise MissingBackendError(
        'fpicore_torch needs PyTorch, which is not installed: pip install "fpicore[torch]"'
    ) from error

from fpicore import *  # noqa: F403
from fpicore import Anderson, bind

from ._backend import TorchBackend

fixed_point, adjoint_solve, implicit, custom_fixed_point = bind(TorchBackend(), Anderson())
