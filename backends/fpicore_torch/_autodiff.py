"""The gradient of a fixed point as an autograd node.

z* is found without recording; f is evaluated once more at z* with recording, and `Node` puts the
adjoint solve between the cotangent of z* and that evaluation. Closures, module parameters and
explicit arguments are all captured, because f itself was recorded.

One level is exact to first order. Level k is out_k = out_{k−1} + N(f(out_{k−1}) − out_{k−1}),
where N has the value of its argument and the constant pull-back v ↦ g; it is exact to order k.
A derivative beyond the levels raises `DerivativeError`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from fpicore import DerivativeError, Leaves

from ._evaluation import outside_compile

Solve = Callable[[Leaves, bool], Leaves]
"""The adjoint solve: of v with Jᵀ or, if the flag is set, with J."""


class Linearization:
    """f at z*, recorded once; every product of the adjoint solve walks the same graph."""

    def __init__(self, outputs: Leaves, inputs: Leaves) -> None:
        """Keep f(z) and z; leaves of f(z) that depend on nothing are left out."""
        self.inputs = inputs
        self.kept = [i for i, leaf in enumerate(outputs) if leaf.requires_grad]
        self.outputs = [outputs[i] for i in self.kept]
        self._pulled: tuple[Leaves, Leaves] | None = None

    def vjp(self, g: Leaves, recorded: bool = False) -> Leaves:
        """Jᵀg; with ``recorded``, autograd can differentiate it."""
        return _grad(self.outputs, self.inputs, [g[i] for i in self.kept], recorded)

    def jvp(self, u: Leaves) -> Leaves:
        """Ju, as the derivative of g ↦ Jᵀg along u; that map is recorded once as well."""
        if self._pulled is None:
            with torch.enable_grad():
                g = tuple(torch.zeros_like(leaf, requires_grad=True) for leaf in self.outputs)
                self._pulled = g, _grad(self.outputs, self.inputs, list(g), create_graph=True)
        g, pulled = self._pulled
        dependent = [i for i, leaf in enumerate(pulled) if leaf.requires_grad]
        pushed = _grad([pulled[i] for i in dependent], g, [u[i] for i in dependent])
        full = [torch.zeros_like(leaf) for leaf in self.inputs]
        for i, leaf in zip(self.kept, pushed, strict=True):
            full[i] = leaf
        return tuple(full)


def _grad(
    outputs: list[Tensor], inputs: Leaves, cotangents: list[Tensor], create_graph: bool = False
) -> Leaves:
    """autograd.grad on a kept graph, with zeros where an input is not reached."""
    if not outputs:
        return tuple(torch.zeros_like(leaf) for leaf in inputs)
    found = torch.autograd.grad(
        outputs, inputs, cotangents, retain_graph=True, create_graph=create_graph, allow_unused=True
    )
    return tuple(
        torch.zeros_like(leaf) if got is None else got
        for got, leaf in zip(found, inputs, strict=True)
    )


class Node(Function):
    """A value, with the adjoint solve between its cotangent and that of f."""

    @staticmethod
    @outside_compile
    def forward(ctx: Any, solve: Solve, order: int, value: Leaves, *inputs: Tensor) -> Leaves:
        """``value``. The inputs are the leaves of f(z), those of z, and z0's that want zeros.

        z is detached on the first level; its cotangent v − g is then dropped by autograd.
        """
        ctx.solve, ctx.order, ctx.inputs = solve, order, inputs
        return tuple(leaf.clone() for leaf in value)

    @staticmethod
    @outside_compile
    def backward(ctx: Any, *v: Tensor) -> Any:
        """g for f(z), v − g for z, zero for z0."""
        size = len(v)
        if torch.is_grad_enabled():
            g = LinearSolve.apply(ctx.solve, False, *v)
            g = Guard.apply(ctx.order - 1, ctx.order, size, *g, *_anchors(ctx.inputs))
        else:
            g = ctx.solve(v, False)
        wanted = ctx.needs_input_grad[3 + size :]
        to_z = [a - b if want else None for a, b, want in zip(v, g, wanted, strict=False)]
        to_z0 = [torch.zeros_like(leaf) for leaf in ctx.inputs[2 * size :]]
        return (None, None, None, *g, *to_z, *to_z0)


class LinearSolve(Function):
    """v ↦ Mᵀv with M = (I − J)⁻¹ held constant: linear, so differentiable to every order."""

    @staticmethod
    @outside_compile
    def forward(ctx: Any, solve: Solve, tangent: bool, *v: Tensor) -> Leaves:
        """Mᵀv or, tangent, Mv."""
        ctx.solve, ctx.tangent = solve, tangent
        return solve(v, tangent)

    @staticmethod
    @outside_compile
    def backward(ctx: Any, *w: Tensor) -> Any:
        """The tangent solve."""
        return (None, None, *LinearSolve.apply(ctx.solve, not ctx.tangent, *w))


class Guard(Function):
    """The first ``size`` tensors, which can be differentiated ``depth`` times and then refuse.

    The further tensors tie it to all that f depends on. Without them autograd would pass by the
    guard where the missing term is the only dependence, and the second derivative would be wrong
    without a word.
    """

    @staticmethod
    @outside_compile
    def forward(ctx: Any, depth: int, order: int, size: int, *tensors: Tensor) -> Leaves:
        """The tensors, unchanged."""
        ctx.depth, ctx.order, ctx.anchors = depth, order, tensors[size:]
        return tuple(leaf.view_as(leaf) for leaf in tensors[:size])

    @staticmethod
    @outside_compile
    def backward(ctx: Any, *w: Tensor) -> Any:
        """Pass on, one deeper, or raise."""
        if ctx.depth == 0:
            raise DerivativeError(
                f"expected at most {ctx.order} derivative(s) of this fixed point, received a "
                f"request for more, which Implicit(order={ctx.order}) would answer wrongly; pass "
                f"adjoint=Implicit(order={ctx.order + 1}) to fixed_point"
            )
        if torch.is_grad_enabled():
            w = Guard.apply(ctx.depth - 1, ctx.order, len(w), *w, *_anchors(ctx.anchors))
        return (None, None, None, *w, *[torch.zeros_like(leaf) for leaf in ctx.anchors])


def depends_on_others(outputs: Leaves, inputs: Leaves) -> bool:
    """Whether the graph of the outputs ends in a tensor that is not one of the inputs."""
    own = {id(leaf) for leaf in inputs}
    stack = [leaf.grad_fn for leaf in outputs if leaf.grad_fn is not None]
    if any(leaf.grad_fn is None and leaf.requires_grad and id(leaf) not in own for leaf in outputs):
        return True
    seen = set(stack)
    while stack:
        node = stack.pop()
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) not in own:
            return True
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                stack.append(following)
    return False


def _anchors(tensors: tuple[Tensor, ...]) -> list[Tensor]:
    return [leaf for leaf in tensors if leaf.requires_grad]
