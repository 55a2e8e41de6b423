"""Derivatives of order one to three by nested tapes, wherever the parameters come from."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import tensorflow as _tensorflow

import fpicore_tensorflow as fpi
from fpicore import DerivativeError

from .problems import LEAN, sine_derivative

tf: Any = _tensorflow  # its modules load lazily, so that type checkers do not see them
pytestmark = pytest.mark.framework("tensorflow")

THETA = np.array([0.4, -0.7])
COMPILE = {"eager": None, "graph": {}, "xla": {"jit_compile": True}}
TOLERANCE = {1: 1e-9, 2: 1e-8, 3: 1e-7}


def compiled(function: Any, mode: str) -> Any:
    options = COMPILE[mode]
    return function if options is None else tf.function(function, autograph=False, **options)


def solve(f: Any, *args: Any, **options: Any) -> Any:
    options = {"solver": fpi.Picard(), "rtol": 1e-13, "max_steps": 300, **options}
    return fpi.fixed_point(f, tf.zeros(2, tf.float64), args, **options).value


def derivative(value: Callable[[], Any], source: Any, order: int) -> Any:
    """d^order Σ value / d source^order, by as many tapes."""
    if order == 0:
        return value()
    with tf.GradientTape() as tape:
        tape.watch(source)
        below = tf.reduce_sum(derivative(value, source, order - 1))
    return tape.gradient(below, source)


def by_argument(theta: Any) -> Any:
    return solve(lambda z, t: t * tf.sin(z) + 1.0, theta)


def by_closure(theta: Any, **options: Any) -> Any:
    return solve(lambda z: theta * tf.sin(z) + 1.0, **options)


def by_computed_closure(theta: Any, **options: Any) -> Any:
    """θ enters through a tensor that is computed outside of f."""
    shifted = theta + 0.5
    return solve(lambda z: (shifted - 0.5) * tf.sin(z) + 1.0, **options)


KINDS = (by_argument, by_closure, by_computed_closure)
CASES = [(kind, "eager", order) for kind in KINDS for order in (2, 3)]


@pytest.mark.parametrize(("value", "mode", "order"), CASES)
def test_tensor(value: Any, mode: str, order: int) -> None:
    run = compiled(lambda theta: derivative(lambda: value(theta), theta, order), mode)
    expected = sine_derivative(THETA, order)
    np.testing.assert_allclose(run(tf.constant(THETA)), expected, rtol=TOLERANCE[order])


@pytest.mark.parametrize(("mode", "order"), [("eager", 2), ("eager", 3), ("graph", 2), ("xla", 2)])
def test_variable(mode: str, order: int) -> None:
    theta = tf.Variable(THETA)
    run = compiled(lambda: derivative(lambda: by_closure(theta, adjoint=LEAN), theta, order), mode)
    np.testing.assert_allclose(run(), sine_derivative(THETA, order), rtol=TOLERANCE[order])


def test_tapes_around_a_function() -> None:
    """A tf.function is differentiated after it was traced, by tapes that it does not see."""
    theta = tf.constant(THETA)
    run = compiled(lambda theta: by_computed_closure(theta, adjoint=LEAN), "graph")
    for order in (1, 2):
        found = derivative(lambda: run(theta), theta, order)
        np.testing.assert_allclose(found, sine_derivative(THETA, order), rtol=TOLERANCE[order])


def test_persistent_tape_within_itself() -> None:
    """One tape may be asked for a derivative of its own derivative."""
    theta = tf.constant(THETA)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(theta)
        first = tape.gradient(by_closure(theta), theta)
    np.testing.assert_allclose(
        tape.gradient(first, theta), sine_derivative(THETA, 2), rtol=TOLERANCE[2]
    )


def test_derivatives_in_two_variables_at_once() -> None:
    """z = b/(1 + a): ∂²/∂a∂b, and ∂²/∂a² by way of the same outer tape."""
    a, b = tf.constant([0.5, 0.2], tf.float64), tf.Variable(THETA)
    with tf.GradientTape() as outer:
        outer.watch([a, b])
        with tf.GradientTape() as inner:
            inner.watch(a)
            total = tf.reduce_sum(solve(lambda z: b - a * z))
        slope = inner.gradient(total, a)
    pure, mixed = outer.gradient(slope, [a, b])
    np.testing.assert_allclose(mixed, -1 / (1 + a.numpy()) ** 2, rtol=1e-9)
    np.testing.assert_allclose(pure, 2 * THETA / (1 + a.numpy()) ** 3, rtol=1e-9)


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_variable_that_changes_before_its_gradient_is_taken(mode: str) -> None:
    """As in adversarial training: two tapes, and a step between their gradients."""
    theta = tf.Variable(THETA)

    def run() -> Any:
        theta.assign(THETA)
        with tf.GradientTape() as a, tf.GradientTape() as b:
            z = by_closure(theta, adjoint=LEAN)
        first = a.gradient(z, theta)
        theta.assign(2.0 * theta)
        return first, b.gradient(z, theta)

    for found in compiled(run, mode)():
        np.testing.assert_allclose(found, sine_derivative(THETA, 1), rtol=1e-9)


def test_a_captured_tensor_that_is_the_cotangent_too() -> None:
    """The same tensor in f and as the cotangent: two roles, and both count once."""
    theta = tf.constant(THETA)
    with tf.GradientTape() as outer:
        outer.watch(theta)
        with tf.GradientTape() as inner:
            inner.watch(theta)
            z = by_closure(theta)
        slope = inner.gradient(z, theta, output_gradients=theta)  # θ z'
    expected = sine_derivative(THETA, 1) + THETA * sine_derivative(THETA, 2)
    np.testing.assert_allclose(outer.gradient(slope, theta), expected, rtol=1e-8)


@pytest.mark.parametrize(("mode", "order"), [("eager", 1), ("eager", 2), ("graph", 1)])
def test_first_derivative_pays_nothing_for_the_next(mode: str, order: int) -> None:
    """One adjoint solve, and one evaluation of f more than in the forward solve."""
    calls, solves = [], []
    adjoint = fpi.Implicit(order=order, callback=lambda results, stats: solves.append(stats))

    def f(z: Any, t: Any) -> Any:
        tf.py_function(lambda: calls.append(1), [], [])
        return t - 0.5 * tf.sin(z)

    def run(theta: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(theta)
            sol = fpi.fixed_point(f, tf.zeros(2, tf.float64), (theta,), adjoint=adjoint)
        return tape.gradient(sol.value, theta), sol.stats.evaluations

    _, evaluations = compiled(run, mode)(tf.constant(THETA))
    assert len(calls) == int(evaluations) + 1
    assert len(solves) == 1


def untraceable(theta: Any) -> Any:
    def f(z: Any) -> Any:
        assert np.isfinite(z.numpy()).all()
        return theta * tf.sin(z) + 1.0

    return f


def test_map_that_cannot_be_traced() -> None:
    """Nobody knows what it captures, so the order has to be asked for."""
    theta = tf.constant(THETA)
    for order in (1, 2, 3):
        options = {"adjoint": fpi.Implicit(order=order)}
        found = derivative(lambda o=options: solve(untraceable(theta), **o), theta, order)
        expected = sine_derivative(THETA, order)
        np.testing.assert_allclose(found, expected, rtol=TOLERANCE[order])
        with pytest.raises(DerivativeError, match=rf"at most {order} .*order={order + 1}"):
            derivative(lambda o=options: solve(untraceable(theta), **o), theta, order + 1)


@pytest.mark.parametrize(
    ("adjoint", "mode"),
    [
        (fpi.OneStep(), "eager"),
        (fpi.OneStep(), "graph"),
        (fpi.Neumann(3), "eager"),
        (fpi.Phantom(2), "eager"),
    ],
)
def test_approximate_gradients_have_no_second_derivative(adjoint: Any, mode: str) -> None:
    def run(theta: Any) -> Any:
        f = lambda z: theta * tf.sin(z) + 1.0  # noqa: E731
        return derivative(lambda: solve(f, adjoint=adjoint), theta, 2)

    with pytest.raises(DerivativeError, match="at most 1 "):
        compiled(run, mode)(tf.constant(THETA))
