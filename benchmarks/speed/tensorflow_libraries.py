"""The cases of TensorFlow: fpicore in a tf.function and eager, and a bare tf.while_loop."""

from typing import Any

import tensorflow as tf

from .ours import ours
from .runners import Case, Task


def fpicore_cases(problem: Any) -> list[Case]:
    """In a tf.function."""
    import fpicore_tensorflow as fpi

    return ours(fpi, problem, compiled=True)


def eager_cases(problem: Any) -> list[Case]:
    """Eager."""
    import fpicore_tensorflow as fpi

    return ours(fpi, problem, jit=False)


def bare_cases(problem: Any) -> list[Case]:
    """tf.while_loop, with a custom_gradient that runs another one."""

    def solve(task: Task, tolerance: float, most: int) -> tuple[Any, Any]:
        names, values = list(task.params), list(task.params.values())

        @tf.custom_gradient
        def layer(*values: Any) -> Any:
            params = dict(zip(names, values, strict=True))
            z, count = _iterate(lambda z: _leaves(task.f(_state(z), params)), _leaves(task.z0),
                                tolerance, most)  # fmt: skip

            def backward(*cotangents: Any, **_: Any) -> Any:
                v = cotangents[:-1]
                with tf.GradientTape(persistent=True) as tape:
                    tape.watch([*z, *values])
                    fz = _leaves(task.f(_state(z), params))

                def pull(g: Any) -> Any:
                    products = tape.gradient(fz, list(z), output_gradients=list(g))
                    return tuple(a + b for a, b in zip(products, v, strict=True))

                g, _ = _iterate(pull, v, problem.rtol, most)
                return tape.gradient(fz, list(values), output_gradients=list(g))

            return (*z, count), backward

        *z, count = layer(*values)
        return _state(tuple(z)), count

    return [Case("plain loop", "tf.while_loop, custom_gradient", solve)]


def _leaves(z: Any) -> tuple[Any, ...]:
    return tuple(z) if isinstance(z, (tuple, list)) else (z,)


def _state(leaves: tuple[Any, ...]) -> Any:
    return leaves if len(leaves) > 1 else leaves[0]


def _norm(leaves: Any) -> Any:
    wide = [x if x.dtype == tf.float64 else tf.cast(x, tf.float32) for x in leaves]
    return tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(x)) for x in wide]))


def _iterate(f: Any, z: Any, rtol: float, most: int) -> tuple[Any, Any]:
    def going(z: Any, fz: Any, count: Any) -> Any:
        gap = [b - a for a, b in zip(z, fz, strict=True)]
        return (_norm(gap) > rtol * _norm(fz)) & (count < most)

    def step(z: Any, fz: Any, count: Any) -> Any:
        return fz, f(fz), count + 1

    z, _, count = tf.while_loop(going, step, (z, f(z), tf.constant(1)), parallel_iterations=1)
    return z, count
