"""What is known of the transforms under way. PyTorch has no public names for it: all are here."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from threading import Lock
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad

from fpicore import DerivativeError, Leaves

_private: Any = torch._C
_functorch: Any = _private._functorch
_torch: Any = torch


def transforms_active() -> bool:
    """Whether a torch.func transform or forward-mode AD is under way."""
    return functions_transformed() or forward_ad._current_level >= 0


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


def outside_transforms() -> AbstractContextManager[Any]:
    """For plain tensors: what is made of them is plain as well, whatever is under way."""
    return _private._DisableFuncTorch()


def traced_as_one_graph() -> bool:
    """Called by dynamo as it traces: whether to one graph, with nothing else around the call."""
    from torch._dynamo.symbolic_convert import InstructionTranslator

    translator: Any = InstructionTranslator.current_tx()
    root = translator.output.root_tx
    whole = root.one_graph or getattr(translator, "error_on_graph_break", False)
    around = transforms_active() or _private._is_any_autocast_enabled()
    return bool(whole) and not (root.export or around)


def compiled_modules() -> tuple[type, ...]:
    """The type of what torch.compile makes of a module, whose original is ``_orig_mod``."""
    loaded: Any = sys.modules.get("torch._dynamo.eval_frame")
    return () if loaded is None else (loaded.OptimizedModule,)


def pending() -> list[str]:
    """Called by dynamo as it traces: what has been assigned to, which it does after the graph.

    Parameters and buffers do not count: the graph is given what they are by then.
    """
    from torch._dynamo.symbolic_convert import InstructionTranslator

    translator: Any = InstructionTranslator.current_tx()
    effects = translator.output.side_effects
    changed = [x for x in effects.id_to_variable.values() if effects.is_modified(x)]
    old = [x for x in changed if type(x.mutation_type).__name__.endswith("Existing")]
    names = [getattr(x.source, "name", type(x).__name__) for x in old]
    names = [str(name() if callable(name) else name) for name in names]
    return [name for name in names if not name.endswith(("_parameters", "_buffers"))]


class _Eagerly:
    """Functions that torch.compile made run as written: they would trace the modes around them.

    The stance is one for all threads: restored by the last to leave, or it would stay for good.
    """

    def __init__(self) -> None:
        self._lock, self._count, self._stance = Lock(), 0, cast(Any, None)
        self.turn = 0
        """How often any thread has left."""

    @property
    def on(self) -> bool:
        """Whether any thread is within."""
        return self._count > 0

    def __enter__(self) -> None:
        with self._lock:
            if self._count == 0:
                self._stance = torch.compiler.set_stance("force_eager")
                self._stance.__enter__()
            self._count += 1

    def __exit__(self, *error: Any) -> None:
        with self._lock:
            self._count, self.turn = self._count - 1, self.turn + 1
            if self._count == 0:
                self._stance.__exit__(*error)


eagerly = _Eagerly()


def _keys() -> tuple[Any, Any]:
    return _private._dispatch_tls_local_include_set(), _private._dispatch_tls_local_exclude_set()


with ThreadPoolExecutor(1) as _pool:  # a new thread is in no mode
    _KEYS = _pool.submit(_keys).result()


def as_outside() -> AbstractContextManager[Any]:
    """Within a custom operation: dispatch as eager code does, autograd included."""
    return _private._ForceDispatchKeyGuard(*_KEYS)


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


def each_sample(function: Callable[[Leaves], Leaves], tensors: Leaves) -> Leaves | None:
    """The function of one sample of PyTorch's older vmap after the other; None outside of it."""
    batched = [leaf for leaf in tensors if _functorch.is_legacy_batchedtensor(leaf)]
    if not batched:
        return None
    level = _private._vmapmode_increment_nesting() - 1
    _private._vmapmode_decrement_nesting()
    if level != 1:
        refuse_legacy_vmap(tensors)
    size = len(_torch._remove_batch_dim(batched[0], level, 1, 0))
    rows = [_torch._remove_batch_dim(leaf, level, size, 0).unbind() for leaf in tensors]
    found = [function(sample) for sample in zip(*rows, strict=True)]
    return tuple(
        [_torch._add_batch_dim(torch.stack(x), 0, level) for x in zip(*found, strict=True)]
    )


def refuse_legacy_vmap(tensors: Leaves) -> None:
    """Raise where ``is_grads_batched`` or ``vectorize=True`` want more than `each_sample`."""
    if any(_functorch.is_legacy_batchedtensor(leaf) for leaf in tensors):
        raise DerivativeError(
            "expected is_grads_batched=True or vectorize=True around a backward pass, received it "
            "around forward mode or with create_graph=True, where its older vmap would have to run "
            "a loop of unknown length; use torch.func.jacrev, torch.func.jacfwd or "
            "torch.func.vmap, or vectorize=False"
        )


def refuse_tracing() -> None:
    """Raise inside make_fx, by which torch.func.linearize works."""
    proxies: Any = sys.modules.get("torch.fx.experimental.proxy_tensor")
    if proxies is not None and proxies.get_proxy_mode() is not None:
        raise DerivativeError(
            "expected eager PyTorch, received a trace (make_fx, torch.func.linearize), which would "
            "freeze the number of steps; use torch.func.jvp, or torch.func.vjp for the transpose"
        )
