"""Ops that autograd can follow: nothing is written in place and nothing leaves the tensors."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fpicore import Process

from ._device import TorchDeviceOps

History = tuple[Tensor, ...]


class TorchRecordedOps(TorchDeviceOps):
    """For `Unrolled`, on any device; ``segment`` steps are recomputed as one, if given."""

    def __init__(
        self, batch_ndim: int, eps: float, device: torch.device, segment: int | None
    ) -> None:
        """Numbers live on ``device``."""
        super().__init__(batch_ndim, eps, device)
        self._segment = segment

    def history(self, leaf: Tensor, length: int) -> Any:
        """Zeros, one tensor a slot."""
        return (torch.zeros_like(self._wide(leaf)),) * length

    def store(self, history: Any, slot: Any, leaf: Tensor) -> Any:
        """Another tuple."""
        index = int(slot)
        return (*history[:index], self._wide(leaf), *history[index + 1 :])

    def project(self, history: Any, leaf: Tensor) -> Tensor:
        """Products of every slot with leaf."""
        row = self._rows(leaf)
        return torch.stack(
            [self._number(torch.linalg.vecdot(self._rows(slot), row)) for slot in history], -1
        )

    def combine(self, weights: Tensor, history: Any, like: Tensor) -> Tensor:
        """Weighted sum of the slots."""
        parts = [self._spread(weights[..., i], h) * h for i, h in enumerate(history)]
        return torch.stack(parts).sum(0).to(like.dtype)

    def loop(self, f: Callable[[Any], Any], process: Process, carry: Any) -> Any:
        """Python's while, in segments if there are any."""

        def stretch(carry: Any, most: int) -> Any:
            while most > 0 and process.active(self, carry):
                carry = process.update(self, carry, f(carry.z))
                most -= 1
            return carry

        if self._segment is None:
            return stretch(carry, process.limit)
        while process.active(self, carry):
            carry = checkpoint(stretch, carry, self._segment, use_reentrant=False)
        return carry

    def report(self, number: Any, integer: bool = False) -> Any:
        """Without the graph."""
        shown = super().report(number, integer)
        return shown.detach() if isinstance(shown, Tensor) else shown
