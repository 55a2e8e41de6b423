"""Ops on torch tensors.

A history is one tensor of shape (slots, entries) or, with batch axes, (systems, slots, entries):
torch.bmm takes half the time of torch.matmul on small systems.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fpicore import HostNumbers

_WIDER = {torch.float16: torch.float32, torch.bfloat16: torch.float32}
_NUMPY = {
    torch.float32: np.float32,
    torch.float64: np.float64,
    torch.complex64: np.complex64,
    torch.complex128: np.complex128,
}


class History(NamedTuple):
    """Slots of one leaf."""

    whole: Tensor
    """All of them, the batch axes as one; float32 if the leaf is narrower."""
    slots: tuple[Tensor, ...]
    """Each of them, as a view shaped like the leaf."""
    matrix: Tensor
    """Those that have been written to, a view: the others are not read, and count as zero."""
    columns: Tensor
    """Its transpose, a view."""

    def grown(self, filled: int) -> "History":
        """With so many slots in use; those between are zero."""
        known = self.matrix.shape[-2]
        if filled > known + 1:
            self.whole[..., known : filled - 1, :] = 0.0
        matrix = self.whole[..., :filled, :]
        return self._replace(matrix=matrix, columns=matrix.mT)


class TorchOps(HostNumbers):
    """Leaves are tensors, numbers live on the host: for the CPU."""

    def dot(self, a: Tensor, b: Tensor) -> Any:
        """Per system Re Σ conj(a)·b."""
        if a is b:
            if not self.batch_ndim:
                norm = torch.linalg.vector_norm(a, dtype=_WIDER.get(a.dtype)).item()
                return norm * norm
            return self._squares(a)
        x, y = self._rows(a), self._rows(b)
        if not self.batch_ndim:
            return self._number(torch.vdot(x, y))
        return self._number(torch.linalg.vecdot(x, y))

    def peak(self, a: Tensor) -> Any:
        """Per system max |a|."""
        return self._number(self._rows(a).abs().amax(-1))

    def scale(self, s: Any, a: Tensor) -> Tensor:
        """s·a."""
        if s.__class__ is float and a.dtype not in _WIDER:
            return a * s
        wide = self._wide(a)
        return (wide * self._spread(s, wide)).to(a.dtype)

    def select(self, mask: Any, a: Tensor, b: Tensor) -> Tensor:
        """a or b by system, without a copy where one of them serves all."""
        if not self.batch_ndim:
            return a if mask else b
        count = np.count_nonzero(mask)
        if count == mask.size:
            return a
        if count == 0:
            return b
        return torch.where(self._spread(mask, a), a, b)

    def history(self, leaf: Tensor, length: int) -> History:
        """No slot in use: memory is neither touched nor read before it is needed."""
        axis, kind = self.batch_ndim, _WIDER.get(leaf.dtype, leaf.dtype)
        return self._slots(leaf.shape[:axis], length, leaf.shape[axis:], kind, leaf.device)

    def _slots(self, batch: Any, length: int, entries: Any, kind: Any, device: Any) -> History:
        shaped = torch.empty((*batch, length, *entries), dtype=kind, device=device)
        systems = (math.prod(batch),) if batch else ()
        whole = shaped.view((*systems, length, math.prod(entries)))
        none = whole[..., :0, :]
        return History(whole, shaped.unbind(self.batch_ndim), none, none.mT)

    def store(self, history: History, slot: Any, leaf: Tensor) -> History:
        """Overwrite a slot."""
        index = int(slot)
        if leaf is not history.slots[index]:
            history.slots[index].copy_(leaf)
        return history if index < history.matrix.shape[-2] else history.grown(index + 1)

    def difference(self, history: History, slot: Any, a: Tensor, b: Tensor) -> Tensor:
        """In the slot, unless that is wider."""
        place = history.slots[int(slot)]
        return torch.sub(a, b, out=place) if place.dtype is a.dtype else a - b

    def project(self, history: History, leaf: Tensor) -> Any:
        """Products of every slot with leaf."""
        matrix, row = history.matrix, self._rows(leaf)
        if matrix.is_complex():
            row = row.conj()
        if matrix.ndim == 2:
            return self._padded(self._number(torch.mv(matrix, row)), history)
        systems, slots, entries = matrix.shape
        products = torch.bmm(row.reshape(systems, 1, entries), history.columns)
        products = products.view(*leaf.shape[: self.batch_ndim], slots)
        return self._padded(self._number(products), history)

    def combine(self, weights: Any, history: History, like: Tensor) -> Tensor:
        """Weighted sum of the slots."""
        matrix = history.matrix
        if len(history.slots) != matrix.shape[-2]:
            weights = weights[..., : matrix.shape[-2]]
        coefficients = self._coefficients(weights, matrix)
        if matrix.ndim == 2:
            mixed = torch.mv(history.columns, coefficients)
        else:
            systems, slots, _ = matrix.shape
            mixed = torch.bmm(coefficients.reshape(systems, 1, slots), matrix)
        mixed = mixed.view_as(like)  # a third of the time of view(like.shape)
        return mixed if mixed.dtype == like.dtype else mixed.to(like.dtype)

    def take(self, tree: Any, systems: Any) -> Any:
        """Also of tensors and histories."""
        if isinstance(tree, History):
            used = tree.matrix[torch.from_numpy(systems)]
            entries, length = tree.slots[0].shape[self.batch_ndim :], len(tree.slots)
            batch = (used.shape[0], *(1,) * (self.batch_ndim - 1))
            empty = self._slots(batch, length, entries, used.dtype, used.device)
            matrix = empty.whole[..., : used.shape[-2], :]
            matrix[...] = used
            return empty._replace(matrix=matrix, columns=matrix.mT)
        if isinstance(tree, Tensor):
            return self._regrouped(self._systems_of(tree)[torch.from_numpy(systems)])
        return super().take(tree, systems)

    def opened(self, tree: Any) -> Any:
        """Also of histories."""
        if not isinstance(tree, History):
            return super().opened(tree)
        tree.whole.zero_()
        return tree.grown(len(tree.slots))

    def put(self, whole: Any, systems: Any, part: Any) -> Any:
        """Also of tensors."""
        if not isinstance(whole, Tensor):
            return super().put(whole, systems, part)
        copy = whole.clone(memory_format=torch.contiguous_format)
        self._systems_of(copy)[torch.from_numpy(systems)] = self._systems_of(part)
        return copy

    def report(self, number: Any, integer: bool = False) -> Any:
        """Python scalars without a batch, else tensors on the CPU."""
        shown = super().report(number, integer)
        return torch.from_numpy(shown) if isinstance(shown, np.ndarray) else shown

    def _squares(self, a: Tensor) -> Any:
        """Per system Σ |a|²."""
        norm = torch.linalg.vector_norm(self._rows(a), dim=-1, dtype=_WIDER.get(a.dtype))
        return self._number(norm) ** 2

    def _rows(self, a: Tensor) -> Tensor:
        """a as batch + (entries,), half precision widened."""
        rows = a
        if a.ndim != self.batch_ndim + 1:
            rows = a.reshape(*a.shape[: self.batch_ndim], -1) if self.batch_ndim else a.reshape(-1)
        return self._wide(rows)

    def _wide(self, a: Tensor) -> Tensor:
        return a.to(_WIDER[a.dtype]) if a.dtype in _WIDER else a

    def _padded(self, products: Any, history: History) -> Any:
        """With zeros for the slots that are not in use."""
        length = len(history.slots)
        if products.shape[-1] == length:
            return products
        padded = np.zeros((*products.shape[:-1], length))
        padded[..., : products.shape[-1]] = products
        return padded

    def _number(self, x: Tensor) -> Any:
        real = x.real if x.is_complex() else x
        return real.numpy().astype(np.float64) if real.ndim else real.item()

    def _coefficients(self, weights: Any, matrix: Tensor) -> Tensor:
        return torch.from_numpy(weights.astype(_NUMPY[matrix.dtype]))

    def _spread(self, s: Any, a: Tensor) -> Any:
        if not self.batch_ndim or isinstance(s, float):
            return s
        column = torch.from_numpy(s.reshape(s.shape + (1,) * (a.ndim - self.batch_ndim)))
        return column if column.dtype == torch.bool else column.to(a.real.dtype)
