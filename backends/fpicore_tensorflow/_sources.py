"""What a map closes over: the tensors and variables that its value depends on besides z."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.python.ops import gradients_util  # pyright: ignore[reportMissingImports]

from fpicore import Leaves

Map = Callable[[Leaves], Leaves]
_HIGHER_ORDER = gradients_util.POSSIBLE_GRADIENT_TYPES_HIGHER_ORDER


class Sources(NamedTuple):
    """The tensors and variables that a map captures, and its trace, which takes others instead."""

    captured: Leaves
    variables: tuple[Any, ...]
    """With a derivative: as objects or, in a graph that they were brought to, as handles."""
    trace: Any

    @property
    def tensors(self) -> Leaves:
        """Those captured that can have a derivative."""
        return tuple(t for t in self.captured if has_derivative(t))

    @property
    def watched(self) -> list[Any]:
        """What a tape has to watch: the objects that the map itself refers to."""
        return [*self.tensors, *self.variables]

    def values(self) -> Leaves:
        """Tensors only, variables as they are now; reading them is what tapes see of them."""
        return (*self.tensors, *map(_read, self.variables))

    def evaluate(self, z: Leaves) -> Leaves:
        """The map, of what is captured here in place of what its trace captured."""
        self.trace.set_external_captures(list(self.captured))
        return tuple(self.trace(*z))

    def brought(self) -> "Sources":
        """All of them in tensors of the graph that is being built."""
        captured = brought(self.captured)
        found = {id(old): new for old, new in zip(self.captured, captured, strict=True)}
        handles = [found[id(getattr(v, "handle", v))] for v in self.variables]
        return Sources(captured, tuple(handles), self.trace)


def _read(variable: Any) -> Any:
    if isinstance(variable, tf.Variable):
        return variable.read_value()
    (data,) = variable._handle_data.shape_and_type
    return tf.raw_ops.ReadVariableOp(resource=variable, dtype=tf.dtypes.as_dtype(data.dtype))


def find_sources(f: Map, z: Leaves) -> Sources:
    """Trace f, without running it, and see what the traced function captured."""
    specs = [tf.TensorSpec(leaf.shape, leaf.dtype) for leaf in z]
    traced = tf.function(lambda *leaves: f(leaves), autograph=False)
    concrete = traced.get_concrete_function(*specs)
    variables = [v for v in concrete.variables if has_derivative(v)]
    return Sources(tuple(concrete.captured_inputs), tuple(variables), concrete)


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


def gradient(tape: Any, outputs: Any, sources: Any, v: Leaves) -> Leaves:
    """The cotangents of the sources, dense, zero where the outputs do not depend on them."""
    found = tape.gradient(
        list(outputs), list(sources), list(v), unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    return tuple([tf.convert_to_tensor(g) for g in found])


def persistent_tape(held: Leaves = ()) -> tf.GradientTape:
    """One that watches what it is told to; what was made before it is held constant anyhow."""
    del held
    return tf.GradientTape(persistent=True, watch_accessed_variables=False)


class GraphTape:
    """What a tape does, by tf.gradients, which reads the graph and need not record it.

    Where TensorFlow builds the forward mode of a tf.function, new tapes record nothing, without a
    word: they belong to an accumulator that is at work already.
    """

    def __init__(self, held: Leaves = ()) -> None:
        """``held``: what counts as constant though the graph may know how it was made."""
        self._held = held

    def __enter__(self) -> "GraphTape":
        """Nothing to start."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to end."""

    def watch(self, tensors: Any) -> None:
        """Nothing to note."""

    def gradient(self, outputs: Any, sources: Any, v: Any, unconnected_gradients: Any) -> Any:
        """As that of a tape."""
        held = [*sources, *self._held]
        return tf.gradients(
            outputs, sources, v, stop_gradients=held, unconnected_gradients=unconnected_gradients
        )


def belongs(tensor: Any) -> bool:
    """Whether the tensor is one of the graph that is being built, or of none."""
    if not tf.is_symbolic_tensor(tensor):
        return True
    return tensor.graph is tf.compat.v1.get_default_graph()


def brought(tensors: Leaves) -> Leaves:
    """The tensors as tensors of the graph that is being built.

    A derivative of a traced function is a graph of its own, to which TensorFlow hands what it
    needs of the first. The graph that differentiates the second can be handed what is in the
    second, and nothing of the first. So what a pull-back may need once it is differentiated
    itself, it has to own.
    """
    graph: Any = tf.compat.v1.get_default_graph()
    return tuple(
        (t if belongs(t) else tf.identity(t)) if tf.is_symbolic_tensor(t) else graph.capture(t)
        for t in tensors
    )
