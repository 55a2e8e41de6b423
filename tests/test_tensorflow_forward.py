"""Forward mode: right around a tf.function, refused where TensorFlow would follow f op by op."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import tensorflow as _tensorflow

import fpicore_tensorflow as fpi
from fpicore import DerivativeError

from .problems import sine_derivative

tf: Any = _tensorflow  # its modules load lazily, so that type checkers do not see them
pytestmark = pytest.mark.framework("tensorflow")

THETA = np.array([0.4, -0.7])
DIRECTION = np.array([1.0, 0.5])
PUSHED = sine_derivative(THETA, 1) * DIRECTION
LEAN = fpi.Implicit(solver=fpi.Picard(), fallback=None)  # half of the loops to trace
STRATEGIES = {
    "implicit": fpi.Implicit(),
    "unrolled": fpi.Unrolled(),
    "checkpointed": fpi.Unrolled(checkpoint=True),
}


def value(theta: Any, **options: Any) -> Any:
    """z = θ sin z + 1."""
    f = lambda z: theta * tf.sin(z) + 1.0  # noqa: E731
    options = {
        "solver": fpi.Picard(), "adjoint": LEAN, "rtol": 1e-13, "max_steps": 200, **options
    }  # fmt: skip
    return fpi.fixed_point(f, tf.ones(theta.shape, theta.dtype), **options).value


def graph(function: Any, **options: Any) -> Any:
    return tf.function(function, autograph=False, **options)


def push(function: Any, primals: Any, tangents: Any, *args: Any) -> Any:
    with tf.autodiff.ForwardAccumulator(primals, tangents) as forward:
        out = function(*args)
    return forward.jvp(out)


def push_theta(function: Any) -> Any:
    theta = tf.constant(THETA)
    return push(function, theta, tf.constant(DIRECTION), theta)


WEIGHT = np.array([[0.3, -0.4], [0.2, 0.5]])
ROWS = np.array([[0.3, -0.2], [1.0, 0.4], [-0.5, 0.1]])
TURN = np.array([[0.5, 1.0], [-1.0, 0.25]])
SHIFT = np.array([[1.0, -0.5], [0.25, 2.0], [-1.0, 1.0]])


def coupled(weight: Any, x: Any, **options: Any) -> Any:
    """Each row a system: z = tanh(z W) + x, with W computed from the weight."""
    computed = 2.0 * weight - weight
    f = lambda z: {"a": tf.tanh(z["b"] @ computed) + x, "b": 1.0 * z["a"]}  # noqa: E731
    z0 = {"a": tf.zeros_like(x), "b": tf.zeros_like(x)}
    options = {"solver": fpi.Picard(), "adjoint": LEAN, "max_steps": 200, **options}
    return fpi.fixed_point(f, z0, rtol=1e-12, batch_ndim=1, **options).value["a"]


def pushed(weight: np.ndarray, x: np.ndarray, turn: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """dz along (turn, shift), from the definition."""
    z = np.zeros_like(x)
    for _ in range(300):
        z = np.tanh(z @ weight) + x
    slope = 1 - np.tanh(z @ weight) ** 2
    right = slope * (z @ turn) + shift
    systems = np.eye(2) - slope[:, :, None] * weight.T
    return np.linalg.solve(systems, right[..., None])[..., 0]


def test_variable_and_argument_batch_and_nested_state() -> None:
    """One function, called without an accumulator and with several that see parts of it."""
    weight, x = tf.Variable(WEIGHT), tf.constant(ROWS)
    turn, shift = tf.constant(TURN), tf.constant(SHIFT)
    run = graph(lambda x: coupled(weight, x))
    plain = run(x).numpy()
    both = push(run, (weight, x), (turn, shift), x)
    np.testing.assert_allclose(both, pushed(WEIGHT, ROWS, TURN, SHIFT), rtol=1e-8)
    found = push(run, weight, turn, x)
    np.testing.assert_allclose(found, pushed(WEIGHT, ROWS, TURN, 0 * SHIFT), rtol=1e-8)
    np.testing.assert_array_equal(run(x), plain)
    weight.assign(0.5 * WEIGHT)
    again = push(run, (weight, x), (turn, shift), x)
    np.testing.assert_allclose(again, pushed(0.5 * WEIGHT, ROWS, TURN, SHIFT), rtol=1e-8)


def test_first_trace_within_the_accumulator() -> None:
    """The result used twice, by a second solve and beside it, a tf.function within another one."""
    weight, x = tf.constant(WEIGHT), tf.constant(ROWS)
    inner = graph(coupled)

    def twice(weight: Any, x: Any) -> Any:
        z = inner(weight, x)
        return inner(weight, z) + z

    found = push(graph(twice), (weight, x), (tf.constant(TURN), tf.constant(SHIFT)), weight, x)
    first, z = pushed(WEIGHT, ROWS, TURN, SHIFT), coupled(weight, x).numpy()
    np.testing.assert_allclose(found, pushed(WEIGHT, z, TURN, first) + first, rtol=1e-8)


@pytest.mark.parametrize("adjoint", [fpi.Implicit(reuse=True), fpi.Unrolled()], ids=str)
def test_strategies_around_a_function(adjoint: Any) -> None:
    found = push_theta(graph(lambda t: value(t, solver=fpi.Anderson(), adjoint=adjoint)))
    np.testing.assert_allclose(found, PUSHED, rtol=1e-8)


def test_compiled_function() -> None:
    np.testing.assert_allclose(push_theta(graph(value, jit_compile=True)), PUSHED, rtol=1e-8)


def test_forward_over_reverse() -> None:
    """An accumulator around a tf.function that holds a tape."""

    def slope(theta: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(theta)
            z = value(theta)
        return tape.gradient(z, theta)

    expected = sine_derivative(THETA, 2) * DIRECTION
    np.testing.assert_allclose(push_theta(graph(slope)), expected, rtol=1e-8)


def test_solve_in_a_branch() -> None:
    """What f captures comes from outside of the branch; by a tape around, and by an accumulator."""
    theta = tf.constant(THETA)

    def branch(t: Any) -> Any:
        return tf.cond(tf.reduce_sum(t) > -9.0, lambda: value(t), lambda: t)

    with tf.GradientTape() as tape:
        tape.watch(theta)
        z = graph(branch)(theta)
    np.testing.assert_allclose(tape.gradient(z, theta), sine_derivative(THETA, 1), rtol=1e-8)
    # Another trace: once it has one derivative, TensorFlow fails on the other of a tf.cond.
    np.testing.assert_allclose(push_theta(graph(branch)), PUSHED, rtol=1e-8)


@pytest.mark.parametrize(
    "adjoint", [fpi.OneStep(), fpi.Neumann(3), fpi.Phantom(2), fpi.Reversible()], ids=str
)
def test_approximate_gradients_are_refused(adjoint: Any) -> None:
    options = {"adjoint": adjoint, "max_steps": 20, "on_failure": "ignore"}
    with pytest.raises(DerivativeError):
        push_theta(graph(lambda t: value(t, **options)))


def test_variable_assigned_in_the_function_is_not_passed_over() -> None:
    """The derivative reads it before the assignment or after it: TensorFlow orders them not.

    Right or NaN, but not the derivative of another map.
    """
    theta, direction = tf.Variable(THETA), tf.constant(DIRECTION)

    def run() -> Any:
        z = value(theta)
        theta.assign(0.5 * theta)
        return z

    run = graph(run)
    run()
    theta.assign(THETA)
    found = push(run, theta, direction)
    assert np.isnan(found).all() or np.allclose(found, PUSHED, rtol=1e-8)


@pytest.mark.parametrize("kind", [tf.constant, tf.Variable])
def test_tracing_under_an_accumulator_that_sees_a_closure(kind: Callable[..., Any]) -> None:
    theta = kind(THETA)
    with pytest.raises(DerivativeError, match="call that function once"):
        push(graph(lambda: value(theta)), theta, tf.constant(DIRECTION))


def as_closure(theta: Any, adjoint: Any) -> Any:
    return value(theta, adjoint=adjoint, max_steps=30)


def as_nested_state(theta: Any, adjoint: Any) -> Any:
    f = lambda z: {"a": theta * tf.sin(z["b"]), "b": 0.5 * z["a"]}  # noqa: E731
    z0 = {"a": tf.ones(2, tf.float64), "b": tf.ones(2, tf.float64)}
    return fpi.fixed_point(f, z0, adjoint=adjoint, on_failure="ignore").value["b"]


@pytest.mark.parametrize("solve", [as_closure, as_nested_state])
@pytest.mark.parametrize("name", ["implicit", "checkpointed"])
def test_eager_forward_mode_is_refused(solve: Any, name: str) -> None:
    with pytest.raises(DerivativeError, match="ForwardAccumulator"):
        push_theta(lambda theta: solve(theta, STRATEGIES[name]))


def test_eager_forward_mode_of_a_variable_is_refused() -> None:
    theta = tf.Variable(THETA)
    with pytest.raises(DerivativeError, match="ForwardAccumulator"):
        push(value, theta, tf.constant(DIRECTION), theta)


def test_forward_mode_within_a_function_is_refused() -> None:
    with pytest.raises(DerivativeError, match="ForwardAccumulator"):
        graph(lambda: push_theta(value))()


def test_eager_forward_mode_through_the_iteration() -> None:
    found = push_theta(lambda theta: value(theta, adjoint=fpi.Unrolled()))
    np.testing.assert_allclose(found, PUSHED, rtol=1e-8)
