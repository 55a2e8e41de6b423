"""TensorFlow's side of ``fpicore verify``, with the part of the array API that maps use."""

from collections.abc import Callable
from typing import Any, ClassVar

import tensorflow as _tensorflow

import fpicore_tensorflow
from fpicore.verify.arrays import Array, Tree
from fpicore.verify.harness import Entries, Harness, Leaves, Task
from fpicore.verify.probes import Probes

from ._probes import PROBES

tf: Any = _tensorflow  # its modules load lazily, so that type checkers do not see them


class TensorFlowHarness(Harness):
    """A tf.function, eager, or compiled by XLA; gradients by ``tf.GradientTape``."""

    name: ClassVar[str] = "tensorflow"
    modes: ClassVar[tuple[str, ...]] = ("graph", "eager", "xla")
    library: ClassVar[Any] = fpicore_tensorflow
    probes: ClassVar[Probes] = PROBES

    @property
    def namespace(self) -> Any:
        """TensorFlow's functions under the names of the array API."""
        return Namespace()

    def asarray(self, array: Array) -> Any:
        """A constant."""
        return tf.constant(array)

    def to_numpy(self, tensor: Any) -> Array:
        """A copy on the host."""
        return tensor.numpy()

    def compile(self, function: Callable[..., Any], mode: str) -> Callable[..., Any]:
        """A tf.function in the modes graph and xla."""
        if mode == "eager":
            return function
        return tf.function(function, autograph=False, jit_compile=mode == "xla" or None)

    def differentiate(
        self, task: Task, z0: Tree, args: Leaves, data: Tree
    ) -> tuple[Entries, Leaves]:
        """One forward pass under a tape and its gradient."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(args)
            loss, entries = self.objective(task, z0, data)(args)
        zero = tf.UnconnectedGradients.ZERO
        gradients = tape.gradient(loss, list(args), unconnected_gradients=zero)
        return entries, tuple(gradients)


class Namespace:
    """The array API's elementary functions on tensors; Python numbers beside them are fine."""

    bool, int32, int64 = tf.bool, tf.int32, tf.int64
    float32, float64 = tf.float32, tf.float64
    pi, e, inf, nan = 3.141592653589793, 2.718281828459045, float("inf"), float("nan")
    newaxis = None

    def __getattr__(self, name: str) -> Any:
        """Functions that TensorFlow has under the same name, or under one of its own."""
        if name in _SAME.split():
            return getattr(tf.math, name)
        if name in _RENAMED:
            return _RENAMED[name]
        known = sorted({*_SAME.split(), *_RENAMED, *(n for n in dir(type(self)) if n[0] != "_")})
        raise AttributeError(
            f"expected a function of the array API that this adapter of TensorFlow has, received "
            f"xp.{name}; use one of {', '.join(known)}, or give the map per framework, as "
            '{"tensorflow": f, ...} with f(z, *args) in TensorFlow\'s own functions'
        )

    @staticmethod
    def matmul(a: Any, b: Any) -> Any:
        """Matrix product; a vector stands for a row on the left, for a column on the right."""
        if a.shape.rank == 1 and b.shape.rank == 1:
            return tf.reduce_sum(a * b)
        if b.shape.rank == 1:
            return tf.linalg.matvec(a, b)
        if a.shape.rank == 1:
            return tf.linalg.matmul(a[None, :], b)[..., 0, :]
        return tf.linalg.matmul(a, b)

    @staticmethod
    def vecdot(a: Any, b: Any, axis: int = -1) -> Any:
        """Σ a·b along an axis."""
        return tf.reduce_sum(a * b, axis=axis)

    @staticmethod
    def sum(x: Any, axis: Any = None, keepdims: Any = False) -> Any:
        """Sum over axes."""
        return tf.reduce_sum(x, axis=axis, keepdims=keepdims)

    @staticmethod
    def reshape(x: Any, shape: tuple[int, ...]) -> Any:
        """The same entries in another shape."""
        return tf.reshape(x, shape)

    @staticmethod
    def where(condition: Any, a: Any, b: Any) -> Any:
        """Choose by entry; a Python number takes the dtype of the other branch."""
        dtype = next((t.dtype for t in (a, b) if hasattr(t, "dtype")), None)
        return tf.where(condition, tf.convert_to_tensor(a, dtype), tf.convert_to_tensor(b, dtype))

    @staticmethod
    def clip(x: Any, min: Any = None, max: Any = None) -> Any:
        """Limit entries from below, above or both."""
        x = x if min is None else tf.maximum(x, min)
        return x if max is None else tf.minimum(x, max)

    @staticmethod
    def asarray(x: Any, dtype: Any = None) -> Any:
        """A tensor."""
        return tf.convert_to_tensor(x, dtype)


def _reduction(name: str) -> Callable[..., Any]:
    reduce = getattr(tf, f"reduce_{name}")

    def function(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        return reduce(x, axis=axis, keepdims=keepdims)

    return function


_SAME = """
abs acos acosh add asin asinh atan atan2 atanh ceil cos cosh equal exp expm1 floor greater
greater_equal less less_equal log log1p logical_and logical_not logical_or maximum minimum
multiply not_equal pow sign sin sinh sqrt square subtract tan tanh
"""
_RENAMED: dict[str, Any] = {
    **{name: _reduction(name) for name in ("mean", "max", "min", "prod", "any", "all")},
    "divide": tf.math.divide,
    "negative": tf.math.negative,
    "isfinite": tf.math.is_finite,
    "isnan": tf.math.is_nan,
    "astype": tf.cast,
    "concat": tf.concat,
    "stack": tf.stack,
    "squeeze": tf.squeeze,
    "expand_dims": lambda x, axis=0: tf.expand_dims(x, axis),
    "permute_dims": tf.transpose,
    "matrix_transpose": tf.linalg.matrix_transpose,
    "broadcast_to": tf.broadcast_to,
    "cumulative_sum": lambda x, axis=0: tf.cumsum(x, axis),
    "roll": tf.roll,
    "flip": tf.reverse,
    "zeros": lambda shape, dtype=tf.float64: tf.zeros(shape, dtype),
    "ones": lambda shape, dtype=tf.float64: tf.ones(shape, dtype),
    "eye": lambda n, dtype=tf.float64: tf.eye(n, dtype=dtype),
    "zeros_like": tf.zeros_like,
    "ones_like": tf.ones_like,
    "full_like": lambda x, value: tf.fill(tf.shape(x), tf.cast(value, x.dtype)),
    "tensordot": lambda a, b, axes=2: tf.tensordot(a, b, axes),
}


HARNESS = TensorFlowHarness
