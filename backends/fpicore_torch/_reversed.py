"""A reversible iteration as an autograd node: the backward pass recomputes what it needs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from fpicore import Backward, DerivativeError, Iteration, Leaves, Problem, Results, Stats, outcome

from ._autodiff import Guard
from ._capture import capture, check
from ._evaluation import outside_compile, watched, without_autocast
from ._frozen import Frozen
from ._levels import each_sample, refuse_legacy_vmap, transforms_active
from ._ops import TorchOps

Solved = tuple[Leaves, Results, Stats, Backward]
_REFUSAL = (
    "expected one derivative, by reverse mode, of an iteration that is run backwards, received a "
    "request for another; use adjoint=Unrolled(), which has them all, or Implicit()"
)


def reversed_solve(
    frozen: Frozen, problem: Problem, ops: TorchOps, iteration: Iteration, sweep: Any
) -> Solved:
    """The last iterate of ``iteration``, how it went, and what the backward pass will tell.

    Raises:
        DerivativeError: a torch.func transform or forward mode is under way, or f depends on a
            tensor that cannot be told.
    """
    if transforms_active():
        raise DerivativeError(_REFUSAL)
    record, start = Backward(), problem.leaves
    plain = tuple([leaf.detach() for leaf in start])
    tensors: Leaves = ()
    explicit: Any = None
    if torch.is_grad_enabled():  # two evaluations: one tells the tensors, one that they are all
        found = capture(frozen, plain)
        tensors, explicit = found.tensors, found.explicit
        check(explicit, found.explicit, tensors, plain)
    with torch.no_grad(), without_autocast(start[0].device.type) as resume:
        carry = iteration.iterate(ops, resume(watched(frozen)), plain, budget=problem.budget)
        z, results, stats, _ = outcome(ops, carry)
        track = sweep.track(carry)
        frozen.take_effect(z)

    def back(v: Leaves, moving: Leaves) -> Leaves:
        """The cotangents of the start and of the tensors."""
        with torch.no_grad(), without_autocast(v[0].device.type) as resume:
            pull = _pull(resume, explicit, moving)
            nothing = tuple([torch.zeros_like(leaf) for leaf in moving])
            by_start, by_tensors, results, stats = sweep.sweep(
                ops, pull, track, plain, v, nothing, iteration
            )
        record.note(results, stats)
        sweep.conclude(results, stats)
        return (*by_start, *by_tensors)

    out = _Reversed.apply(back, tuple([leaf.clone() for leaf in z]), *start, *tensors)
    return out, results, stats, record


def _pull(resume: Any, explicit: Any, tensors: Leaves) -> Any:
    """(z, c) ↦ (f(z), Jᵀc, (∂f/∂T)ᵀc)."""

    def pull(point: tuple[Leaves, Leaves]) -> tuple[Leaves, Leaves, Leaves]:
        z = tuple([leaf.detach().requires_grad_() for leaf in point[0]])
        moving = tuple([leaf.detach().requires_grad_(leaf.requires_grad) for leaf in tensors])
        with torch.enable_grad():
            value = resume(lambda z: explicit(moving, z))(z)
        pairs = [(y, c) for y, c in zip(value, point[1], strict=True) if y.requires_grad]
        wanted = (*z, *[leaf for leaf in moving if leaf.requires_grad])
        found = iter(
            torch.autograd.grad(
                [y for y, _ in pairs],
                wanted,
                [c for _, c in pairs],
                allow_unused=True,
                materialize_grads=True,
            )
            if pairs
            else [torch.zeros_like(leaf) for leaf in wanted]
        )
        by_z = tuple([next(found) for _ in z])
        by_moving = [
            next(found) if leaf.requires_grad else torch.zeros_like(leaf) for leaf in moving
        ]
        return tuple([leaf.detach() for leaf in value]), by_z, tuple(by_moving)

    return pull


class _Reversed(Function):
    """The value, whose pull-back to the start and the tensors is ``back``."""

    @staticmethod
    @outside_compile
    def forward(
        ctx: Any, back: Callable[[Leaves, Leaves], Leaves], value: Leaves, *inputs: Tensor
    ) -> Leaves:
        """``value``; the inputs are the leaves of z0 and the tensors that f captures."""
        ctx.back = back
        ctx.save_for_backward(*inputs)
        return tuple([leaf.view_as(leaf) for leaf in value])

    @staticmethod
    @outside_compile
    def backward(ctx: Any, *v: Tensor) -> Any:
        """Run backwards; a second derivative is refused."""
        inputs = ctx.saved_tensors
        back = lambda v: ctx.back(tuple([leaf.detach() for leaf in v]), inputs[len(v) :])  # noqa: E731
        if torch.is_grad_enabled():
            refuse_legacy_vmap(v)
        found = each_sample(back, v) or back(v)
        if torch.is_grad_enabled():
            ties = [leaf for leaf in (*v, *inputs) if leaf.requires_grad]
            found = Guard.apply(0, _REFUSAL, len(found), *found, *ties)
        return (None, None, *found)
