"""What is told outside of a solve: its numbers, as tensors and to Python."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.ops import control_flow_util  # pyright: ignore[reportMissingImports]

from fpicore import InputError


def tell(receive: Callable[..., Any], numbers: tuple[Any, ...]) -> None:
    """At once in eager mode, else by a tf.py_function.

    Raises:
        InputError: in what XLA compiles, which only TensorFlow's own module tells.
    """

    def told(*values: Any) -> None:
        arrays = [value.numpy() for value in values]
        receive(*[x if x.ndim else x.item() for x in arrays])

    if tf.executing_eagerly():
        told(*numbers)
    elif within_xla():
        raise InputError(
            "expected no callback with jit_compile=True, as XLA cannot call Python, received one; "
            "leave jit_compile out, or use trace=True"
        )
    else:
        tf.py_function(told, [tf.stop_gradient(x) for x in numbers], [])


def within_xla() -> bool:
    """Whether XLA is known to compile what is traced."""
    return control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def shown(number: Any, integer: bool) -> Any:
    """A number of the host as the user shall see it."""
    return tf.convert_to_tensor(number, tf.int32 if integer else tf.float64)
