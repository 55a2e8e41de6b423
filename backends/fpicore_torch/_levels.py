"""What is known of the transforms under way. PyTorch has no public names for it: all are here."""

import sys
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from fpicore import DerivativeError, Leaves

_private: Any = torch._C
_functorch: Any = _private._functorch


def transforms_active() -> bool:
    """Whether a torch.func transform or forward-mode AD is under way."""
    return _private._are_functorch_transforms_active() or forward_ad._current_level >= 0


def functions_transformed() -> bool:
    """Whether a torch.func transform is under way."""
    return _private._are_functorch_transforms_active()


def refuse_transforms(what: str) -> None:
    """Raise under a torch.func transform or forward-mode AD."""
    if transforms_active():
        raise DerivativeError(
            f"expected plain autograd around {what}, received a torch.func transform or "
            "forward-mode AD, which it does not support; use torch.autograd.grad"
        )


def is_wrapped(tensor: Tensor) -> bool:
    """Whether a torch.func transform has put its own tensor around this one."""
    return _functorch.is_functorch_wrapped_tensor(tensor)


def is_batched(tensor: Tensor) -> bool:
    """Whether one of the transforms around this tensor is vmap."""
    while is_wrapped(tensor):
        if _functorch.is_batchedtensor(tensor):
            return True
        tensor = _functorch.get_unwrapped(tensor)
    return False


def moves(tensor: Tensor) -> bool:
    """Whether a derivative or a batch may come in through this tensor."""
    if tensor.requires_grad or is_wrapped(tensor):
        return True
    return forward_ad._current_level >= 0 and forward_ad.unpack_dual(tensor).tangent is not None


def alive(tensors: Leaves) -> Leaves:
    """Without the wrappers of transforms that have ended: a vjp may be called after its own."""
    return tuple([_functorch.unwrap_if_dead(leaf) for leaf in tensors])


def within_jvp() -> AbstractContextManager[Any]:
    """Let outer transforms see the tangents that a jvp rule computes.

    Without it nested forward mode silently gives 0 (pytorch#197867).
    """
    return forward_ad._set_fwd_grad_enabled(_private._are_functorch_transforms_active())


def primal(tensor: Tensor) -> Tensor:
    """Without the tangent of this very level, which nested forward mode would take for its own."""
    refuse_legacy_vmap((tensor,))
    return forward_ad.unpack_dual(tensor, level=0).primal.contiguous()


def refuse_legacy_vmap(tensors: Leaves) -> None:
    """Raise for ``is_grads_batched`` and ``vectorize=True``."""
    if any(_functorch.is_legacy_batchedtensor(leaf) for leaf in tensors):
        raise DerivativeError(
            "expected one derivative at a time, received is_grads_batched=True or vectorize=True, "
            "whose older vmap cannot run a loop of unknown length; use torch.func.jacrev, "
            "torch.func.jacfwd or torch.func.vmap, or vectorize=False"
        )


def refuse_tracing() -> None:
    """Raise inside make_fx, by which torch.func.linearize works."""
    proxies: Any = sys.modules.get("torch.fx.experimental.proxy_tensor")
    if proxies is not None and proxies.get_proxy_mode() is not None:
        raise DerivativeError(
            "expected eager PyTorch, received a trace (make_fx, torch.func.linearize), which would "
            "freeze the number of steps; use torch.func.jvp, or torch.func.vjp for the transpose"
        )
