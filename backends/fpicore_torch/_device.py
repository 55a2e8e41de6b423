"""Ops for tensors on an accelerator: numbers stay there, so that no step waits for it.

The stop test is read behind the next step, see `_programs.py`. Step counts are the same for every
system and known to the host, so slots and counters are Python numbers.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fpicore import Branch, Process

from ._ops import History, TorchOps
from ._programs import AHEAD, accelerator


class DeviceNumbers:
    """torch under the names that the core uses."""

    isfinite = staticmethod(torch.isfinite)
    abs = staticmethod(torch.abs)
    reciprocal = staticmethod(torch.reciprocal)
    sqrt = staticmethod(torch.sqrt)
    maximum = staticmethod(torch.maximum)
    logical_not = staticmethod(torch.logical_not)
    zeros_like = staticmethod(torch.zeros_like)
    any = staticmethod(torch.any)
    all = staticmethod(torch.all)

    def __init__(self, device: torch.device, kind: torch.dtype) -> None:
        """Constants are made on the device, in the dtype of the numbers."""
        self._device, self._kind = device, kind

    def where(self, mask: Any, a: Any, b: Any) -> Any:
        """Also for a condition on a counter, which the host knows."""
        if isinstance(mask, bool):
            return a if mask else b
        return torch.where(mask, a, b)

    def indicator(self, mask: Tensor) -> Tensor:
        """1 or 0."""
        return mask.to(self._kind)

    def arange(self, length: int) -> Tensor:
        """0 … length − 1."""
        return torch.arange(length, device=self._device)

    def eye(self, length: int) -> Tensor:
        """Identity."""
        return torch.eye(length, dtype=self._kind, device=self._device)

    def sum(self, x: Tensor) -> Tensor:
        """Over the last axis."""
        return x.sum(-1)

    def max(self, x: Tensor) -> Tensor:
        """Over the last axis."""
        return x.amax(-1)

    def transpose(self, x: Tensor) -> Tensor:
        """Of the last two axes."""
        return x.mT

    def matvec(self, matrix: Tensor, x: Tensor) -> Tensor:
        """matrix·x."""
        return (matrix @ x[..., None])[..., 0]

    def roll(self, x: Tensor, places: int) -> Tensor:
        """Along the last axis."""
        return x.roll(places, -1)


class TorchDeviceOps(TorchOps):
    """Leaves and numbers on an accelerator; numbers are float64 where the device knows it."""

    traced = True

    def __init__(self, batch_ndim: int, eps: float, device: torch.device) -> None:
        """Numbers live on ``device``."""
        super().__init__(batch_ndim, eps)
        # Metal knows no float64.
        self._kind = torch.float32 if device.type == "mps" else torch.float64
        self._device = device
        self.xp = DeviceNumbers(device, self._kind)
        # Squares of narrower leaves are summed in float64.
        self.roomy = self._kind is torch.float64 and eps > 2.0**-40
        self._alive: Tensor | None = None

    def dot(self, a: Tensor, b: Tensor) -> Tensor:
        """Per system Re Σ conj(a)·b."""
        if a is b:
            return self._squares(a)
        return self._number(torch.linalg.vecdot(self._rows(a), self._rows(b)))

    def select(self, mask: Any, a: Tensor, b: Tensor) -> Tensor:
        """a or b by system."""
        return a if a is b else torch.where(self._spread(mask, a), a, b)

    def history(self, leaf: Tensor, length: int) -> History:
        """Zeros, all slots in use: the shapes of a step do not change."""
        empty = super().history(leaf, length)
        empty.whole.zero_()
        return empty._replace(matrix=empty.whole, columns=empty.whole.mT)

    def store(self, history: History, slot: Any, leaf: Tensor) -> History:
        """Overwrite a slot, unless this step comes after the last."""
        place = history.slots[int(slot)]
        if self._alive is None:
            place.copy_(leaf)
        else:
            torch.where(self._alive, leaf, place, out=place)
        return history

    def difference(self, history: History, slot: Any, a: Tensor, b: Tensor) -> Tensor:
        """a − b; whether it is to be stored is not known yet."""
        return a - b

    def numbers(self, leaf: Tensor, fill: float, shape: tuple[int, ...] = ()) -> Tensor:
        """A filled tensor on the device."""
        full = (*leaf.shape[: self.batch_ndim], *shape)
        return torch.full(full, fill, dtype=self._kind, device=self._device)

    def solve(self, matrix: Tensor, right: Tensor) -> Tensor:
        """LU without the host's check of its success; the core looks at the numbers instead."""
        right = right.expand(matrix.shape[:-1])
        return torch.linalg.solve_ex(matrix, right[..., None])[0][..., 0]

    def cond(self, predicate: Any, true: Branch, false: Branch, wait: bool = False) -> Any:
        """Both, and a choice on the device, unless Python may wait for the predicate.

        Histories are written to in place, so each does that only where it is the one chosen.
        """
        if wait or not isinstance(predicate, Tensor):
            return true() if predicate else false()
        outer = self._alive
        try:
            self._alive = predicate if outer is None else outer & predicate
            new = true()
            self._alive = ~predicate if outer is None else outer & ~predicate
            old = false()
        finally:
            self._alive = outer
        return chosen(predicate, new, old)

    def loop(self, f: Callable[[Any], Any], process: Process, carry: Any) -> Any:
        """Python's while, whose test is read when the next step is already under way."""
        update, active = process.update, process.active
        seam = accelerator(self._device)
        if seam is None:
            while active(self, carry):
                carry = update(self, carry, f(carry.z))
            return carry
        posted: deque[tuple[Any, Callable[[], bool]]] = deque()
        try:
            while True:
                self._alive = active(self, carry)
                posted.append((carry, seam.post(self._alive)))
                if len(posted) > AHEAD:
                    earlier, read = posted.popleft()
                    if not read():
                        return earlier
                carry = update(self, carry, f(carry.z))
        finally:
            self._alive = None

    def tell(self, receive: Callable[..., Any], numbers: tuple[Any, ...]) -> None:
        """Waits for the device."""
        receive(*[x.detach().cpu().numpy() if isinstance(x, Tensor) else x for x in numbers])

    def report(self, number: Any, integer: bool = False) -> Any:
        """Tensors on the device; counters of the whole batch are Python integers."""
        if not isinstance(number, Tensor):
            return int(number) if integer else number
        return number.to(torch.int32) if integer else number

    def _squares(self, a: Tensor) -> Tensor:
        """Σ |a|² in float64, where the squares of narrower leaves cannot leave the range."""
        wide = self._kind.to_complex() if a.is_complex() else self._kind
        return torch.linalg.vector_norm(self._rows(a), dim=-1, dtype=wide).square()

    def _number(self, x: Tensor) -> Tensor:
        return (x.real if x.is_complex() else x).to(self._kind)

    def _coefficients(self, weights: Tensor, matrix: Tensor) -> Tensor:
        return weights.to(matrix.dtype)

    def _spread(self, s: Any, a: Tensor) -> Any:
        if isinstance(s, float):  # one for the whole batch
            return s
        column = s.view((*s.shape, *(1,) * (a.ndim - self.batch_ndim)))
        return column if column.dtype == torch.bool else column.to(a.real.dtype)


def chosen(flag: Tensor, new: Any, old: Any) -> Any:
    """The new tree or the old one; a history is one for both, and what is no tensor is alike."""
    if new is old:
        return new
    if isinstance(new, Tensor):
        return torch.where(flag, new, old)
    if isinstance(new, tuple):
        parts = [chosen(flag, a, b) for a, b in zip(new, old, strict=True)]
        named: Any = type(new)
        return named(*parts) if hasattr(new, "_fields") else tuple(parts)
    return new
