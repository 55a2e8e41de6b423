"""f linearised at one z, for figures of its Jacobian."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from fpicore import InputError, Leaves

from ._ops import JaxOps


class JaxLinear:
    """`fpicore.Linear` by jax.vjp."""

    def __init__(self, f: Callable[[Leaves], Leaves], z: Leaves, ops: JaxOps) -> None:
        """Evaluate f at z."""
        self.ops, self._leaves = ops, z
        _, self._pull = jax.vjp(f, z)

    def pull(self, g: Leaves) -> Leaves:
        """Jᵀg."""
        return self._pull(g)[0]

    def signs(self, count: int, rng: Any) -> list[Leaves]:
        """From a key, as JAX has no global generator."""
        if rng is None:
            raise InputError(
                "expected rng=jax.random.key(...), as JAX draws nothing without a key, received "
                "None; pass a fresh key in each step, or a list of states as probes"
            )
        try:
            keys = iter(jax.random.split(rng, count * len(self._leaves)))
        except TypeError as error:
            raise InputError(f"expected rng to be a JAX key, received {rng!r}: {error}") from None
        return [tuple(_signs(leaf, next(keys)) for leaf in self._leaves) for _ in range(count)]

    def fill(self, formula: Callable[[Any], Any]) -> Leaves:
        """Counted in uint32, as 64 bits may be off."""
        filled, first = [], 1
        for leaf in self._leaves:
            shape, parts = leaf.shape[self.ops.batch_ndim :], []
            for _ in range(2 if jnp.iscomplexobj(leaf) else 1):
                i = jnp.arange(math.prod(shape), dtype=jnp.uint32) + jnp.uint32(first)
                parts.append(formula(i).astype(self.ops.dtype).reshape(shape) / 2.0**31)
                first += math.prod(shape)
            filled.append(jnp.broadcast_to(_joined(parts, leaf.dtype), leaf.shape))
        return tuple(filled)


def _signs(leaf: Array, key: Array) -> Array:
    if not jnp.iscomplexobj(leaf):
        return jax.random.rademacher(key, leaf.shape, leaf.dtype)
    parts = jax.random.rademacher(key, (2, *leaf.shape), leaf.real.dtype) / math.sqrt(2)
    return _joined(list(parts), leaf.dtype)


def _joined(parts: list[Array], dtype: Any) -> Array:
    """A real array, or the complex one of two parts."""
    return (parts[0] if len(parts) == 1 else jax.lax.complex(*parts)).astype(dtype)
