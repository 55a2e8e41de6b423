"""The carry of a loop and its map as lists of tensors, and back: what a program takes and gives."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fpicore import Leaves, MapError

from ._programs import Roles


class Role(Enum):
    """What a tensor is to a step, see `Roles`; in the order of the inputs."""

    MOVING = 0
    WRITTEN = 1
    GIVEN = 2
    FIXED = 3


class Number(NamedTuple):
    """The place of numbers in a carry: of the loop's whole batch, or one for each system."""

    shape: tuple[int, ...]
    boolean: bool


class Fixed(NamedTuple):
    """Tensors that a program may read where they lie."""

    tensors: Leaves


class Slots(NamedTuple):
    """A history: (systems,) + (slots and a spare one, entries), which is written to in place."""

    whole: Tensor


_ROLES = {Slots: Role.WRITTEN, Fixed: Role.FIXED}
_SCALAR, _FLAG = Number((), False), Number((), True)
_LARGEST = 2**14
"""Entries of what may be a number; a small leaf in float64 is taken for one."""


@dataclass(frozen=True)
class Packing:
    """A carry and a map without their tensors, and the one vector of all numbers in the carry.

    Each tensor that goes into a program or comes out of it costs microseconds.
    """

    shape: Any
    """The tree, hashable, with a `Role` or a `Number` in the place of each tensor and number."""
    numbers: tuple[Number, ...]
    roles: Roles
    kind: torch.dtype
    """Of the vector, which is the last of the moving tensors."""

    @classmethod
    def of(
        cls, carry: Any, f: Any, kind: torch.dtype, host: bool = False
    ) -> tuple["Packing", Leaves]:
        """The packing, and the inputs of a program; numbers are tensors, or all on the host."""
        parts = _Parts(() if host else (kind, torch.bool))
        shape = parts.take(carry, Role.MOVING), parts.take(f, Role.GIVEN)
        moving, *rest = parts.lists
        moving = [x.contiguous() for x in moving]
        roles = Roles(len(moving) + 1, *map(len, rest))
        packing = cls(shape, tuple(parts.places), roles, kind)
        vector = packing.vector(parts.numbers)
        return packing, (*moving, vector, *[x for part in rest for x in part])

    def vector(self, numbers: list[Any]) -> Tensor:
        """Of numbers on the host or of tensors; there always are some."""
        if isinstance(numbers[0], Tensor):
            return torch.cat([x.to(self.kind).reshape(-1) for x in numbers])
        if any([place.shape for place in self.numbers]):  # noqa: C419
            flat = np.concatenate([np.asarray(x, np.float64).reshape(-1) for x in numbers])
            return torch.from_numpy(flat).to(self.kind)
        return torch.tensor(numbers, dtype=self.kind, device="cpu")

    def again(self, carry: Any) -> Leaves:
        """The moving tensors of a later carry.

        Raises:
            MapError: its structure is another one.
        """
        moving: list[Tensor] = []
        numbers: list[Tensor] = []
        _follow(self.shape[0], carry, moving, numbers)
        return (*[x.contiguous() for x in moving], self.vector(numbers))

    def filled(self, tensors: Leaves) -> tuple[Any, Any]:
        """The carry and the map with these tensors."""
        lists, vector = self._lists(tensors)
        numbers = self._split(vector)
        return _filled(self.shape[0], lists, numbers), _filled(self.shape[1], lists, numbers)

    def carry(self, tensors: Leaves, host: bool) -> Any:
        """The carry with the moving and written tensors; its numbers on the host, or tensors."""
        lists, vector = self._lists(tensors)
        numbers = self._on_host(vector) if host else self._split(vector)
        return _filled(self.shape[0], lists, numbers)

    def _lists(self, tensors: Leaves) -> tuple[dict[Role, Iterator[Tensor]], Tensor]:
        roles, first = self.roles, self.roles.moving - 1
        lists = {Role.MOVING: iter(tensors[:first])}
        last = first + 1
        counts = (roles.written, roles.given, roles.fixed)
        for role, count in zip((Role.WRITTEN, Role.GIVEN, Role.FIXED), counts, strict=True):
            lists[role] = iter(tensors[last : last + count])
            last += count
        return lists, tensors[first]

    def _split(self, vector: Tensor) -> Iterator[Tensor]:
        parts = vector.split([math.prod(place.shape) for place in self.numbers])
        for part, (shape, boolean) in zip(parts, self.numbers, strict=True):
            part = part.reshape(shape)
            yield part > 0.5 if boolean else part

    def _on_host(self, vector: Tensor) -> Iterator[Any]:
        flat, first = vector.numpy(), 0
        plain = vector.tolist()
        for shape, boolean in self.numbers:
            last = first + math.prod(shape)
            number = flat[first:last].reshape(shape) if shape else plain[first]
            yield number > 0.5 if boolean else number
            first = last


class _Parts:
    """The tensors of a tree by their roles, and the numbers."""

    def __init__(self, kinds: tuple[torch.dtype, ...]) -> None:
        """A tensor of a carry is a number if it is of one of these dtypes, and small."""
        self.lists: list[list[Tensor]] = [[] for _ in Role]
        self.numbers: list[Any] = []
        self.places: list[Number] = []
        self._kinds = kinds

    def take(self, part: Any, role: Role) -> Any:
        """Fill the lists; what is returned is hashable."""
        if isinstance(part, tuple):
            role = _ROLES.get(type(part), role)
            return type(part), tuple([self.take(x, role) for x in part])
        place = self._place(part) if role is Role.MOVING else None
        if place is not None:
            self.numbers.append(part)
            self.places.append(place)
            return place
        if isinstance(part, Tensor):
            self.lists[role.value].append(part)
            return role
        return part

    def _place(self, part: Any) -> Number | None:
        kind = part.__class__
        if kind is float or kind is bool:
            return _FLAG if kind is bool else _SCALAR
        if isinstance(part, Tensor):
            number = part.dtype in self._kinds and part.numel() < _LARGEST
            return Number(tuple(part.shape), part.dtype == torch.bool) if number else None
        if isinstance(part, (np.ndarray, np.generic)):
            return Number(part.shape, part.dtype == np.bool_)
        return None


def _follow(shape: Any, part: Any, moving: list[Tensor], numbers: list[Tensor]) -> None:
    """Fill the lists from a tree that shall be of this shape."""
    alike = part == shape
    if isinstance(shape, Role):
        alike = isinstance(part, Tensor)
        if shape is Role.MOVING:
            moving.append(part)
    elif isinstance(shape, Number):
        alike = isinstance(part, Tensor) and part.shape == shape.shape
        numbers.append(part)
    elif _is_tree(shape):
        kind, parts = shape
        alike = type(part) is kind and len(part) == len(parts)
        if alike:
            for a, b in zip(parts, part, strict=True):
                _follow(a, b, moving, numbers)
    if not alike:
        raise MapError(_CHANGES)


def _is_tree(shape: Any) -> bool:
    return shape.__class__ is tuple and len(shape) == 2 and isinstance(shape[0], type)


def _filled(shape: Any, lists: dict[Role, Iterator[Tensor]], numbers: Iterator[Any]) -> Any:
    kind = shape.__class__
    if kind is Number:
        return next(numbers)
    if kind is Role:
        return next(lists[shape])
    if not _is_tree(shape):
        return shape
    made: Any = shape[0]
    parts = [_filled(part, lists, numbers) for part in shape[1]]
    return made(*parts) if hasattr(made, "_fields") else made(parts)


_CHANGES = (
    "expected a solver whose state keeps its structure, received one that changes it from step to "
    "step; its numbers must come from ops, as ops.scalar(0.0)"
)
