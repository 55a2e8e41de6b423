"""Ops around the programs of a staged solve on the CPU: what comes before and after the loops.

Numbers there are Python's or NumPy's, as of eager operations: a dozen tensors of one entry each
would cost as much as several steps.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fpicore import Process

from ._ops import TorchOps
from ._packing import Packing
from ._staged_ops import StagedOps


class StagedHostOps(TorchOps):
    """The structure of a carry is that of the traced operations, its numbers lie on the host."""

    traced = True

    def __init__(self, within: StagedOps) -> None:
        """``within`` are the operations of the programs."""
        super().__init__(within.batch_ndim, within.eps)
        self._within, self.roomy = within, within.roomy

    def dot(self, a: Tensor, b: Tensor) -> Any:
        """Per system Re Σ conj(a)·b; squares are summed in float64, out of the range of none."""
        if a is not b:
            return super().dot(a, b)
        wide = torch.complex128 if a.is_complex() else torch.float64
        norm = self._number(torch.linalg.vector_norm(self._rows(a), dim=-1, dtype=wide))
        return norm * norm

    def history(self, leaf: Tensor, length: int) -> Any:
        """That of the programs."""
        return self._within.history(leaf, length)

    def project(self, history: Any, leaf: Tensor) -> Any:
        """Products of every slot with leaf."""
        return self._within.project(history, leaf).numpy()

    def combine(self, weights: Any, history: Any, like: Tensor) -> Tensor:
        """Weighted sum of the slots."""
        return self._within.combine(torch.from_numpy(weights), history, like)

    def tell(self, receive: Callable[..., Any], numbers: tuple[Any, ...]) -> None:
        """Also of numbers within a loop."""
        self._within.tell(receive, numbers)

    def loop(self, f: Callable[[Any], Any], process: Process, carry: Any) -> Any:
        """A program of the step, until nothing iterates."""
        if not process.active(self, carry):
            return carry
        if isinstance(f, tuple):
            return self._within.run(f, process, carry, host=True)
        packing, tensors = Packing.of(carry, (), torch.float64, host=True)
        ended = self._within.loop(f, process, packing.filled(tensors)[0])
        written = tensors[packing.roles.moving :]  # in place
        return packing.carry((*packing.again(ended), *written), host=True)
