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
from ._evaluation import outside_compile as _outside_compile

_fixed_point, _adjoint_solve, _implicit, custom_fixed_point = bind(TorchBackend(), Anderson())

# Here, and not only within, so that the graph of a compiled caller breaks in one place.
fixed_point = _outside_compile(_fixed_point)
adjoint_solve = _outside_compile(_adjoint_solve)
implicit = _outside_compile(_implicit)
