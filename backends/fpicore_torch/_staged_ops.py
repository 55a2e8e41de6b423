"""Ops for a step that is traced: counters are tensors, so that one program serves every step."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fpicore import Leaves, Process

from ._device import TorchDeviceOps
from ._packing import Packing, Slots
from ._programs import accelerator


class StagedOps(TorchDeviceOps):
    """Every loop whose map is data, a tuple of tensors that can be called, runs a program."""

    def __init__(
        self, owner: Any, batch_ndim: int, eps: float, device: torch.device, together: int
    ) -> None:
        """``owner`` keeps the programs, of so many steps each."""
        super().__init__(batch_ndim, eps, device)
        self._owner, self._together = owner, together
        # A step may come after the last one, and must change nothing then.
        self._guarded = together > 1 or accelerator(device) is not None

    def scalar(self, value: float) -> Any:
        """A tensor: a Python number would be a constant of the program."""
        return torch.full((), value, dtype=self._kind, device=self._device)

    def history(self, leaf: Tensor, length: int) -> Any:
        """Zeros, and one slot more for what shall not be kept."""
        rows = self._rows(leaf)
        rows = rows.reshape(-1, rows.shape[-1]) if self.batch_ndim else rows
        return Slots(rows.new_zeros((*rows.shape[:-1], length + 1, rows.shape[-1])))

    def store(self, history: Any, slot: Tensor, leaf: Tensor) -> Any:
        """Overwrite a slot; the spare one where nothing iterates any more."""
        whole = history.whole
        rows = self._rows(leaf).reshape(*whole.shape[:-2], 1, whole.shape[-1])
        index = slot.to(torch.int64).reshape(1)
        if self._alive is not None:
            index = torch.where(self._alive, index, whole.shape[-2] - 1)
        whole.index_copy_(-2, index, rows)
        return history

    def difference(self, history: Any, slot: Any, a: Tensor, b: Tensor) -> Tensor:
        """a − b."""
        return a - b

    def project(self, history: Any, leaf: Tensor) -> Tensor:
        """Products of every slot with leaf."""
        matrix, row = history.whole[..., :-1, :], self._rows(leaf)
        row = row.conj() if row.is_complex() else row
        products = (matrix @ row.reshape(*matrix.shape[:-2], -1, 1))[..., 0]
        return self._number(products.reshape(*leaf.shape[: self.batch_ndim], -1))

    def combine(self, weights: Tensor, history: Any, like: Tensor) -> Tensor:
        """Weighted sum of the slots."""
        matrix = history.whole[..., :-1, :]
        row = weights.to(matrix.dtype).reshape(*matrix.shape[:-2], 1, -1)
        return (row @ matrix).reshape(like.shape).to(like.dtype)

    def solve(self, matrix: Tensor, right: Tensor) -> Tensor:
        """Elimination without pivots: small kernels, which every program may contain."""
        rows = torch.cat([matrix, right.expand(matrix.shape[:-1])[..., None]], -1)
        below = torch.arange(rows.shape[-2], device=rows.device)[:, None]
        for j in range(rows.shape[-2]):
            pivot = rows[..., j : j + 1, :] / rows[..., j : j + 1, j : j + 1]
            rows = torch.where(below == j, pivot, rows - rows[..., :, j : j + 1] * pivot)
        return rows[..., -1]

    def _squares(self, a: Tensor) -> Tensor:
        """Σ |a|² in float64."""
        wide = self._rows(a)
        if wide.is_complex():
            wide = torch.view_as_real(wide).flatten(-2)
        return wide.to(self._kind).square().sum(-1)

    def loop(self, f: Callable[[Any], Any], process: Process, carry: Any) -> Any:
        """A program of the step, until nothing iterates."""
        if not isinstance(f, tuple):  # a closure: its tensors would be constants
            return super().loop(f, process, carry)
        if not process.active(self, carry):
            return carry
        return self.run(f, process, carry, host=False)

    def run(self, f: Any, process: Process, carry: Any, host: bool) -> Any:
        """The program's loop; the numbers of the carry are tensors, or all on the host."""
        packing, inputs = Packing.of(carry, f, self._kind, host)

        def steps(*tensors: Tensor) -> Leaves:
            carry, f = packing.filled(tensors)
            for _ in range(self._together):
                carry = self._step(process, carry, f)
            moved = map(_apart, packing.again(carry), tensors)
            return (*moved, process.active(self, carry))

        key = (process, packing, self.batch_ndim)
        ended = self._owner.program(key, steps, inputs, packing.roles).iterate(inputs)
        return packing.carry(ended, host)

    def _step(self, process: Process, carry: Any, f: Any) -> Any:
        """The carry after a step, or as it was where nothing iterates."""
        if not self._guarded:
            return process.update(self, carry, f(carry.z))
        self._alive = alive = process.active(self, carry)
        new = process.update(self, carry, f(carry.z))
        # Nobody looks at z once all systems have stopped, and the answer does not change then.
        free = {"z": new.z, "value": new.value} if hasattr(new, "value") else {}
        kept = _chosen(alive, new._replace(**dict.fromkeys(free, ())), carry)
        self._alive = None
        return kept._replace(**free)


def _chosen(flag: Tensor, new: Any, old: Any) -> Any:
    """The new tree or the old one; a history guards itself, and what is no tensor is constant."""
    if isinstance(new, Tensor):
        return new if new is old else torch.where(flag, new, old)
    if isinstance(new, tuple) and type(new) is not Slots:
        parts = [_chosen(flag, a, b) for a, b in zip(new, old, strict=False)]
        named: Any = type(new)
        return named(*parts) if hasattr(new, "_fields") else tuple(parts)
    return new


def _apart(new: Tensor, old: Tensor) -> Tensor:
    """Contiguous, and no input as well: the next run is handed both."""
    return new.to(old.dtype).clone(memory_format=torch.contiguous_format)
