"""Derivatives as rules on explicit tensors: for torch.func, forward mode and higher orders.

`Root` is the fixed point as a function of the captured tensors, `Linear` the solution of the
linear equation that every derivative of it comes down to. Each one's derivatives are again made of
`Linear` and of derivatives of f, so both modes compose to every order. vmap adds a batch axis:
the samples are then independent systems of one solve.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from fpicore import DerivativeError, Leaves

from ._capture import is_inexact
from ._evaluation import outside_compile
from ._levels import alive, primal, within_jvp
from ._products import push, vjp

Explicit = Callable[[Leaves, Leaves], Leaves]


@dataclass(frozen=True, eq=False)
class Equation:
    """z = f(T, z) with its captured tensors T, and who solves it."""

    explicit: Explicit
    size: int
    """The number of leaves of z."""
    batch_ndim: int
    order: int | None
    solve: Callable[["Equation", Leaves, Leaves], Leaves]
    """Of (equation, T, z0): the leaves of z*, then tensors that tell how it went."""
    solve_linear: Callable[["Equation", bool, Leaves, Leaves, Leaves], Leaves]
    """Of (equation, tangent, T, z, v): g = Jᵀg + v or, tangent, g = Jg + v, with J at (T, z)."""

    def product(self, tensors: Leaves, z: Leaves, g: Leaves, tangent: bool) -> Leaves:
        """Jᵀg or, tangent, Jg."""
        if tangent:
            return push(lambda *z: self.explicit(tensors, z), z, g)
        return vjp(lambda *z: self.explicit(tensors, z), *z)[1](g)

    def batched(self, axes: list[int | None], randomness: str) -> "Equation":
        """With one more leading axis of z, and of those captured tensors whose axis is 0."""
        n = self.size
        drawn = "same" if randomness == "same" else "different"  # "error" is raised elsewhere

        def explicit(tensors: Leaves, z: Leaves) -> Leaves:
            one = lambda *all: self.explicit(all[n:], all[:n])  # noqa: E731
            vmapped = torch.func.vmap(one, (*(0,) * n, *axes), randomness=drawn)
            return vmapped(*z, *tensors)

        return replace(self, explicit=explicit, batch_ndim=self.batch_ndim + 1)


class Root(Function):
    """z0 and the captured tensors ↦ z*, and tensors that tell how the solve went."""

    @staticmethod
    @outside_compile
    def forward(equation: Equation, *tensors: Tensor) -> Leaves:
        """Solve."""
        return equation.solve(equation, tensors[equation.size :], tensors[: equation.size])

    @staticmethod
    @outside_compile
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep z* and the captured tensors."""
        ctx.equation, n = inputs[0], inputs[0].size
        ctx.told = len(output) - n
        ctx.mark_non_differentiable(*output[n:])
        ctx.set_materialize_grads(True)
        ctx.save_for_backward(*output[:n], *inputs[1 + n :])
        ctx.save_for_forward(*output[:n], *inputs[1 + n :])

    @staticmethod
    @outside_compile
    def backward(ctx: Any, *v: Tensor) -> Any:
        """Zero for z0, (∂f/∂T)ᵀg for the captured tensors."""
        n, saved = ctx.equation.size, alive(ctx.saved_tensors)
        z, tensors = saved[:n], saved[n:]
        starts = [torch.zeros_like(leaf) for leaf in z]
        return (None, *starts, *pull_back(ctx.equation, tensors, z, v[:n]))

    @staticmethod
    @outside_compile
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """The solution u of u = Ju + (∂f/∂T) Ṫ."""
        n = ctx.equation.size
        with within_jvp():
            saved = tuple(map(primal, alive(ctx.saved_tensors)))
            z, tensors = saved[:n], saved[n:]
            pushed = _along(ctx.equation, tensors, z, tangents[1 + n :])
            u = Linear.apply(ctx.equation, True, *z, *pushed, *tensors)
            return (*guard(ctx.equation, u, saved), *(None,) * ctx.told)

    @staticmethod
    @outside_compile
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
        """One solve, the samples as systems."""
        equation, *tensors = inputs
        n = equation.size
        starts = _spread(info.batch_size, tensors[:n], in_dims[1 : 1 + n])
        captured, axes = _front(tensors[n:], in_dims[1 + n :])
        out = Root.apply(equation.batched(axes, info.randomness), *starts, *captured)
        return out, (0,) * len(out)


class Linear(Function):
    """v ↦ g = Jᵀg + v or, tangent, g = Jg + v, as a function of z and T as well."""

    @staticmethod
    @outside_compile
    def forward(equation: Equation, tangent: bool, *tensors: Tensor) -> Leaves:
        """Solve."""
        z, v, captured = _three(equation, tensors)
        return equation.solve_linear(equation, tangent, captured, z, v)

    @staticmethod
    @outside_compile
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep everything but v, which the derivative does not need."""
        ctx.equation, ctx.tangent, *tensors = inputs
        z, _, captured = _three(ctx.equation, tuple(tensors))
        ctx.set_materialize_grads(True)
        ctx.save_for_backward(*z, *output, *captured)
        ctx.save_for_forward(*z, *output, *captured)

    @staticmethod
    @outside_compile
    def backward(ctx: Any, *w: Tensor) -> Any:
        """q = Mᵀw for v; for z and T the pull-back of q through the right-hand side at g."""
        z, g, captured = _three(ctx.equation, alive(ctx.saved_tensors))
        q = Linear.apply(ctx.equation, not ctx.tangent, *z, *w, *captured)
        _, pull_q = vjp(_right_side(ctx, z, g, captured), *z, *_moving(captured))
        found = pull_q(q)
        n = ctx.equation.size
        return (None, None, *found[:n], *q, *_merge(captured, found[n:]))

    @staticmethod
    @outside_compile
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """The same equation, with the derivative of its right-hand side at g."""
        with within_jvp():
            saved = tuple(map(primal, alive(ctx.saved_tensors)))
            z, g, captured = _three(ctx.equation, saved)
            dz, dv, dt = _three(ctx.equation, tangents[2:])
            at = (*z, *_moving(captured))
            along = [_tangent(d, leaf) for d, leaf in zip(dz, z, strict=True)]
            along += [
                _tangent(d, leaf) for d, leaf in zip(dt, captured, strict=True) if is_inexact(leaf)
            ]
            pushed = push(_right_side(ctx, z, g, captured), at, tuple(along))
            right = [p if d is None else p + primal(d) for p, d in zip(pushed, dv, strict=True)]
            return Linear.apply(ctx.equation, ctx.tangent, *z, *right, *captured)

    @staticmethod
    @outside_compile
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
        """One solve, the samples as systems."""
        equation, tangent, *tensors = inputs
        size = 2 * equation.size
        leaves = _spread(info.batch_size, tensors[:size], in_dims[2 : 2 + size])
        captured, axes = _front(tensors[size:], in_dims[2 + size :])
        out = Linear.apply(equation.batched(axes, info.randomness), tangent, *leaves, *captured)
        return out, (0,) * len(out)


class Refuse(Function):
    """The first ``size`` tensors, whose derivatives would be wrong and are refused.

    The further tensors tie it to all that they depend on.
    """

    generate_vmap_rule = True

    @staticmethod
    @outside_compile
    def forward(size: int, *tensors: Tensor) -> Leaves:
        """The tensors, unchanged."""
        return tuple(leaf.view_as(leaf) for leaf in tensors[:size])

    @staticmethod
    @outside_compile
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept."""

    @staticmethod
    @outside_compile
    def backward(ctx: Any, *w: Tensor) -> Any:
        """Raise."""
        raise DerivativeError(_FIRST_ORDER)

    @staticmethod
    @outside_compile
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """Raise."""
        raise DerivativeError(_FIRST_ORDER)


_FIRST_ORDER = (
    "expected at most 1 derivative of this fixed point, received a request for more, which its "
    "adjoint would answer wrongly; pass adjoint=Implicit() to fixed_point"
)


def pull_back(equation: Equation, tensors: Leaves, z: Leaves, v: Leaves) -> list[Tensor | None]:
    """(∂f/∂T)ᵀg for each captured tensor, None for those that are not of a continuous dtype."""
    moving = _moving(tensors)
    if not moving:
        return [None] * len(tensors)
    g = Linear.apply(equation, False, *z, *v, *tensors)
    at = lambda *moving: equation.explicit(_merge(tensors, moving), z)  # noqa: E731
    found = vjp(at, *moving)[1](tuple(g))
    return _merge(tensors, guard(equation, found, (*z, *tensors, *v)), drop=True)


def guard(equation: Equation, found: Leaves, ties: Leaves) -> Leaves:
    """First derivatives, with further ones refused where the strategy knows no more."""
    if equation.order != 1:
        return found
    return Refuse.apply(len(found), *found, *[leaf for leaf in ties if is_inexact(leaf)])


def _right_side(ctx: Any, z: Leaves, g: Leaves, captured: Leaves) -> Callable[..., Leaves]:
    """(z, moving captured tensors) ↦ Jᵀg or Jg."""

    def right_side(*all: Tensor) -> Leaves:
        tensors = _merge(captured, all[len(z) :])
        return ctx.equation.product(tensors, all[: len(z)], g, ctx.tangent)

    return right_side


def _along(equation: Equation, tensors: Leaves, z: Leaves, tangents: Leaves) -> Leaves:
    """(∂f/∂T) Ṫ at (T, z)."""
    moving = _moving(tensors)
    if not moving:
        return tuple(torch.zeros_like(leaf) for leaf in z)
    pairs = zip(tangents, tensors, strict=True)
    along = tuple(_tangent(d, leaf) for d, leaf in pairs if is_inexact(leaf))
    return push(lambda *moving: equation.explicit(_merge(tensors, moving), z), moving, along)


def _moving(tensors: Leaves) -> Leaves:
    return tuple(leaf for leaf in tensors if is_inexact(leaf))


def _merge(tensors: Leaves, moving: Any, drop: bool = False) -> Any:
    """The tensors with those of continuous dtypes exchanged, the others as they are or None."""
    source = iter(moving)
    kept = [next(source) if is_inexact(t) else (None if drop else t) for t in tensors]
    return kept if drop else tuple(kept)


def _three(equation: Equation, tensors: Any) -> tuple[Any, Any, Any]:
    n = equation.size
    return tensors[:n], tensors[n : 2 * n], tensors[2 * n :]


def _spread(batch: int, tensors: Any, axes: Any) -> list[Tensor]:
    """With the samples' axis in front, made where it is missing."""
    return [
        leaf.expand(batch, *leaf.shape) if axis is None else leaf.movedim(axis, 0)
        for leaf, axis in zip(tensors, axes, strict=True)
    ]


def _front(tensors: Any, axes: Any) -> tuple[list[Tensor], list[int | None]]:
    """With the samples' axis in front, where there is one."""
    moved = [
        leaf if axis is None else leaf.movedim(axis, 0)
        for leaf, axis in zip(tensors, axes, strict=True)
    ]
    return moved, [None if axis is None else 0 for axis in axes]


def _tangent(tangent: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if tangent is None else primal(tangent)
