"""`fixed_point` as torch.compile(fullgraph=True) traces it: one opaque operation.

That knows f by a number, so f and the options are constants of the graph. Its tensors are those in
args, and the parameters and buffers of the module whose method f is.
"""

import dataclasses
import operator
import weakref
from collections.abc import Callable
from functools import wraps
from types import MethodType
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

import fpicore
from fpicore import AbstractPullBack, InputError, Results, Solution, Stats

from ._evaluation import outside_compile
from ._levels import pending, traced_as_one_graph
from ._operation import CALLS, Call, FloatPlace, Place, filled

Entry = TypeVar("Entry", bound=Callable[..., Any])


def in_one_graph(entry: Entry) -> Entry:
    """``fixed_point`` that dynamo traces as one operation where it may not break its graph."""
    broken_out = outside_compile(entry)

    @wraps(entry)
    def fixed_point(f: Any, z0: Any, args: Any = (), **options: Any) -> Solution:
        if torch.compiler.is_dynamo_compiling():
            solution = _traced(f, z0, args, options)
            return broken_out(f, z0, args, **options) if solution is None else solution
        return entry(f, z0, args, **options)

    return cast(Entry, fixed_point)


def _traced(f: Any, z0: Any, args: Any, options: dict[str, Any]) -> Solution | None:
    """The solve as an operation, or None where this is not one graph or cannot be one.

    Results and stats are tensors, and there is no record of the backward pass.

    Raises:
        InputError: f uses a tensor that is neither in args nor a parameter or buffer of its module.
        MapError: f draws random numbers or writes to a tensor.
    """
    module: Any = None
    function = f
    if isinstance(f, MethodType):
        module, function = f.__self__, f.__func__
    elif isinstance(f, nn.Module):
        module, function = f, type(f).__call__
    known = isinstance(args, (tuple, list)) and (module is None or isinstance(module, nn.Module))
    if not (known and _serves(options)):
        return None
    start: list[Any] = []
    tensors: list[Any] = []
    numbers: list[Any] = []
    names: list[str] = []
    buffers = 0
    without = _emptied(z0, start, []), _emptied(args, tensors, numbers)
    if module is not None:
        held = [*module.named_parameters(), *module.named_buffers()]
        buffers = len(list(module.buffers()))
        names = [name for name, _ in held]
        tensors += [leaf for _, leaf in held]
    described = _emptied({k: _described(option) for k, option in options.items()}, [], numbers)
    call = _register(function, module, *without, tuple(names), buffers, described)
    count, batch_ndim = len(start), described.get("batch_ndim", 0)
    out = torch.ops.fpicore_torch.solve(call, batch_ndim, numbers, start, tensors)
    codes, *stats = [shown.detach() for shown in out[2 * count :]]
    value = filled(without[0], Place, iter(out[:count]))
    return Solution(value, Results(codes), Stats(*stats))


def _serves(options: dict[str, Any]) -> bool:
    adjoint = options.get("adjoint")
    plain = adjoint is None or isinstance(adjoint, AbstractPullBack)
    whole = not options.get("has_aux") and options.get("compact") is None
    return plain and whole and _one_graph()


@torch.compiler.assume_constant_result
def _one_graph() -> bool:
    return traced_as_one_graph()


@torch.compiler.assume_constant_result
def _register(
    function: Any, module: Any, start: Any, args: Any, names: Any, buffers: int, options: Any
) -> int:
    """The number of a call. This runs while it is traced, with the objects themselves."""
    code = getattr(function, "__code__", None)
    bare = code is not None and code.co_freevars in ((), ("__class__",))
    if not bare or function.__defaults__ or function.__kwdefaults__:
        raise InputError(
            "expected f within fullgraph=True to be a function without closure or defaults, which "
            f"the compiler would not look at again, received {function!r}; pass in args what it "
            "uses, or compile with fullgraph=False"
        )
    found: list[Any] = []
    fpicore.map_leaves(start, lambda x: x is Place, found.append)
    if not found:
        raise InputError(f"expected z0 to be of tensors, received {start!r}; pass torch.zeros(...)")
    if assigned := pending():
        raise InputError(
            "expected no assignment to objects before a solve within fullgraph=True, which the "
            f"compiler makes after it, so that f would not see it; received one to {assigned}; "
            "assign after the solve, pass in args what f uses, or compile with fullgraph=False"
        )
    if options.get("trace"):
        raise InputError(
            "expected trace=False within fullgraph=True, received trace=True; compile with "
            "fullgraph=False, or solve outside of what is compiled"
        )
    held = None if module is None else weakref.ref(module)
    CALLS.append(Call(function, held, start, args, names, buffers, options))
    return len(CALLS) - 1


def _described(option: Any) -> Any:
    """A dataclass by its fields: of one made within the graph dynamo would give the defaults."""
    if dataclasses.is_dataclass(option) and not isinstance(option, type):
        names = [field.name for field in dataclasses.fields(option) if field.init]
        fields = [(name, _described(getattr(option, name))) for name in names]
        return (dataclasses.Field, type(option), tuple(fields))
    return option


def _emptied(tree: Any, tensors: list[Any], numbers: list[Any]) -> Any:
    """The compiler may take a number for a variable: floats are given, integers made constants."""

    def take(leaf: Any) -> Any:
        if isinstance(leaf, int):
            return operator.index(leaf)
        tensor = isinstance(leaf, Tensor)
        (tensors if tensor else numbers).append(leaf)
        return Place if tensor else FloatPlace

    def is_given(leaf: Any) -> bool:
        return isinstance(leaf, (Tensor, float, int)) and not isinstance(leaf, bool)

    return fpicore.map_leaves(tree, is_given, take)
