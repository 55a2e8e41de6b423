"""fpicore on PyTorch, eager and inside compiled models, on CPU and GPU."""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    from fpicore import MissingBackendError

    raise MissingBackendError(
        'fpicore_torch needs PyTorch, which is not installed: pip install "fpicore[torch]"'
    ) from error

from fpicore import *  # noqa: F403
from fpicore import bind

from ._backend import TorchBackend
from ._evaluation import outside_compile as _outside_compile
from ._graph import in_one_graph as _in_one_graph
from ._staged import Staged as Staged

_functions = bind(TorchBackend())

# Here, and not only within, so that the graph of a compiled caller breaks in one place.
fixed_point = _in_one_graph(_functions.fixed_point)
adjoint_solve = _outside_compile(_functions.adjoint_solve)
implicit = _outside_compile(_functions.implicit)
custom_fixed_point = _functions.custom_fixed_point
jacobian_penalty = _outside_compile(_functions.jacobian_penalty)
spectral_radius = _outside_compile(_functions.spectral_radius)
gradient_step = _functions.gradient_step
proximal_step = _functions.proximal_step
projected_step = _functions.projected_step
damped = _functions.damped

from . import nn as nn  # noqa: E402  (the layers are made of the functions above)
