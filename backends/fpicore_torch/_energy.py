"""The gradient of an energy inside f."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

import fpicore
from fpicore import Leaves

from ._levels import functions_transformed


def energy_gradient(energy: Callable[..., Any], z: Leaves, args: tuple[Any, ...]) -> Leaves:
    """∂/∂z of the sum of energy(z, *args), recorded where the caller records.

    By plain autograd; inside torch.func transforms, which hide the graph from it, by theirs.
    """
    if functions_transformed():
        return torch.func.grad(lambda leaves: energy(leaves, *args).sum())(z)
    recorded, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        if inference:  # autograd does not save inference tensors
            args = fpicore.map_leaves(args, _is_inference, Tensor.clone)
        found = [_variable(leaf) for leaf in z]
        total = energy(tuple([leaf for leaf, _ in found]), *args).sum()
        variables = tuple([variable for _, variable in found])
        if not total.requires_grad:
            return tuple([torch.zeros_like(leaf) for leaf in z])
        return torch.autograd.grad(
            total, variables, create_graph=recorded, allow_unused=True, materialize_grads=True
        )


def _variable(leaf: Tensor) -> tuple[Tensor, Tensor]:
    """The leaf, and what to differentiate with respect to: this use of it and no other."""
    if forward_ad._current_level >= 0:  # no alias keeps the tangent and can require a gradient
        shift = torch.zeros_like(leaf, requires_grad=True)
        return leaf + shift, shift
    own = leaf.view_as(leaf) if leaf.requires_grad else leaf.detach()
    if own.is_inference():
        own = own.clone()
    own = own if own.requires_grad else own.requires_grad_()
    return own, own


def _is_inference(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_inference()
