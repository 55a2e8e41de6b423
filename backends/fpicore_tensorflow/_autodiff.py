"""The gradient of a fixed point as a tf.custom_gradient.

The scheme is that of fpicore_torch: z* is found without a gradient, f is recorded once at z*, and
a node puts the adjoint solve between the cotangent of z* and that of f(z*). That is exact to first
order. Higher orders come from the implicit function (`_orders`), or from levels, which need not
know what f captures: out_k = out_{k−1} + N(f(out_{k−1}) − out_{k−1}) is exact to order k, where N
has the constant pull-back v ↦ g; a derivative beyond the levels raises `DerivativeError`.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.eager import forwardprop_util  # pyright: ignore[reportMissingImports]

from fpicore import DerivativeError, Leaves

from ._orders import ImplicitFunction, Solve, linear_solve
from ._sources import gradient, has_derivative, persistent_tape


class Linearization:
    """f at z*, recorded once; every product of the adjoint solve walks the same tape."""

    def __init__(
        self,
        f: Callable[[Leaves], Leaves],
        inputs: Leaves,
        tape: Callable[..., Any] = persistent_tape,
    ) -> None:
        """Record f at the inputs."""
        self.inputs, self.new_tape = inputs, tape
        with tape() as self._tape:
            self._tape.watch(inputs)
            self.outputs = f(inputs)

    def vjp(self, g: Leaves) -> Leaves:
        """Jᵀg."""
        return gradient(self._tape, self.outputs, self.inputs, g)

    def jvp(self, u: Leaves) -> Leaves:
        """Ju, as the derivative of g ↦ Jᵀg along u."""
        with self.new_tape() as outer:
            g = tuple(tf.zeros_like(leaf) for leaf in u)
            outer.watch(g)
            pulled = self.vjp(g)
        return gradient(outer, pulled, g, u)


def refuse_forward_mode(outputs: Leaves) -> None:
    """Raise if a ForwardAccumulator watches f op by op: in eager mode, or as a function is traced.

    TensorFlow derives the forward mode of a custom gradient from its pull-back, and op by op it
    loses part of that on the way; around a tf.function it does not. Only TensorFlow's own module
    tells whether tensors carry tangents.
    """
    if forwardprop_util.pack_tangents(list(outputs)).tangents:
        raise DerivativeError(
            "expected reverse mode, or a tf.autodiff.ForwardAccumulator around a tf.function; "
            "received one that follows f op by op, where TensorFlow's forward derivative of a "
            "custom gradient is wrong; put the solve into a tf.function. If it is in one, which "
            "closes over the tensor or tf.Variable that has the tangent, call that function once "
            "before the accumulator is opened, as it is followed while it is traced. Or use "
            "adjoint=Unrolled()"
        )


def node(solve: Solve, order: int, value: Leaves, outputs: Leaves, inputs: Leaves) -> Leaves:
    """``value``, as a function of f(z) (outputs) and z (inputs): v ↦ (g, v − g)."""

    @tf.custom_gradient
    def identity(*leaves: Any) -> Any:
        def pull_back(*v: Any) -> Any:
            g = guard(order - 1, order, linear_solve(solve, v, False), leaves)
            return (*g, *[a - b for a, b in zip(v, g, strict=True)])

        return constants(value, leaves), pull_back

    return identity(*outputs, *inputs)


def exact_node(function: ImplicitFunction, outputs: Leaves) -> Leaves:
    """z*, as a function of f(z*) (outputs) and θ: v ↦ (g, a correction of higher order)."""

    @tf.custom_gradient
    def identity(*leaves: Any) -> Any:
        def pull_back(*v: Any) -> Any:
            return (*function.constant_solve(v, False), *function.correction(v))

        return constants(function.value, leaves), pull_back

    return identity(*outputs, *function.sources.values())


def constants(leaves: Leaves, inputs: Leaves) -> Leaves:
    """The leaves, with an error for a gradient with respect to any of the inputs.

    The custom gradient stands in front of them. Where TensorFlow loses that on the way, as when
    tf.vectorized_map rewrites the graph, the derivative would be zero without a word. A tape of
    a graph passes by an operation that does not depend on anything it watches: hence the inputs,
    an entry of each, in a place that is never read.
    """
    reason = (
        "a tf.custom_gradient of fpicore was lost, as in a tape around tf.vectorized_map; put the "
        "tape into the mapped function, or pass the batch to fixed_point with batch_ndim=1"
    )
    heads = [tf.reshape(x, [-1])[:1] for x in inputs if has_derivative(x)]
    sums = [tf.reduce_sum(tf.math.real(x)) for x in heads]
    dtypes = {leaf.dtype for leaf in leaves if has_derivative(leaf)}
    # Once for all leaves: the graph of each on its own would grow with leaves times inputs.
    unread = {dtype: sum([tf.cast(x, dtype) for x in sums]) for dtype in dtypes}

    def tied(leaf: Any) -> Any:
        if not has_derivative(leaf):
            return leaf
        plain = tf.stop_gradient(leaf)
        tied = tf.where(tf.ones_like(leaf, tf.bool), plain, unread[leaf.dtype])
        return tf.raw_ops.PreventGradient(input=tied, message=reason)

    return tuple(map(tied, leaves))


def guard(depth: int, order: int, tensors: Leaves, anchors: Leaves) -> Leaves:
    """The tensors, which can be differentiated ``depth`` times and then refuse.

    The anchors tie them to all that f depends on; otherwise a tape would pass by the guard where
    the missing term is the only dependence.
    """
    size = len(tensors)

    @tf.custom_gradient
    def identity(*leaves: Any) -> Any:
        def pull_back(*w: Any) -> Any:
            if depth == 0:
                raise DerivativeError(
                    f"expected at most {order} derivative(s) of this fixed point, received a "
                    "request for more, which would be answered wrongly: either the adjoint is an "
                    "approximation, or f is no function that TensorFlow can trace; pass "
                    f"adjoint=Implicit(order={order + 1}) to fixed_point"
                )
            passed = guard(depth - 1, order, w, leaves[size:])
            return (*passed, *[tf.zeros_like(leaf) for leaf in leaves[size:]])

        return tuple(tf.stop_gradient(leaf) for leaf in leaves[:size]), pull_back

    return identity(*tensors, *anchors)
