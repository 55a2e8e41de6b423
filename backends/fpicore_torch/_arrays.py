"""Small states on the CPU, iterated as NumPy arrays on the same memory."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fpicore import ArrayOps, ArrayPassage, Leaves, Passage

from ._ops import TorchOps

LARGEST = 2**15
"""Entries from which torch divides an elementwise operation among threads, as NumPy does not."""
_KINDS = {torch.float32, torch.float64, torch.complex64, torch.complex128}


class TorchArrayOps(ArrayOps):
    """Leaves are arrays; what is reported are tensors."""

    def report(self, number: Any, integer: bool = False) -> Any:
        """Python scalars without a batch, else tensors on the CPU."""
        shown = super().report(number, integer)
        return torch.from_numpy(shown) if isinstance(shown, np.ndarray) else shown


def passage(ops: TorchOps, leaves: Leaves) -> Passage:
    """The way of a state to the solver, outside of every transform."""
    if type(ops) is TorchOps and _are_small(leaves):
        arrays = TorchArrayOps(ops.batch_ndim, ops.eps)
        return ArrayPassage(arrays, _array, _tensor, same=True)
    return Passage(ops)


def _are_small(leaves: Leaves) -> bool:
    total = 0
    for leaf in leaves:
        if leaf.__class__ is not Tensor or leaf.dtype not in _KINDS:
            return False
        total += leaf.numel()
    return total < LARGEST


def _array(leaf: Tensor) -> Any:
    try:
        return leaf.numpy()
    except RuntimeError:  # it requires grad, or is conjugate or negative in the eyes of torch alone
        return leaf.detach().resolve_conj().resolve_neg().numpy()


def _tensor(array: Any) -> Tensor:
    # Arithmetic on arrays without axes gives NumPy's scalars.
    return torch.from_numpy(array if array.__class__ is np.ndarray else np.asarray(array))
