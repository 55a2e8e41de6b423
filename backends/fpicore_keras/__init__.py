"""fpicore as Keras 3 layers, on each of Keras's backends PyTorch, JAX and TensorFlow.

The names are those of Jeon, Lee, Choi, arXiv 2002.02868: FPI_NN, whose map is a network, and
FPI_GD, whose map is a gradient step on an energy.
"""

try:
    import keras as _keras  # noqa: F401
except ImportError as error:
    from fpicore import MissingBackendError

    raise MissingBackendError(
        'fpicore_keras needs Keras 3, which is not installed: pip install "fpicore[keras]", and '
        "the framework that it shall run on"
    ) from error

from fpicore import *  # noqa: F403

from ._block import Equilibrium
from ._kinds import FPIGD, FPINN, FixedPoint
from ._layer import AbstractLayer

__all__ = ["FPIGD", "FPINN", "AbstractLayer", "Equilibrium", "FixedPoint"]
