"""States of eager TensorFlow on the CPU, iterated as NumPy arrays.

Measured on 32×128, microseconds: an operation on tensors 10 to 16, NumPy's 1 to 3, from tensor to
array 1, back 10.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from fpicore import ArrayOps, ArrayPassage, Leaves, Passage

from ._ops import TensorFlowEagerOps
from ._telling import shown

LARGEST = 2**20
"""Entries from which TensorFlow's threads are worth more."""
_KINDS = {tf.float32, tf.float64, tf.complex64, tf.complex128}


class TensorFlowArrayOps(ArrayOps):
    """Leaves are arrays; what is reported are tensors."""

    def report(self, number: Any, integer: bool = False) -> Any:
        """Tensors."""
        return shown(super().report(number, integer), integer)


def passage(ops: Any, leaves: Leaves) -> Passage:
    """The way of a state to the solver."""
    if isinstance(ops, TensorFlowEagerOps) and _are_small(leaves):
        arrays = TensorFlowArrayOps(ops.batch_ndim, ops.eps)
        # Not the same tensor: a tape outside would chain what f returns to what it is given next.
        return ArrayPassage(arrays, np.asarray, tf.constant, same=False)
    return Passage(ops)


def _are_small(leaves: Leaves) -> bool:
    total = 0
    for leaf in leaves:
        if leaf.dtype not in _KINDS or "CPU" not in leaf.device:
            return False
        total += leaf.shape.num_elements()
    return total < LARGEST
