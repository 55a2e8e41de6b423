"""How f is called during a solve: watched, once, for what makes it another map at each call."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import op_callbacks  # pyright: ignore[reportMissingImports]

from fpicore import Leaves, MapError

Map = Callable[[Leaves], Leaves]
_WRITES = ("Assign", "ResourceScatter", "StatefulUniform", "RngSkip", "RngReadAndSkip")
_DRAWS = ("Random", "Multinomial", "TruncatedNormal", "Parameterized")


def steady(f: Map, check: Callable[[Leaves], None] | None = None) -> Map:
    """f, refused at its first call if it writes to variables or draws random numbers.

    Dropout in training mode is a fresh map at every evaluation, which has no fixed point, and
    batch normalisation would update its statistics at every step. Only TensorFlow's debugger can
    look at operations as they run, eagerly or into a graph, and its hook is used here. What runs
    inside a tf.function that f calls is not seen. ``check`` looks at the first value of f.
    """
    seen: list[bool] = []

    def refuse(op_type: Any, *_: Any, **__: Any) -> None:  # one of its own, as solves may nest
        _check(tf.compat.as_str(op_type))

    def evaluate(z: Leaves) -> Leaves:
        if seen:
            return f(z)
        seen.append(True)
        op_callbacks.add_op_callback(refuse)
        try:
            found = f(z)
        finally:
            op_callbacks.remove_op_callback(refuse)
        if check is not None:
            check(found)
        return found

    return evaluate


def _check(name: str) -> None:
    """Raise for an operation that is not a function of its inputs."""
    if name.startswith(_WRITES) or name.startswith(_DRAWS):
        what = "draws random numbers" if name.startswith(_DRAWS) else "writes to a variable"
        raise MapError(
            f"expected f to be the same map at every evaluation, received one that {what} "
            f"({name}): call dropout and batch normalisation with training=False inside f, or "
            "draw the noise before the solve and pass it in args"
        )
