"""The gradient of a fixed point as an autograd node.

z* is found without recording; f is evaluated once more at z* with recording, and `Node` puts the
adjoint solve between the cotangent of z* and that evaluation. Closures, module parameters and
explicit arguments are all captured, because f itself was recorded.

That is exact to first order. Where the backward pass is itself recorded (create_graph), the node
answers by the rules of `Root` at its own output instead, which hold to every order. They need f
as a function of the tensors that it captures; where those cannot be told, the first derivative
is right and a second one raises `DerivativeError`.

With ``order=k`` nothing need be known of f. Level k is
out_k = out_{k−1} + N(f(out_{k−1}) − out_{k−1}), where N has the value of its argument and the
constant pull-back v ↦ g; it is exact to order k, and derivatives beyond raise `DerivativeError`.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import Function

from fpicore import DerivativeError, Leaves

from ._evaluation import outside_compile
from ._levels import each_sample, refuse_legacy_vmap, transforms_active

Solve = Callable[[Leaves, bool], Leaves]
"""The adjoint solve: of v with Jᵀ or, if the flag is set, with J."""


class Rules(Protocol):
    """What gives a recorded backward pass derivatives of every order."""

    tensors: Leaves
    """The tensors that f captures."""

    def obstacle(self, z: Leaves) -> str | None:
        """Why the rules do not hold for this f, if they do not."""
        ...

    def pull_back(self, z: Leaves, v: Leaves) -> list[Tensor | None]:
        """The cotangents of ``tensors``."""
        ...


class Node(Function):
    """A value, with the adjoint solve between its cotangent and that of f."""

    @staticmethod
    @outside_compile
    def forward(
        ctx: Any, solve: Solve, order: int, rules: Rules | None, value: Leaves, *inputs: Tensor
    ) -> Leaves:
        """``value``. The inputs are the leaves of f(z), those of z, and z0's that want zeros.

        z is detached on the first level; its cotangent v − g is then dropped by autograd. With
        ``rules`` their tensors follow.
        """
        ctx.solve, ctx.order, ctx.rules, ctx.inputs = solve, order, rules, inputs
        out = tuple(leaf.clone() for leaf in value)
        if rules is not None:
            ctx.save_for_backward(*out)
        return out

    @staticmethod
    @outside_compile
    def backward(ctx: Any, *v: Tensor) -> Any:
        """g for f(z), v − g for z, zero for z0; or the cotangents of the captured tensors."""
        size, captured = len(v), len(ctx.rules.tensors) if ctx.rules else 0
        starts = ctx.inputs[2 * size : len(ctx.inputs) - captured]
        to_z0 = [torch.zeros_like(leaf) for leaf in starts]
        if torch.is_grad_enabled():
            refuse_legacy_vmap(v)
            obstacle = None
            if ctx.rules is not None:
                z = ctx.saved_tensors
                obstacle = ctx.rules.obstacle(z)
                if obstacle is None:
                    found = ctx.rules.pull_back(z, v)
                    return (None,) * (4 + 2 * size) + (*to_z0, *found)
            g = LinearSolve.apply(ctx.solve, False, *v)
            refusal = obstacle or _beyond(ctx.order)
            g = Guard.apply(ctx.order - 1, refusal, size, *g, *_anchors(ctx.inputs))
        elif transforms_active():  # vmap around a backward pass
            g = LinearSolve.apply(ctx.solve, False, *v)
        else:
            g = each_sample(lambda v: ctx.solve(v, False), v) or ctx.solve(v, False)
        wanted = ctx.needs_input_grad[4 + size :]
        to_z = [a - b if want else None for a, b, want in zip(v, g, wanted, strict=False)]
        return (None,) * 4 + (*g, *to_z, *to_z0, *(None,) * captured)


class LinearSolve(Function):
    """v ↦ Mᵀv with M = (I − J)⁻¹ held constant: linear, so differentiable to every order."""

    @staticmethod
    @outside_compile
    def forward(solve: Solve, tangent: bool, *v: Tensor) -> Leaves:
        """Mᵀv or, tangent, Mv."""
        return each_sample(lambda v: solve(v, tangent), v) or solve(v, tangent)

    @staticmethod
    @outside_compile
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep what solves."""
        ctx.solve, ctx.tangent, *_ = inputs

    @staticmethod
    @outside_compile
    def backward(ctx: Any, *w: Tensor) -> Any:
        """The tangent solve."""
        return (None, None, *LinearSolve.apply(ctx.solve, not ctx.tangent, *w))

    @staticmethod
    @outside_compile
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
        """One solve after the other: they share a graph that was recorded without a batch."""
        solve, tangent, *v = inputs
        pairs = list(zip(v, in_dims[2:], strict=True))
        found = [
            LinearSolve.apply(
                solve, tangent, *[x if axis is None else x.select(axis, i) for x, axis in pairs]
            )
            for i in range(info.batch_size)
        ]
        return tuple(torch.stack(parts) for parts in zip(*found, strict=True)), (0,) * len(v)


class Guard(Function):
    """The first ``size`` tensors, which can be differentiated ``depth`` times and then refuse.

    The further tensors tie it to all that f depends on. Without them autograd would pass by the
    guard where the missing term is the only dependence, and the second derivative would be wrong
    without a word.
    """

    @staticmethod
    @outside_compile
    def forward(ctx: Any, depth: int, refusal: str, size: int, *tensors: Tensor) -> Leaves:
        """The tensors, unchanged."""
        ctx.depth, ctx.refusal, ctx.anchors = depth, refusal, tensors[size:]
        return tuple(leaf.view_as(leaf) for leaf in tensors[:size])

    @staticmethod
    @outside_compile
    def backward(ctx: Any, *w: Tensor) -> Any:
        """Pass on, one deeper, or raise."""
        if ctx.depth == 0:
            raise DerivativeError(ctx.refusal)
        if torch.is_grad_enabled():
            w = Guard.apply(ctx.depth - 1, ctx.refusal, len(w), *w, *_anchors(ctx.anchors))
        return (None, None, None, *w, *[torch.zeros_like(leaf) for leaf in ctx.anchors])


def _beyond(order: int) -> str:
    return (
        f"expected at most {order} derivative(s) of this fixed point, received a request for more, "
        f"which its adjoint would answer wrongly; pass adjoint=Implicit(order={order + 1}), or "
        "Implicit() for every order, to fixed_point"
    )


def _anchors(tensors: tuple[Tensor, ...]) -> list[Tensor]:
    return [leaf for leaf in tensors if leaf.requires_grad]
