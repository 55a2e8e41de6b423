"""The loop of an unrolled solve, which JAX differentiates as it runs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from fpicore import Process

from ._ops import JaxOps


class Slots(NamedTuple):
    """A history, told apart from numbers."""

    array: Array


@dataclass(frozen=True)
class JaxRecordedOps(JaxOps):
    """A loop of fixed length, whose steps do nothing once all systems have stopped."""

    segment: int | None = None
    """Steps that are recomputed as one in the backward pass; None keeps them all."""

    def history(self, leaf: Array, length: int) -> Any:
        """Zeros."""
        return Slots(super().history(leaf, length))

    def store(self, history: Any, slot: Array, leaf: Array) -> Any:
        """Overwrite a slot."""
        return Slots(super().store(history.array, slot, leaf))

    def project(self, history: Any, leaf: Array) -> Array:
        """Products of every slot with leaf."""
        return super().project(history.array, leaf)

    def combine(self, weights: Array, history: Any, like: Array) -> Array:
        """Weighted sum of the slots."""
        return super().combine(weights, history.array, like)

    def cut(self, tree: Any, keep: Array | None = None) -> Any:
        """By lax.stop_gradient."""
        if keep is None:
            return lax.stop_gradient(tree)

        def one(x: Any) -> Any:
            if isinstance(x, Slots):
                spread = self._spread(keep, x.array)
                return Slots(jnp.where(spread, x.array, lax.stop_gradient(x.array)))
            if x.ndim < self.batch_ndim:
                return x
            return jnp.where(self._spread(keep, x), x, lax.stop_gradient(x))

        return jax.tree.map(one, tree, is_leaf=lambda x: isinstance(x, Slots))

    def loop(self, f: Callable[[Any], Any], process: Process, carry: Any) -> Any:
        """lax.scan, of checkpointed ones if there are segments."""

        def step(c: Any, _: None) -> Any:
            def update(c: Any) -> Any:
                return process.update(self, c, f(c.z))

            return lax.cond(self._goes_on(process, c), update, lambda c: c, c), None

        if self.segment is None:
            return lax.scan(step, carry, length=process.limit)[0]

        @jax.checkpoint
        def stretch(c: Any, _: None) -> Any:
            return lax.scan(step, c, length=self.segment)[0], None

        return lax.scan(stretch, carry, length=-(-process.limit // self.segment))[0]
