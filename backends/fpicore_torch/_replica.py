"""A module with other tensors, while the module itself stays as it is for whoever else uses it.

`torch.func.functional_call` puts tensors into the module for the time of a call: another thread
would see them, compute with them without a gradient, and might leave them there.
"""

from types import MethodType
from typing import Any

from torch import Tensor, nn

import fpicore

from ._levels import compiled_modules


def replica(module: nn.Module, names: tuple[str, ...], tensors: tuple[Tensor, ...]) -> nn.Module:
    """A copy of the tree of modules that shares all but the named parameters and buffers.

    Modules that torch.compile has wrapped are taken as they were. What refers to the modules from
    outside of their attributes, a closure say, goes on to refer to the originals.
    """
    given = {id(_held(module, name)): leaf for name, leaf in zip(names, tensors, strict=True)}
    wrapped: Any = compiled_modules()
    copies: dict[int, nn.Module] = {}
    originals: list[nn.Module] = []
    for part in module.modules():
        if not isinstance(part, wrapped):
            originals.append(part)
            copies[id(part)] = type(part).__new__(type(part))
    for part in module.modules():
        if isinstance(part, wrapped):
            copies[id(part)] = copies[id(part._orig_mod)]
    for part in originals:
        state = {name: _moved(value, copies) for name, value in vars(part).items()}
        for kind in ("_parameters", "_buffers"):
            state[kind] = {name: given.get(id(x), x) for name, x in vars(part)[kind].items()}
        vars(copies[id(part)]).update(state)
    return copies[id(module)]


def _held(module: nn.Module, name: str) -> Tensor | None:
    prefix, _, last = name.rpartition(".")
    owner: Any = module.get_submodule(prefix)
    owner = getattr(owner, "_orig_mod", owner)
    return owner._parameters[last] if last in owner._parameters else owner._buffers[last]


def _moved(value: Any, copies: dict[int, nn.Module]) -> Any:
    """The value, with the copies in place of the modules and their methods."""

    def is_ours(x: Any) -> bool:
        return id(x.__self__ if isinstance(x, MethodType) else x) in copies

    def copy(x: Any) -> Any:
        if isinstance(x, MethodType):
            return MethodType(x.__func__, copies[id(x.__self__)])
        return copies[id(x)]

    found: list[Any] = []
    moved = fpicore.map_leaves(value, is_ours, lambda x: found.append(x) or copy(x))
    return moved if found else value
