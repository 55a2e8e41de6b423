"""What a map closes over: the tensors and variables that its value depends on besides z."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.python.ops import gradients_util  # pyright: ignore[reportMissingImports]

from fpicore import DerivativeError, Leaves

Map = Callable[[Leaves], Leaves]
_HIGHER_ORDER = gradients_util.POSSIBLE_GRADIENT_TYPES_HIGHER_ORDER


class Sources(NamedTuple):
    """The tensors and variables that a map captures, and its trace, which takes others instead."""

    captured: Leaves
    variables: tuple[tf.Variable, ...]
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
        return (*self.tensors, *[variable.read_value() for variable in self.variables])

    def evaluate(self, z: Leaves) -> Leaves:
        """The map, of what is captured here in place of what its trace captured."""
        self.trace.set_external_captures(list(self.captured))
        return tuple(self.trace(*z))

    def inside(self) -> "Sources":
        """All of them as the graph that is being built refers to them: that of a branch, say."""
        if tf.executing_eagerly():
            return self
        graph: Any = tf.compat.v1.get_default_graph()
        return self._replace(
            captured=tuple(t if belongs(t) else graph.capture(t) for t in self.captured)
        )

    def brought(self) -> "Sources":
        """All of them in tensors of the graph that is being built; variables are in every graph."""
        if any(tf.is_symbolic_tensor(variable.handle) for variable in self.variables):
            raise DerivativeError(
                "expected at most 1 derivative, in reverse mode, from outside of a tf.function "
                "that takes as an argument a tf.Variable which the map refers to; let the function "
                "close over the variable"
            )
        return self._replace(captured=brought(self.captured))


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


def check_tapes_record() -> None:
    """Raise where new tapes record nothing, and would say of every derivative that it is zero."""
    if tf.executing_eagerly():
        return
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        one = tf.ones([])
        tape.watch(one)
        same = tf.identity(one)
    if tape.gradient(same, one) is None:
        raise DerivativeError(
            "expected reverse mode through Reversible() or Unrolled(checkpoint=...) within another "
            "solve, received a tf.autodiff.ForwardAccumulator around the tf.function that holds "
            "both; use Implicit() or Unrolled() within"
        )


class GraphTape:
    """What a tape does, by tf.gradients, which reads the graph and need not record it.

    Where TensorFlow builds the forward mode of a tf.function, new tapes record nothing, without a
    word: they belong to an accumulator that is at work already.
    """

    def __init__(self, held: Leaves = ()) -> None:
        """``held``: what counts as constant though the graph may know how it was made."""
        self._held, self._graph = held, None

    def __enter__(self) -> "GraphTape":
        """Note which graph it is."""
        self._graph = tf.compat.v1.get_default_graph()
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to end."""

    def watch(self, tensors: Any) -> None:
        """Nothing to note."""

    def gradient(self, outputs: Any, sources: Any, v: Any, unconnected_gradients: Any) -> Any:
        """As that of a tape."""
        inside = [self._within(getattr(source, "handle", source)) for source in sources]
        pairs = [(y, g) for y, g in zip(outputs, v, strict=True) if has_derivative(y)]
        return tf.gradients(
            [self._within(y) for y, _ in pairs],
            inside,
            [g for _, g in pairs],
            stop_gradients=[*inside, *map(self._within, self._held)],
            unconnected_gradients=unconnected_gradients,
        )

    def _within(self, tensor: Any) -> Any:
        """What stands in the graph for a tensor from outside of it."""
        graph: Any = self._graph
        own = tf.is_symbolic_tensor(tensor) and tensor.graph is graph
        return tensor if own else graph.capture(tensor)


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
    return tuple(t if belongs(t) else tf.identity(t) for t in tensors)
