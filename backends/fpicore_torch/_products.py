"""Products with Jacobians."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from fpicore import Leaves

from ._levels import transforms_active

_engine: Callable[..., Any] | None = None
with suppress(ImportError):  # private, so it may go
    # What torch.autograd.grad calls, without its checks: a quarter of a small product.
    from torch.autograd.graph import _engine_run_backward as _engine


class Linearization:
    """f at z*, recorded once; every product of the adjoint solve walks the same graph."""

    def __init__(self, outputs: Leaves, inputs: Leaves) -> None:
        """Keep f(z) and z."""
        self.outputs, self.inputs = outputs, inputs
        self._recorded = all(leaf.requires_grad for leaf in outputs)
        self._pulled: tuple[Leaves, Leaves] | None = None

    def vjp(self, g: Leaves, recorded: bool = False) -> Leaves:
        """Jᵀg; with ``recorded``, autograd can differentiate it."""
        if recorded or not self._recorded:
            return pull(self.outputs, self.inputs, g, create_graph=recorded)
        found = _walk(self.outputs, self.inputs, g)
        if any([x is None for x in found]):  # noqa: C419
            pairs = zip(found, self.inputs, strict=True)
            return tuple([torch.zeros_like(z) if x is None else x for x, z in pairs])
        return found

    def jvp(self, u: Leaves) -> Leaves:
        """Ju, as the derivative of g ↦ Jᵀg along u; that map is recorded once as well."""
        if self._pulled is None:
            with torch.enable_grad():
                g = tuple([torch.zeros_like(x, requires_grad=True) for x in self.outputs])
                self._pulled = g, pull(self.outputs, self.inputs, g, create_graph=True)
        g, pulled = self._pulled
        return pull(pulled, g, u)


def _walk(outputs: Leaves, inputs: Leaves, g: Leaves) -> Any:
    """The cotangents of inputs, on a graph that is kept; None where it does not reach."""
    if _engine is None:
        return torch.autograd.grad(outputs, inputs, g, retain_graph=True, allow_unused=True)
    keep, create, unused = True, False, True
    return _engine(outputs, g, keep, create, inputs, unused, accumulate_grad=False)


def pull(outputs: Leaves, inputs: Leaves, cotangents: Leaves, create_graph: bool = False) -> Leaves:
    """The cotangents of inputs, on a graph that is kept; zeros where it does not reach."""
    kept = [i for i, leaf in enumerate(outputs) if leaf.requires_grad]
    if not kept:
        return tuple([torch.zeros_like(leaf) for leaf in inputs])
    return torch.autograd.grad(
        [outputs[i] for i in kept],
        inputs,
        [cotangents[i] for i in kept],
        retain_graph=True,
        create_graph=create_graph,
        allow_unused=True,
        materialize_grads=True,
    )


def vjp(f: Callable[..., Leaves], *primals: Tensor) -> tuple[Leaves, Callable[[Any], Leaves]]:
    """f(*primals) and its pull-back, both differentiable, under whatever transform is active.

    Plain autograd serves outside of transforms: it also differentiates what torch.func cannot,
    such as checkpointed functions and custom ones without ``setup_context``.
    """
    if transforms_active():
        functional: Any = torch.func.vjp  # its type does not know that it returns a pair
        return functional(f, *primals)
    recording = torch.is_grad_enabled()
    with torch.enable_grad():
        # Aliases, independent of each other even where one primal was computed from another.
        own = tuple(
            leaf.view_as(leaf)
            if recording and leaf.requires_grad
            else leaf.detach().requires_grad_()
            for leaf in primals
        )
        outputs = f(*own)
    return outputs, lambda cotangents: pull(outputs, own, cotangents, torch.is_grad_enabled())


def push(f: Callable[..., Leaves], primals: Leaves, tangents: Leaves) -> Leaves:
    """The derivative of f along tangents, as the transpose of its transpose.

    Unlike torch.func.jvp that may also be done inside forward-mode AD.
    """
    outputs, transpose = vjp(f, *primals)
    zeros = tuple(torch.zeros_like(leaf) for leaf in outputs)
    return vjp(lambda *cotangents: transpose(cotangents), *zeros)[1](tuple(tangents))
