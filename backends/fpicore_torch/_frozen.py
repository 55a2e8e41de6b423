"""f with its randomness, its statistics and its precision held still.

A fresh dropout mask at every evaluation has no fixed point, and batch normalisation would update
its running statistics at every step. So each evaluation of a solve, and each re-evaluation in a
backward pass, starts from the same state of PyTorch's generators and of the module buffers that f
writes to, and leaves both as they were; one evaluation, at the answer, has its effects.

Covered are the generators of the CPU and of the state's CUDA device, and the buffers of modules
in training mode that can be found from f: f itself or what it is bound to, wraps, closes over,
names globally or is given in args. Where f writes to a tensor that is reached in another way, a
solve under autograd warns. Python's and NumPy's generators are not PyTorch's to hold.
"""

import functools
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fpicore import Leaves, Problem

from ._levels import is_wrapped

States = list[Tensor]
_WITHOUT = {Tensor, nn.Parameter, type(None), bool, int, float, str}
"""Types of what holds no module: most of what a search comes upon."""
Result = TypeVar("Result")


class Frozen:
    """The problem's map, evaluated without effects; `lasting` evaluates it with them."""

    def __init__(self, problem: Problem) -> None:
        """Look for buffers; the generators are looked at by the first evaluation."""
        self._map, self._device = problem.map, problem.leaves[0].device
        self._kind = self._device.type
        self.autocast = torch.is_autocast_enabled(self._kind)
        self._narrow = torch.get_autocast_dtype(self._kind) if self.autocast else None
        self._buffers = list(written(problem.f, problem.args))
        self._contents: States = []
        self._before: States | None = None
        self._random = False
        self._lasts = False
        self.plain = False
        """Known to have no effects that would have to be held."""

    def __call__(self, z: Leaves) -> Leaves:
        """f(z)."""
        if self.plain and torch.is_autocast_enabled(self._kind) == self.autocast:
            return self._map(z)
        return self._cast(z) if self._lasts else self.run(self._cast, z)

    def within(self, z: Leaves) -> Leaves:
        """f(z) in the solve itself, where autocast is as it was found."""
        return self._map(z) if self.plain else self.run(self._cast, z)

    def _cast(self, z: Leaves) -> Leaves:
        """f(z), in the autocast state of the solve, which a backward pass need not share."""
        if torch.is_autocast_enabled(self._kind) == self.autocast:
            return self._map(z)
        with torch.autocast(self._kind, dtype=self._narrow, enabled=self.autocast):
            return self._map(z)

    def lasting(self, f: Callable[[Leaves], Result], z: Leaves) -> Result:
        """f(z) with the effects of one evaluation, where f is made of this one."""
        if self._random and self._before is not None:
            self._set(self._before)
        self._lasts = True
        try:
            return f(z)
        finally:
            self._lasts = False

    def take_effect(self, z: Leaves, f: Callable[[Leaves], Leaves] | None = None) -> None:
        """Evaluate f once more for its effects, if it writes to buffers at all."""
        if self._buffers:
            with torch.no_grad():
                self.lasting(self if f is None else f, z)

    def warn_of(self, tensors: list[Tensor]) -> None:
        """Warn if there is a tensor that f writes to and that is not held."""
        held = [buffers[name] for buffers, name in self._buffers]
        strange = [x for x in tensors if not any(x is buffer for buffer in held)]
        if strange:
            warnings.warn(
                f"expected f to write to no tensor but buffers of modules that can be found from "
                f"it, received one that writes to a tensor of shape {tuple(strange[0].shape)} at "
                "every evaluation; name its module in a closure or in args, or call eval() on it",
                stacklevel=6,
            )

    def run(self, function: Callable[[Leaves], Any], z: Leaves) -> Any:
        """A function that evaluates f once, without effects."""
        if self._before is None:
            return self._first(function, z)
        if not self._random:
            return self._without_writing(function, z)
        now = self._states()
        self._set(self._before)
        try:
            return self._without_writing(function, z)
        finally:
            self._set(now)

    def _first(self, function: Callable[[Leaves], Any], z: Leaves) -> Any:
        """The evaluation that advances the generators for good, and tells what f does."""
        self._before = self._states()
        out = self._without_writing(function, z, learn=True)
        pairs = zip(self._states(), self._before, strict=True)
        self._random = not all(torch.equal(now, before) for now, before in pairs)
        self.plain = not self._random and not self._buffers
        return out

    def _without_writing(
        self, function: Callable[[Leaves], Any], z: Leaves, learn: bool = False
    ) -> Any:
        """With copies in place of the buffers."""
        if not self._buffers:
            return function(z)
        kept = [(buffers, name, buffers[name]) for buffers, name in self._buffers]
        if learn:
            self._contents = [buffer.clone() for _, _, buffer in kept]
        copies = [content.clone() for content in self._contents]
        for (buffers, name), copy in zip(self._buffers, copies, strict=True):
            buffers[name] = copy
        try:
            return function(z)
        finally:
            if learn:
                now = [buffers[name] for buffers, name in self._buffers]
                # By value: batch_norm does not count its writing as a new version. A module is
                # kept whole, as a mean that is zero by chance is written to all the same.
                changed = {
                    id(place[0])
                    for place, (*_, old), new in zip(self._buffers, kept, now, strict=True)
                    if is_wrapped(new) or is_wrapped(old) or not torch.equal(old, new)
                }
                still = [id(place[0]) in changed for place in self._buffers]
                self._buffers = [p for p, keep in zip(self._buffers, still, strict=True) if keep]
                self._contents = [c for c, keep in zip(self._contents, still, strict=True) if keep]
            for buffers, name, buffer in kept:
                buffers[name] = buffer

    def _states(self) -> States:
        states = [torch.default_generator.get_state()]
        if self._device.type == "cuda":
            states.append(torch.cuda.get_rng_state(self._device))
        return states

    def _set(self, states: States) -> None:
        torch.default_generator.set_state(states[0])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(states[1], self._device)


def written(f: Any, args: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """The places of buffers that f may write to: those of modules in training mode."""
    for module in modules(f, args):
        if module.training:
            for name, buffer in module._buffers.items():
                if buffer is not None and not nn.parameter.is_lazy(buffer):
                    yield module._buffers, name


def modules(*roots: Any) -> Iterator[nn.Module]:
    """All modules, with their parts, that can be found from functions, containers and modules."""
    stack, seen = list(roots), set()
    while stack:
        item = stack.pop()
        if item.__class__ in _WITHOUT or id(item) in seen or isinstance(item, Tensor):
            continue
        seen.add(id(item))
        if isinstance(item, nn.Module):
            yield item
            stack.extend(item._modules.values())
        else:
            stack.extend(_parts(item))


def _parts(item: Any) -> Any:
    """What a function, a wrapper of one or a container holds."""
    if isinstance(item, types.FunctionType):
        cells = [cell.cell_contents for cell in item.__closure__ or () if _is_filled(cell)]
        names = [item.__globals__.get(name) for name in item.__code__.co_names]
        # A global function is somebody's library; a global module is this f's own.
        names = [value for value in names if isinstance(value, nn.Module)]
        wrapped = item.__dict__.get("__wrapped__")
        return [*cells, *names, *(item.__defaults__ or ()), wrapped]
    if isinstance(item, types.MethodType):
        return (item.__self__, item.__func__)
    if isinstance(item, functools.partial):
        return (item.func, item.args, item.keywords)
    if isinstance(item, (list, tuple)):
        return item
    if isinstance(item, dict):
        return item.values()
    if callable(item) and hasattr(item, "__dict__") and not isinstance(item, type):
        return vars(item).values()
    return ()


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
