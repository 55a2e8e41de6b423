"""A solve as an operation that the compiler does not look into, and its derivative as another.

They run the eager solve and the eager adjoint when the graph runs, and differentiate in the
tensors that the graph hands them. An f that reaches for any other tensor is refused: its gradient
would be lost without a word, and what the graph has written to it as well.
"""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import fpicore
from fpicore import (
    AbstractPullBack,
    Backward,
    DerivativeError,
    Functions,
    InputError,
    Iteration,
    Leaves,
    MapError,
    Outcome,
    Problem,
    Results,
    Stats,
    bind,
)

from ._backend import TorchBackend, attach
from ._capture import capture, depends_on_others
from ._evaluation import agree
from ._explicit import DRIFTED, ROUNDING
from ._frozen import Frozen
from ._levels import as_outside, each_sample, refuse_transforms
from ._products import pull
from ._replica import replica


class Place:
    """Where the graph gives a tensor."""


class FloatPlace:
    """Where the graph gives a float."""


class Call(NamedTuple):
    """A call of fixed_point; `Place` and `FloatPlace` stand where the graph gives the values."""

    function: Callable[..., Any]
    module: Callable[[], nn.Module | None] | None
    """Whose method the function is. Not kept alive: a table of compiled calls has no end."""
    start: Any
    args: Any
    names: tuple[str, ...]
    """Of the parameters and buffers of the module, which follow the tensors in args."""
    buffers: int
    options: dict[str, Any]

    def given(self, numbers: list[float]) -> tuple[Callable[..., Any], dict[str, Any]]:
        """f as a function of z and the tensors, and the options."""
        source = iter(numbers)
        args, options = (
            filled(self.args, FloatPlace, source),
            filled(self.options, FloatPlace, source),
        )

        def f(z: Any, *tensors: Tensor) -> Any:
            count = len(tensors) - len(self.names)
            inputs = filled(args, Place, iter(tensors))
            if self.module is None:
                return self.function(z, *inputs)
            module = self.module()
            if module is None:
                raise DerivativeError(_GONE)
            return self.function(replica(module, self.names, tensors[count:]), z, *inputs)

        return f, {name: _made(option) for name, option in options.items()}


CALLS: list[Call] = []
"""By number, for good: a compiled graph may be called at any time."""


def filled(tree: Any, kind: type, source: Iterator[Any]) -> Any:
    """The tree with values in the places of a kind."""
    return fpicore.map_leaves(tree, lambda x: x is kind, lambda _: next(source))


def _made(described: Any) -> Any:
    if isinstance(described, tuple) and described[:1] == (dataclasses.Field,):
        return described[1](**{name: _made(field) for name, field in described[2]})
    return described


class _Solved(TorchBackend):
    """Solves without derivatives and looks at what f does; f(z*) is the auxiliary output."""

    def solve(self, problem: Problem, iteration: Iteration, adjoint: AbstractPullBack) -> Outcome:
        """Solve, and evaluate f once more."""
        with torch.no_grad():
            z, results, stats, _, _ = super().solve(problem, iteration, adjoint)
        frozen = Frozen(problem)
        found = frozen.run(partial(capture, problem.map), z)
        given = {id(leaf) for leaf in problem.args}
        strange = [x for x in found.fetched if id(x) not in given]
        if strange:  # what f makes by autograd looks so as well, but is another one each time
            again = set(map(id, frozen.run(partial(capture, problem.map), z).fetched))
            strange = [x for x in strange if id(x) in again]
        if strange or depends_on_others(found.outputs, found.made):
            raise InputError(_HIDDEN)
        if found.written or not frozen.plain:
            raise MapError(_EFFECTS)
        return z, results, stats, found.outputs, None


class _Differentiated(TorchBackend):
    """Takes the start for the answer, and differentiates it."""

    def solve(self, problem: Problem, iteration: Iteration, adjoint: AbstractPullBack) -> Outcome:
        """Attach the derivative."""
        record, forward = Backward(), adjoint.forward(iteration, None)
        value = tuple([leaf.detach() for leaf in problem.leaves])
        z = attach(self, problem, Frozen(problem), forward, adjoint, value, record)
        return z, Results(0), Stats(0, 0, 0.0, 0.0), None, record


_forward: Functions = bind(_Solved())
_backward: Functions = bind(_Differentiated())


@torch.library.custom_op("fpicore_torch::solve", mutates_args=())
def _solve(
    call: int, batch_ndim: int, numbers: list[float], z0: list[Tensor], tensors: list[Tensor]
) -> list[Tensor]:
    """z*, f(z*) and five tensors of the batch shape that tell how the solve went."""
    refuse_transforms("a solve within fullgraph=True")
    known = CALLS[call]
    f, options = known.given(numbers)
    with as_outside(), torch.enable_grad():
        plain = [leaf.detach() for leaf in tensors[: len(tensors) - known.buffers]]
        held = tensors[len(plain) :]
        given = (*plain, *[leaf.detach().clone() for leaf in held])
        start = filled(known.start, Place, iter([leaf.detach() for leaf in z0]))
        sol = _forward.fixed_point(f, start, given, **options)
        if not all(map(torch.equal, held, given[len(plain) :])):
            raise MapError(_EFFECTS)
        shape = z0[0].shape[:batch_ndim]
        outcome = zip((sol.result.codes, *sol.stats[:4]), _kinds(z0[0]), strict=True)
        shown = [torch.as_tensor(x).to(z0[0].device, kind).expand(shape) for x, kind in outcome]
        return [*map(_copy, (*_leaves(sol.value), *sol.aux, *shown))]


@_solve.register_fake
def _(call: int, batch_ndim: int, numbers: Any, z0: Any, tensors: Any) -> list[Tensor]:
    shape = z0[0].shape[:batch_ndim]
    outcome = [z0[0].new_empty(shape, dtype=kind) for kind in _kinds(z0[0])]
    return [*map(_like, z0), *map(_like, z0), *outcome]


@torch.library.custom_op("fpicore_torch::pull_back", mutates_args=())
def _pull_back(
    call: int,
    batch_ndim: int,
    numbers: list[float],
    wanted: list[bool],
    z: list[Tensor],
    outputs: list[Tensor],
    tensors: list[Tensor],
    v: list[Tensor],
) -> list[Tensor]:
    """The cotangents of the wanted tensors; ``outputs`` is f(z*) as it was in the solve."""
    refuse_transforms("a solve within fullgraph=True")
    known = CALLS[call]
    f, options = known.given(numbers)
    with as_outside(), torch.enable_grad():
        pairs = zip(tensors, wanted, strict=True)
        given = tuple([leaf.detach().requires_grad_(want) for leaf, want in pairs])
        start = filled(known.start, Place, iter([leaf.detach() for leaf in z]))
        with torch.no_grad():
            again = _leaves(f(start, *given))
        if not agree(again, tuple(outputs), batch_ndim, ROUNDING):
            raise DerivativeError(DRIFTED)
        sol = _backward.fixed_point(f, start, given, **{**options, "on_failure": "ignore"})
        moving = tuple([leaf for leaf in given if leaf.requires_grad])
        return [*map(_copy, pull(_leaves(sol.value), moving, tuple(v)))]


@_pull_back.register_fake
def _(
    call: int,
    batch_ndim: int,
    numbers: Any,
    wanted: Any,
    z: Any,
    outputs: Any,
    tensors: Any,
    v: Any,
) -> list[Tensor]:
    return [_like(leaf) for leaf, want in zip(tensors, wanted, strict=True) if want]


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    *ctx.call, z0, tensors = inputs
    ctx.size = len(z0)
    ctx.save_for_backward(*output[: 2 * ctx.size], *tensors)


def _pull(ctx: Any, grads: Any) -> Any:
    """Zero for z0."""
    n, saved, wanted = ctx.size, ctx.saved_tensors, list(ctx.needs_input_grad[-1])
    z, outputs, tensors = saved[:n], saved[n : 2 * n], saved[2 * n :]
    v = [torch.zeros_like(a) if g is None else g for g, a in zip(grads, z, strict=False)]
    operation = torch.ops.fpicore_torch.pull_back
    found = iter(operation(*ctx.call, wanted, z, outputs, tensors, v))
    by_tensors = [next(found) if want else None for want in wanted]
    nothing = None if ctx.call[-1] else []  # PyTorch takes an empty list for one of tensors
    return None, None, nothing, [torch.zeros_like(leaf) for leaf in z], by_tensors


def _each(call: int, batch_ndim: int, numbers: Any, wanted: Any, *tensors: Any) -> Any:
    """The cotangents for each sample of PyTorch's older vmap (is_grads_batched)."""
    sizes = [len(part) for part in tensors]

    def one(leaves: Leaves) -> Leaves:
        source = iter(leaves)
        parts = [[next(source) for _ in range(size)] for size in sizes]
        return tuple(torch.ops.fpicore_torch.pull_back(call, batch_ndim, numbers, wanted, *parts))

    return [*(each_sample(one, tuple([leaf for part in tensors for leaf in part])) or ())]


_batched = torch.library.Library("fpicore_torch", "FRAGMENT")
_batched.impl("pull_back", _each, "Batched")


def _refuse(ctx: Any, *grads: Any) -> Any:
    raise DerivativeError(_SECOND)


_solve.register_autograd(_pull, setup_context=_keep)
_pull_back.register_autograd(_refuse)


def _kinds(like: Tensor) -> tuple[torch.dtype, ...]:
    real = torch.float32 if like.device.type == "mps" else torch.float64
    return (torch.int32, torch.int32, torch.int32, real, real)


def _leaves(tree: Any) -> Leaves:
    return fpicore.flatten(tree, lambda x: isinstance(x, Tensor))[0]


def _copy(leaf: Tensor) -> Tensor:
    return leaf.detach().clone(memory_format=torch.contiguous_format)


def _like(leaf: Tensor) -> Tensor:
    return torch.empty_like(leaf, memory_format=torch.contiguous_format)


_HIDDEN = (
    "expected f within fullgraph=True to take all tensors from args, or from the parameters and "
    "buffers of the module whose method it is, received an f that uses another one; pass it in "
    "args, or compile with fullgraph=False"
)
_GONE = (
    "expected the module whose method f is to exist until the backward pass, received none; keep it"
)
_EFFECTS = (
    "expected f within fullgraph=True to have no effects, received an f that draws random numbers "
    "or writes to a tensor; call eval() on its modules, or compile with fullgraph=False"
)
_SECOND = (
    "expected one derivative, by reverse mode, of a solve within fullgraph=True, received a "
    "request for another; compile with fullgraph=False, or not at all"
)
