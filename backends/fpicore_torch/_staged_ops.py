"""Ops for a step that is traced: counters are tensors, so that one program serves every step."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fpicore import Leaves, MapError, Process

from ._device import TorchDeviceOps
from ._programs import Roles, accelerator


class Role(Enum):
    """What a tensor is to a step, see `Roles`; in the order of the inputs."""

    MOVING = 0
    WRITTEN = 1
    GIVEN = 2
    FIXED = 3


class Fixed(NamedTuple):
    """Tensors that a program may read where they lie."""

    tensors: Leaves


class Slots(NamedTuple):
    """A history: (systems,) + (slots and a spare one, entries), which is written to in place."""

    whole: Tensor


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

    def report(self, number: Any, integer: bool = False) -> Any:
        """As the eager operations of the device have it."""
        shown = super().report(number, integer)
        host = self._device.type == "cpu" and isinstance(shown, Tensor) and not shown.ndim
        return shown.item() if host else shown

    def loop(self, f: Callable[[Any], Any], process: Process, carry: Any) -> Any:
        """A program of the step, until nothing iterates."""
        if not isinstance(f, tuple):  # a closure: its tensors would be constants
            return super().loop(f, process, carry)
        if not process.active(self, carry):
            return carry
        parts = _Parts()
        shape = parts.take(carry, f)
        moving, *rest = parts.lists
        packing = Packing.of(moving, self._kind)
        inputs = (*packing.pack(moving), *[x for part in rest for x in part])
        roles = Roles(packing.count, *map(len, rest))

        def steps(*tensors: Tensor) -> Leaves:
            carry, f = _rebuilt(shape, packing, roles, tensors)
            for _ in range(self._together):
                carry = self._step(process, carry, f)
            after = _Parts()
            if after.take(carry, f) != shape:
                raise MapError(_CHANGES)
            moved = packing.pack(after.lists[0])
            return (*map(_apart, moved, tensors), process.active(self, carry))

        key = (process, shape, packing, self.batch_ndim, self._kind)
        ended = self._owner.program(key, steps, inputs, roles).iterate(inputs)
        return _rebuilt(shape, packing, roles, (*ended, *inputs[len(ended) :]))[0]

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


_CHANGES = (
    "expected a solver whose state keeps its structure, received one that changes it from step to "
    "step; its numbers must come from ops, as ops.scalar(0.0)"
)


@dataclass(frozen=True)
class Packing:
    """Numbers go into a program and come out of it as one tensor: each costs microseconds."""

    places: tuple[int, ...]
    """Which of the moving tensors are numbers."""
    shapes: tuple[tuple[int, ...], ...]
    kinds: tuple[torch.dtype, ...]
    kind: torch.dtype
    total: int

    @classmethod
    def of(cls, moving: list[Tensor], kind: torch.dtype) -> "Packing":
        """Of these tensors."""
        small = [(i, x) for i, x in enumerate(moving) if x.dtype in (kind, torch.bool)]
        small = [(i, x) for i, x in small if x.numel() < _LARGEST]
        places = tuple([i for i, _ in small])
        shapes = tuple([tuple(x.shape) for _, x in small])
        return cls(places, shapes, tuple([x.dtype for _, x in small]), kind, len(moving))

    @property
    def count(self) -> int:
        """Tensors after packing; there always are numbers."""
        return self.total - len(self.places) + 1

    def pack(self, tensors: list[Tensor]) -> list[Tensor]:
        """The others, contiguous, and one for all numbers."""
        others = [x.contiguous() for i, x in enumerate(tensors) if i not in self.places]
        return [*others, torch.cat([tensors[i].to(self.kind).reshape(-1) for i in self.places])]

    def unpack(self, tensors: list[Tensor]) -> list[Tensor]:
        """As they were."""
        *others, packed = tensors
        parts = iter(packed.split([math.prod(shape) for shape in self.shapes]))
        known = dict(zip(self.places, zip(self.shapes, self.kinds, strict=True), strict=True))
        source, found = iter(others), []
        for i in range(self.total):
            if i not in known:
                found.append(next(source))
                continue
            part = next(parts).reshape(known[i][0])
            found.append(part > 0.5 if known[i][1] is torch.bool else part)
        return found


_LARGEST = 2**14
"""Entries of what may be a number; a small leaf in float64 is taken for one."""


class _Parts:
    """The tensors of a carry and a map, by their roles, and the shape that is left without them."""

    def __init__(self) -> None:
        self.lists: list[list[Tensor]] = [[] for _ in Role]

    def take(self, carry: Any, f: Any) -> Any:
        """Fill the lists; the shape is hashable, with its role in the place of each tensor."""
        return self._take(carry, Role.MOVING), self._take(f, Role.GIVEN)

    def _take(self, part: Any, role: Role) -> Any:
        if isinstance(part, Tensor):
            self.lists[role.value].append(part)
            return role
        if isinstance(part, tuple):
            role = _ROLES.get(type(part), role)
            return type(part), tuple([self._take(x, role) for x in part])
        return part


_ROLES = {Slots: Role.WRITTEN, Fixed: Role.FIXED}


def _rebuilt(shape: Any, packing: Packing, roles: Roles, tensors: Leaves) -> Any:
    """The carry and the map with these tensors."""
    source = iter(tensors)
    counts = (roles.moving, roles.written, roles.given, roles.fixed)
    moving, *rest = [[next(source) for _ in range(count)] for count in counts]
    lists = dict(zip(Role, map(iter, (packing.unpack(moving), *rest)), strict=True))
    return tuple([_filled(part, lists) for part in shape])


def _filled(shape: Any, lists: dict[Role, Iterator[Tensor]]) -> Any:
    if isinstance(shape, Role):
        return next(lists[shape])
    if isinstance(shape, tuple) and shape and isinstance(shape[0], type):
        kind: Any = shape[0]
        parts = [_filled(part, lists) for part in shape[1]]
        return kind(*parts) if hasattr(kind, "_fields") else tuple(parts)
    return shape
