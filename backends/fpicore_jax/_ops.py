"""Ops on JAX arrays. A history is one array of shape batch + (slots,) + entries of a system."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer

from fpicore import Branch, Process

from ._lanes import anywhere, only_mapped
from ._varying import Axes, vary

_EXACT = lax.Precision.HIGHEST
"""No shortcut through TF32 or bfloat16 on an accelerator: Gram matrices cannot afford it."""


class JaxNumbers:
    """jax.numpy under the names that the core uses."""

    where = staticmethod(jnp.where)
    any = staticmethod(jnp.any)
    all = staticmethod(jnp.all)
    logical_not = staticmethod(jnp.logical_not)
    isfinite = staticmethod(jnp.isfinite)
    sqrt = staticmethod(jnp.sqrt)
    abs = staticmethod(jnp.abs)
    reciprocal = staticmethod(jnp.reciprocal)
    maximum = staticmethod(jnp.maximum)
    arange = staticmethod(jnp.arange)
    eye = staticmethod(jnp.eye)
    sum = staticmethod(partial(jnp.sum, axis=-1))
    max = staticmethod(partial(jnp.max, axis=-1))
    transpose = staticmethod(jnp.matrix_transpose)
    matvec = staticmethod(partial(jnp.einsum, "...ij,...j->...i", precision=_EXACT))
    zeros_like = staticmethod(jnp.zeros_like)

    @staticmethod
    def indicator(mask: Array) -> Array:
        """1 or 0, in whatever dtype it meets."""
        return jnp.where(mask, 1.0, 0.0)

    roll = staticmethod(partial(jnp.roll, axis=-1))


class JaxJoints:
    """jax.numpy under the names that packing uses."""

    fused = True
    reshape = staticmethod(jnp.reshape)
    concatenate = staticmethod(partial(jnp.concatenate, axis=-1))

    @staticmethod
    def split(x: Array, sizes: Sequence[int]) -> Sequence[Array]:
        """Along the last axis."""
        return lax.split(x, sizes, axis=x.ndim - 1)


@dataclass(frozen=True)
class JaxOps:
    """Leaves and numbers are JAX arrays; hashable, so that compiled steps can be cached on it."""

    batch_ndim: int
    eps: float
    dtype: Any
    """Of the numbers."""
    staged: bool
    """Whether the loop must be staged because something in it is a tracer."""
    axes: Axes = ()
    """Of a mesh under shard_map, along which the state varies."""
    traced = True
    roomy = False
    xp = JaxNumbers

    def dot(self, a: Array, b: Array) -> Array:
        """Per system Re Σ conj(a)·b."""
        return self._real(jnp.sum(jnp.conj(self._wide(a)) * self._wide(b), axis=self._inner(a)))

    def norm(self, x: tuple[Array, ...]) -> Array | None:
        """None: there is no float64 unless the whole process has it."""
        return None

    def peak(self, a: Array) -> Array:
        """Per system max |a|."""
        return jnp.max(jnp.abs(a), axis=self._inner(a)).astype(self.dtype)

    def scale(self, s: Array, a: Array) -> Array:
        """s·a."""
        wide = self._wide(a)
        return (self._spread(s, wide) * wide).astype(a.dtype)

    def select(self, mask: Array, a: Array, b: Array) -> Array:
        """a or b by system."""
        return jnp.where(self._spread(mask, a), a, b)

    def history(self, leaf: Array, length: int) -> Array:
        """Zeros, in float32 if the leaf is narrower."""
        flat, b = self._flat(leaf), self.batch_ndim
        shape = (*flat.shape[:b], length, *flat.shape[b:])
        return vary(jnp.zeros(shape, self._wide(leaf).dtype), self.axes)

    def store(self, history: Array, slot: Array, leaf: Array) -> Array:
        """Overwrite a slot."""
        flat = self._flat(leaf).astype(history.dtype)
        return lax.dynamic_update_index_in_dim(
            history, flat, slot.astype(jnp.int32), self.batch_ndim
        )

    def difference(self, history: Any, slot: Array, a: Array, b: Array) -> Array:
        """a − b; XLA sees to where."""
        return a - b

    def project(self, history: Array, leaf: Array) -> Array:
        """Products of every slot with leaf.

        By XLA's dot products, which read the leaf once. On a CPU the history must be laid out as
        they want it: what is reshaped or transposed as it changes in the loop is copied.
        """
        slots, flat = jnp.conj(history), self._flat(leaf).astype(history.dtype)
        if flat.ndim == self.batch_ndim + 1:
            return self._real(jnp.einsum("...ki,...i->...k", slots, flat, precision=_EXACT))
        return self._real(jnp.sum(slots * flat, axis=tuple(range(1, history.ndim))))

    def combine(self, weights: Array, history: Array, like: Array) -> Array:
        """Weighted sum of the slots, one fused pass."""
        coefficients = weights.astype(history.real.dtype)

        def term(i: int) -> Array:
            slot = lax.index_in_dim(history, i, self.batch_ndim, keepdims=False)
            return self._spread(coefficients[..., i], slot) * slot

        total = reduce(add, map(term, range(history.shape[self.batch_ndim])))
        return total.astype(like.dtype).reshape(like.shape)

    def numbers(self, leaf: Array, fill: float, shape: tuple[int, ...] = ()) -> Array:
        """A filled array."""
        full = jnp.full if self.staged else _full
        block = full((*leaf.shape[: self.batch_ndim], *shape), fill, self.dtype)
        return vary(block, self.axes)

    def scalar(self, value: Any) -> Array:
        """One number."""
        return vary(jnp.asarray(value, self.dtype), self.axes)

    def tell(self, receive: Callable[..., Any], numbers: tuple[Array, ...]) -> None:
        """At once outside of traces, else by a callback, for each sample of a vmap."""

        def tell(*values: Any) -> None:
            receive(*[np.asarray(x) if x.ndim else x.item() for x in map(np.asarray, values)])

        if any(isinstance(x, Tracer) for x in numbers):
            jax.debug.callback(tell, *numbers)
        else:
            tell(*numbers)

    def solve(self, matrix: Array, right: Array) -> Array:
        """Elimination without pivots, the batch along the last axis.

        XLA's own solver calls LAPACK once a system: for 32 systems of 6 that is 50 times slower.
        """
        right = jnp.broadcast_to(right.astype(matrix.dtype), matrix.shape[:-1])
        rows = jnp.concatenate([matrix, right[..., None]], axis=-1)
        rows = jnp.moveaxis(rows, (-2, -1), (0, 1))
        here = jnp.arange(rows.shape[0]).reshape(-1, *(1,) * (rows.ndim - 1))

        def eliminate(j: Array, rows: Array) -> Array:
            pivot = lax.dynamic_index_in_dim(rows, j, 0, keepdims=False)
            pivot = pivot / lax.dynamic_index_in_dim(pivot, j, 0, keepdims=False)
            column = lax.dynamic_index_in_dim(rows, j, 1)
            return jnp.where(here == j, pivot, rows - column * pivot)

        return jnp.moveaxis(lax.fori_loop(0, rows.shape[0], eliminate, rows)[:, -1], 0, -1)

    def cut(self, tree: Any, keep: Array | None = None) -> Any:
        """As it is: the loop is not differentiated."""
        return tree

    def cond(self, predicate: Array, true: Branch, false: Branch, wait: bool = False) -> Any:
        """lax.cond under a trace: outside of it every call would compile its branches anew."""
        if not isinstance(predicate, Tracer):
            return true() if predicate else false()
        if only_mapped():
            if not anywhere(~predicate):
                return true()
            if not anywhere(predicate):
                return false()
        return lax.cond(predicate, true, false)

    def loop(self, f: Callable[[Any], Any], process: Process, carry: Any) -> Any:
        """lax.while_loop under a trace; else Python's while around a compiled update.

        The latter is for what is no `Program`, as under an un-jitted vmap: a staged loop would be
        compiled anew in each call, because f is new to it; the update without f is compiled once
        for each solver and state shape. A lane that has stopped stands still until the last has.
        """
        if self.staged:
            return lax.while_loop(
                partial(self._goes_on, process),
                lambda c: process.update(self, c, f(c.z)),
                carry,
            )
        going = _active(self, process, carry)
        while anywhere(going):
            update = _update_lane if isinstance(going, Tracer) else _update
            carry, going = update(self, process, carry, f(carry.z))
        return carry

    def report(self, number: Array, integer: bool = False) -> Array:
        """As it is, or as int32."""
        return number.astype(jnp.int32) if integer else number

    def _goes_on(self, process: Process, carry: Any) -> Array:
        """All devices of a shard_map until the last: f and derivatives may hold collectives."""
        active = process.active(self, carry)
        return lax.pmax(active.astype(jnp.int32), self.axes) > 0 if self.axes else active

    def _flat(self, leaf: Array) -> Array:
        """The leaf with the entries of a system along one axis.

        Not of one system of several axes: it may be sharded along any of them.
        """
        if not self.batch_ndim and leaf.size > max(leaf.shape, default=1):
            return leaf
        return leaf.reshape(*leaf.shape[: self.batch_ndim], -1)

    def _inner(self, a: Array) -> tuple[int, ...]:
        return tuple(range(self.batch_ndim, a.ndim))

    def _wide(self, a: Array) -> Array:
        return a.astype(jnp.promote_types(a.dtype, jnp.float32))

    def _real(self, x: Array) -> Array:
        return x.real.astype(self.dtype)

    def _spread(self, s: Array, a: Array) -> Array:
        column = s.reshape(*s.shape, *(1,) * (a.ndim - self.batch_ndim))
        if column.dtype == bool:
            return column
        return column.astype(jnp.promote_types(a.real.dtype, jnp.float32))


def _full(shape: tuple[int, ...], fill: float, dtype: Any) -> Array:
    """By way of NumPy, which outside of a trace takes a third of the time."""
    return jnp.asarray(np.full(shape, fill, dtype))


@partial(jax.jit, static_argnums=(0, 1))
def _active(ops: JaxOps, process: Process, carry: Any) -> Array:
    return process.active(ops, carry)


@partial(jax.jit, static_argnums=(0, 1))
def _update(ops: JaxOps, process: Process, carry: Any, f: Any) -> tuple[Any, Array]:
    moved = process.update(ops, carry, f)
    return moved, process.active(ops, moved)


@partial(jax.jit, static_argnums=(0, 1))
def _update_lane(ops: JaxOps, process: Process, carry: Any, f: Any) -> tuple[Any, Array]:
    going, moved = process.active(ops, carry), process.update(ops, carry, f)
    moved = jax.tree.map(lambda new, old: jnp.where(going, new, old), moved, carry)
    return moved, process.active(ops, moved)
