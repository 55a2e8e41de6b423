"""TensorFlow's spellings of the derivatives in the matrix of ``fpicore verify``."""

from collections.abc import Callable
from functools import partial
from typing import Any

import tensorflow as _tensorflow

from fpicore import DerivativeError
from fpicore.verify.probes import Case, Probe, Probes

tf: Any = _tensorflow  # its modules load lazily, so that type checkers do not see them
Function = Callable[[Any], Any]


def _gradient(function: Function, x: Any) -> Any:
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        value = function(x)
    return tape.gradient(value, x)


def _compiled(function: Function, xla: bool = False) -> Function:
    return tf.function(function, autograph=False, jit_compile=xla or None)


def _graph_gradient(case: Case, xla: bool = False) -> Any:
    return _compiled(partial(_gradient, case.loss), xla)(case.x)


def _module(case: Case) -> tuple[Any, Any]:
    weight, bias = tf.Variable(case.weight), tf.Variable(case.x)
    with tf.GradientTape() as tape:
        z = case.solve(lambda z: case.layer(z, weight, bias), tf.zeros_like(case.x))
        loss = case.weigh(z)
    return tuple(tape.gradient(loss, [weight, bias]))


def _jacobian(case: Case) -> Any:
    x = case.x
    with tf.GradientTape() as tape:
        tape.watch(x)
        z = case.state(x)
    return tape.jacobian(z, x)


def _batch_jacobian(case: Case) -> Any:
    x = case.batch
    with tf.GradientTape() as tape:
        tape.watch(x)
        z = case.state(x)
    return tape.batch_jacobian(z, x)


def _vectorized(case: Case, function: Function) -> Any:
    return tf.vectorized_map(function, case.batch)


def _gradient_of_map(case: Case) -> Any:
    try:
        return _gradient(lambda x: tf.reduce_sum(tf.vectorized_map(case.loss, x)), case.batch)
    except LookupError as error:  # how TensorFlow itself says no, in the words that fpicore gave
        if "of fpicore was lost" not in str(error):
            raise
        raise DerivativeError(str(error)) from error


def _recomputed(case: Case) -> Any:
    return _gradient(tf.recompute_grad(case.loss), case.x)


def _scan(case: Case) -> Any:
    """Every solve starts where the last one ended."""

    def loss(batch: Any) -> Any:
        states = tf.scan(lambda start, x: case.state(x, start), batch, tf.zeros_like(batch[0]))
        return sum(case.weigh(z) for z in tf.unstack(states))

    return _gradient(loss, case.batch)


def _push(function: Function, case: Case, x: Any = None) -> Any:
    x = case.x if x is None else x
    with tf.autodiff.ForwardAccumulator(x, case.direction) as accumulator:
        value = function(x)
    return accumulator.jvp(value)


def _product(case: Case, order: int, x: Any) -> Any:
    """The derivative of an order, times the direction order − 1 times."""
    if order == 1:
        return _gradient(case.loss, x)
    return _gradient(lambda x: tf.reduce_sum(_product(case, order - 1, x) * case.direction), x)


PROBES: Probes = {
    (0, "value", "vmap"): Probe("vectorized_map", lambda c: _vectorized(c, c.state)),
    (1, "reverse", "recorded"): Probe("GradientTape", lambda c: _gradient(c.loss, c.x)),
    (1, "reverse", "in a graph"): Probe("tf.function", _graph_gradient),
    (1, "reverse", "by XLA"): Probe("jit_compile=True", partial(_graph_gradient, xla=True)),
    (1, "reverse", "parameters of a module"): Probe("tf.Variable", _module),
    (1, "reverse", "Jacobian, recorded"): Probe("GradientTape.jacobian", _jacobian),
    (1, "reverse", "batch of Jacobians"): Probe("GradientTape.batch_jacobian", _batch_jacobian),
    (1, "reverse", "vmap of gradient"): Probe(
        "vectorized_map of a tape", lambda c: _vectorized(c, partial(_gradient, c.loss))
    ),
    (1, "reverse", "gradient of vmap"): Probe("tape of vectorized_map", _gradient_of_map),
    (1, "reverse", "checkpoint"): Probe("recompute_grad", _recomputed),
    (1, "reverse", "scan"): Probe("tf.scan", _scan),
    (1, "forward", "recorded"): Probe("ForwardAccumulator", lambda c: _push(c.state, c)),
    (1, "forward", "compiled"): Probe(
        "ForwardAccumulator of a tf.function", lambda c: _push(_compiled(c.state), c)
    ),
    (2, "reverse over reverse", "recorded"): Probe("nested tapes", lambda c: _product(c, 2, c.x)),
    (2, "reverse over reverse", "compiled"): Probe(
        "nested tapes in a tf.function", lambda c: _compiled(partial(_product, c, 2))(c.x)
    ),
    (2, "reverse over reverse", "Implicit(order=1)"): Probe(
        "nested tapes", lambda c: _product(c, 2, c.x)
    ),
    (2, "forward over reverse", "recorded"): Probe(
        "ForwardAccumulator of a tape", lambda c: _push(partial(_gradient, c.loss), c)
    ),
    (2, "forward over reverse", "compiled"): Probe(
        "ForwardAccumulator of a tape in a tf.function",
        lambda c: _push(_compiled(partial(_gradient, c.loss)), c),
    ),
    (2, "reverse over forward", "recorded"): Probe(
        "tape of a ForwardAccumulator",
        lambda c: _gradient(lambda x: _push(c.loss, c, x), c.x),
    ),
    (3, "reverse over reverse", "recorded"): Probe("nested tapes", lambda c: _product(c, 3, c.x)),
}
"""By order, mode and transform."""
