"""Ops that autograd can follow: nothing is written in place and nothing leaves the tensors."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from fpicore import Branch, DerivativeError, InputError, Process, map_leaves

from ._device import TorchDeviceOps, chosen
from ._evaluation import agree
from ._levels import is_batched, is_wrapped


class AnyTrue(Function):
    """A flag, or under vmap whether that of any sample is set: which may steer Python."""

    @staticmethod
    def forward(flag: Tensor) -> Tensor:
        """The flag."""
        return flag.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """A flag has no derivative."""
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
        """One flag for all samples."""
        return AnyTrue.apply(inputs[0].any(in_dims[0])), None


def _compared(stretch: Callable[[Any, int], Any], batch_ndim: int) -> Callable[[Any, int], Any]:
    """The stretch, which raises where its second run ends elsewhere than the first.

    A checkpoint recomputes with whatever f refers to by then.
    """
    before: list[tuple[Tensor, ...]] = []

    def run(carry: Any, most: int) -> Any:
        end = stretch(carry, most)
        here = tuple([leaf.detach() for leaf in end.z])
        if any(is_wrapped(leaf) for leaf in here):
            return end
        # A step may double the rounding of the one before it.
        if before and not agree(here, before[0], batch_ndim, 0.5):
            raise DerivativeError(
                "expected f to give in the backward pass what it gave in the solve, received an f "
                "that gives something else: a parameter or buffer that it reads was written to "
                "since. Take the gradient first, or use Unrolled() without checkpoint"
            )
        before.append(here)
        return end

    return run


def _is_batched(flag: Any) -> bool:
    return isinstance(flag, Tensor) and is_batched(flag)


def _any(flag: Any) -> bool:
    return bool(AnyTrue.apply(flag) if _is_batched(flag) else flag)


class TorchRecordedOps(TorchDeviceOps):
    """For `Unrolled`, on any device; ``segment`` steps are recomputed as one, if given."""

    def __init__(
        self, batch_ndim: int, eps: float, device: torch.device, segment: int | None
    ) -> None:
        """Numbers live on ``device``."""
        super().__init__(batch_ndim, eps, device)
        self._segment = segment

    def history(self, leaf: Tensor, length: int) -> Any:
        """Zeros, one tensor a slot."""
        return (torch.zeros_like(self._wide(leaf)),) * length

    def store(self, history: Any, slot: Any, leaf: Tensor) -> Any:
        """Another tuple."""
        index = int(slot)
        return (*history[:index], self._wide(leaf), *history[index + 1 :])

    def difference(self, history: Any, slot: Any, a: Tensor, b: Tensor) -> Tensor:
        """a − b."""
        return a - b

    def project(self, history: Any, leaf: Tensor) -> Tensor:
        """Products of every slot with leaf."""
        row = self._rows(leaf)
        return torch.stack(
            [self._number(torch.linalg.vecdot(self._rows(slot), row)) for slot in history], -1
        )

    def combine(self, weights: Tensor, history: Any, like: Tensor) -> Tensor:
        """Weighted sum of the slots."""
        parts = [self._spread(weights[..., i], h) * h for i, h in enumerate(history)]
        return torch.stack(parts).sum(0).to(like.dtype)

    def cond(self, predicate: Any, true: Branch, false: Branch, wait: bool = False) -> Any:
        """Python's if; under vmap both, and a choice by sample."""
        if _is_batched(predicate):
            return chosen(predicate, true(), false())
        return true() if predicate else false()

    def cut(self, tree: Any, keep: Tensor | None = None) -> Any:
        """By detaching; a history is a tuple of leaves."""

        def one(x: Tensor) -> Tensor:
            if keep is None or x.ndim < self.batch_ndim or not x.requires_grad:
                return x.detach() if keep is None else x
            return torch.where(self._spread(keep, x), x, x.detach())

        return map_leaves(tree, lambda x: isinstance(x, Tensor), one)

    def loop(self, f: Callable[[Any], Any], process: Process, carry: Any) -> Any:
        """Python's while, in segments if there are any."""

        def stretch(carry: Any, most: int) -> Any:
            while most > 0 and _any(active := process.active(self, carry)):
                new = process.update(self, carry, f(carry.z))
                # Under vmap the samples that have stopped wait for the others.
                carry = chosen(active, new, carry) if _is_batched(active) else new
                most -= 1
            return carry

        if self._segment is None:
            return stretch(carry, process.limit)
        while _any(process.active(self, carry)):
            # To its end, or the comparison there would not be reached.
            with set_checkpoint_early_stop(False):
                compared = _compared(stretch, self.batch_ndim)
                carry = checkpoint(compared, carry, self._segment, use_reentrant=False)
        return carry

    def tell(self, receive: Callable[..., Any], numbers: tuple[Any, ...]) -> None:
        """At once; not under vmap, where there are no values.

        Raises:
            InputError: under vmap.
        """
        if any(map(_is_batched, numbers)):
            raise InputError(
                "expected no callback under torch.func.vmap with Unrolled(), received one; pass "
                "the batch to fixed_point with batch_ndim=1, or use trace=True"
            )
        super().tell(receive, numbers)

    def report(self, number: Any, integer: bool = False) -> Any:
        """Without the graph."""
        shown = super().report(number, integer)
        return shown.detach() if isinstance(shown, Tensor) else shown
