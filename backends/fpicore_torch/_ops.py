"""Ops on torch tensors. A history is one tensor of shape batch + (slots, entries)."""

from functools import reduce
from operator import mul
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fpicore import HostNumbers

_WIDER = {torch.float16: torch.float32, torch.bfloat16: torch.float32}


class TorchOps(HostNumbers):
    """Leaves are tensors, numbers live on the host: for the CPU."""

    def dot(self, a: Tensor, b: Tensor) -> Any:
        """Per system Re Σ conj(a)·b."""
        x, y = self._rows(a), self._rows(b)
        if not self.batch_ndim:
            return float(torch.vdot(x, y).real.item()) if x.is_complex() else torch.dot(x, y).item()
        return self._number((torch.conj(x)[..., None, :] @ y[..., :, None])[..., 0, 0])

    def peak(self, a: Tensor) -> Any:
        """Per system max |a|."""
        return self._number(self._rows(a).abs().amax(-1))

    def scale(self, s: Any, a: Tensor) -> Tensor:
        """s·a."""
        return (a * self._spread(s, a)).to(a.dtype)

    def select(self, mask: Any, a: Tensor, b: Tensor) -> Tensor:
        """a or b by system, without a copy where one of them serves all."""
        if not self.batch_ndim:
            return a if mask else b
        if mask.all():
            return a
        if not mask.any():
            return b
        return torch.where(self._spread(mask, a), a, b)

    def history(self, leaf: Tensor, length: int) -> Tensor:
        """Zeros, in float32 if the leaf is narrower."""
        rows = self._rows(leaf)
        return rows.new_zeros((*rows.shape[:-1], length, rows.shape[-1]))

    def store(self, history: Tensor, slot: Any, leaf: Tensor) -> Tensor:
        """Overwrite a slot."""
        history.select(-2, int(slot)).copy_(self._rows(leaf))
        return history

    def project(self, history: Tensor, leaf: Tensor) -> Any:
        """Products of every slot with leaf."""
        row = torch.conj(self._rows(leaf))
        return self._number(history @ row if history.ndim == 2 else (history @ row[..., None])[..., 0])

    def combine(self, weights: Any, history: Tensor, like: Tensor) -> Tensor:
        """Weighted sum of the slots."""
        coefficients = self._tensor(weights, history)
        mixed = coefficients @ history if history.ndim == 2 else coefficients[..., None, :] @ history
        return mixed.view(like.shape).to(like.dtype)

    def report(self, number: Any, integer: bool = False) -> Any:
        """Python scalars without a batch, else tensors on the CPU."""
        shown = super().report(number, integer)
        return torch.from_numpy(shown) if isinstance(shown, np.ndarray) else shown

    def _rows(self, a: Tensor) -> Tensor:
        """a as batch + (entries,), half precision widened."""
        rows = a.reshape(-1) if not self.batch_ndim else a.reshape(*a.shape[: self.batch_ndim], -1)
        return rows.to(_WIDER[rows.dtype]) if rows.dtype in _WIDER else rows

    def _number(self, x: Tensor) -> Any:
        real = x.real if x.is_complex() else x
        return real.numpy().astype(np.float64) if real.ndim else real.item()

    def _tensor(self, s: Any, like: Tensor) -> Tensor:
        return torch.from_numpy(s).to(like.dtype)

    def _spread(self, s: Any, a: Tensor) -> Any:
        if not self.batch_ndim:
            return s
        column = torch.from_numpy(s).view(*s.shape, *(1,) * (a.ndim - self.batch_ndim))
        return column if column.dtype == torch.bool else column.to(a.real.dtype)
