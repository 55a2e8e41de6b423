"""f linearised at one z, for figures of its Jacobian."""

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from fpicore import InputError, Leaves, Problem

from ._autodiff import Linearization


class TensorFlowLinear:
    """`fpicore.Linear` by a tape, which the caller's own tapes look on."""

    def __init__(self, problem: Problem, ops: Any, recorded: bool) -> None:
        """Record f at a copy of z: f may close over z itself, which is no argument then."""
        self.ops = ops
        copy = tf.identity if recorded else tf.stop_gradient
        self._leaves = tuple(copy(leaf) for leaf in problem.leaves)
        self._line = Linearization(problem.map, self._leaves)

    def pull(self, g: Leaves) -> Leaves:
        """Jᵀg, conjugated where it is complex."""
        return self._line.vjp(g)

    def signs(self, count: int, rng: Any) -> list[Leaves]:
        """From the global generator, a tf.random.Generator, or a stateless seed."""
        draw = _source(rng, count * len(self._leaves) * 2)
        return [tuple(_signs(leaf, draw) for leaf in self._leaves) for _ in range(count)]

    def fill(self, formula: Callable[[Any], Any]) -> Leaves:
        """Counted in int64, divided in float64."""
        filled, first = [], tf.constant(1, tf.int64)
        for leaf in self._leaves:
            shape = tf.shape(leaf)[self.ops.batch_ndim :]
            count = tf.reduce_prod(tf.cast(shape, tf.int64))
            parts = []
            for _ in range(2 if leaf.dtype.is_complex else 1):
                values = tf.cast(formula(tf.range(first, first + count)), tf.float64) / 2.0**31
                parts.append(tf.reshape(values, shape))
                first = first + count
            values = _joined(parts, leaf.dtype)
            filled.append(tf.ensure_shape(tf.broadcast_to(values, tf.shape(leaf)), leaf.shape))
        return tuple(filled)


def _signs(leaf: Any, draw: Callable[[Any], Any]) -> Any:
    parts = [
        tf.cast(2 * draw(tf.shape(leaf)) - 1, tf.float64)
        for _ in range(2 if leaf.dtype.is_complex else 1)
    ]
    signs = _joined([part / math.sqrt(len(parts)) for part in parts], leaf.dtype)
    return tf.ensure_shape(signs, leaf.shape)


def _joined(parts: list[Any], dtype: Any) -> Any:
    """A real tensor, or the complex one of two parts."""
    return tf.cast(parts[0] if len(parts) == 1 else tf.complex(*parts), dtype)


def _source(rng: Any, count: int) -> Callable[[Any], Any]:
    """A function from a shape to random bits."""
    if rng is None:
        return lambda shape: tf.random.uniform(shape, maxval=2, dtype=tf.int32)
    if isinstance(rng, tf.random.Generator):
        return lambda shape: rng.uniform(shape, maxval=2, dtype=tf.int32)
    try:
        seed = tf.convert_to_tensor(rng)
    except (TypeError, ValueError):
        seed = None
    if seed is None or not seed.dtype.is_integer or tuple(seed.shape) != (2,):
        raise InputError(
            "expected rng to be a tf.random.Generator, two integers that seed stateless numbers, "
            f"or None for the global generator; received {rng!r}"
        )
    seeds = iter(tf.unstack(tf.random.split(seed, count)))
    return lambda shape: tf.random.stateless_uniform(
        shape, next(seeds), minval=0, maxval=2, dtype=tf.int32
    )
