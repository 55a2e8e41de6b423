"""What a map closes over: the tensors and variables that its value depends on besides z."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.python.ops import gradients_util  # pyright: ignore[reportMissingImports]

from fpicore import Leaves

Map = Callable[[Leaves], Leaves]
_HIGHER_ORDER = gradients_util.POSSIBLE_GRADIENT_TYPES_HIGHER_ORDER


class Sources(NamedTuple):
    """The tensors and variables that a map captures, where they can have a derivative."""

    tensors: Leaves
    variables: tuple[tf.Variable, ...]

    @property
    def watched(self) -> list[Any]:
        """What a tape has to watch: the objects that the map itself refers to."""
        return [*self.tensors, *self.variables]

    def values(self) -> Leaves:
        """Tensors only, variables as they are now; reading them is what tapes see of them."""
        return (*self.tensors, *[variable.read_value() for variable in self.variables])


def find_sources(f: Map, z: Leaves) -> Sources:
    """Trace f, without running it, and see what the traced function captured."""
    specs = [tf.TensorSpec(leaf.shape, leaf.dtype) for leaf in z]
    traced = tf.function(lambda *leaves: f(leaves), autograph=False)
    concrete = traced.get_concrete_function(*specs)
    captured = [t for t in concrete.captured_inputs if has_derivative(t)]
    variables = [v for v in concrete.variables if has_derivative(v)]
    return Sources(tuple(captured), tuple(variables))


def sources_if_traceable(f: Map, z: Leaves) -> Sources | None:
    """The sources, or None if f runs in eager mode only: it reads values, say."""
    if not tf.executing_eagerly():
        return find_sources(f, z)
    try:
        return find_sources(f, z)
    except Exception:  # whatever the user's function raises on symbolic tensors
        return None


def may_differentiate_twice(outputs: Leaves) -> bool:
    """Whether a second derivative of the tensors may be asked for.

    In a graph there is no telling, as the tape may be outside of it. In eager mode TensorFlow
    keeps count of the tapes for a purpose of the same kind, in a module of its own: whether a
    tf.function needs more than its first derivative.
    """
    if not tf.executing_eagerly():
        return True
    return gradients_util.PossibleTapeGradientTypes(list(outputs)) == _HIGHER_ORDER


def has_derivative(tensor: Any) -> bool:
    """Whether it is of a floating or complex dtype; resources and indices are not."""
    return tensor.dtype.is_floating or tensor.dtype.is_complex


def gradient(tape: tf.GradientTape, outputs: Any, sources: Any, v: Leaves) -> Leaves:
    """The cotangents of the sources, dense, zero where the outputs do not depend on them."""
    found = tape.gradient(
        list(outputs), list(sources), list(v), unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    return tuple([tf.convert_to_tensor(g) for g in found])
