"""Functions on numbers in a graph."""

from typing import Any

import tensorflow as tf

Tensor = Any


class TensorFlowNumbers:
    """TensorFlow under the names that the core uses, in one dtype."""

    logical_not = staticmethod(tf.logical_not)
    isfinite = staticmethod(tf.math.is_finite)
    sqrt = staticmethod(tf.sqrt)
    abs = staticmethod(tf.abs)
    reciprocal = staticmethod(tf.math.reciprocal)
    maximum = staticmethod(tf.maximum)
    transpose = staticmethod(tf.linalg.matrix_transpose)
    matvec = staticmethod(tf.linalg.matvec)
    zeros_like = staticmethod(tf.zeros_like)

    def __init__(self, dtype: Any) -> None:
        """Constants are made in ``dtype``; TensorFlow promotes nothing."""
        self._dtype = dtype

    @staticmethod
    def any(mask: Tensor) -> Tensor:
        """Itself where it is one truth value: a reduction is two operations in the graph."""
        return mask if mask.shape.rank == 0 else tf.reduce_any(mask)

    @staticmethod
    def all(mask: Tensor) -> Tensor:
        """As ``any``."""
        return mask if mask.shape.rank == 0 else tf.reduce_all(mask)

    def where(self, mask: Tensor, a: Any, b: Any) -> Tensor:
        """tf.where that takes Python numbers.

        By Select where there is nothing to broadcast: tf.where looks at that each time it runs,
        which for a number takes it 0.8 microseconds in a graph, and Select 0.2. A mask of many is
        left alone, as tf.vectorized_map gives Select of an empty one another shape.
        """
        if not tf.is_tensor(a):
            a = tf.constant(a, self._dtype)
        if not tf.is_tensor(b):
            b = tf.constant(b, self._dtype)
        if mask.shape.rank == 0 and a.dtype == b.dtype and _same_known_shape(a, b):
            return tf.raw_ops.Select(condition=mask, x=a, y=b)
        return tf.where(mask, a, b)

    def indicator(self, mask: Tensor) -> Tensor:
        """1 or 0."""
        return tf.cast(mask, self._dtype)

    def arange(self, length: int) -> Tensor:
        """0 … length − 1."""
        return tf.range(length, dtype=self._dtype)

    def eye(self, length: int) -> Tensor:
        """Identity."""
        return tf.eye(length, dtype=self._dtype)

    def sum(self, x: Tensor) -> Tensor:
        """Over the last axis."""
        return tf.reduce_sum(x, axis=-1)

    def max(self, x: Tensor) -> Tensor:
        """Over the last axis."""
        return tf.reduce_max(x, axis=-1)

    def roll(self, x: Tensor, places: int) -> Tensor:
        """Along the last axis."""
        return tf.roll(x, places, -1)


def _same_known_shape(a: Tensor, b: Tensor) -> bool:
    return a.shape.is_fully_defined() and a.shape == b.shape
