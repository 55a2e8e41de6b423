"""`implicit` and `custom_fixed_point` around SciPy."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import tensorflow as _tensorflow

import fpicore_tensorflow as fpi

optimize: Any = pytest.importorskip("scipy.optimize")
tf: Any = _tensorflow  # its modules load lazily, so that type checkers do not see them
pytestmark = pytest.mark.framework("tensorflow")

RANDOM = np.random.default_rng(0)
MATRIX, THETA, WEIGHTS = 0.6 * RANDOM.standard_normal((3, 3)), *RANDOM.standard_normal((2, 3))


def root(theta: np.ndarray) -> np.ndarray:
    """z = A tanh z + θ."""
    g = lambda z: MATRIX @ np.tanh(z) + theta - z  # noqa: E731
    return optimize.root(g, np.zeros(3), tol=1e-14).x


def f(z: Any, theta: Any) -> Any:
    return tf.linalg.matvec(tf.constant(MATRIX), tf.tanh(z)) + theta


def dense() -> tuple[np.ndarray, np.ndarray]:
    """Gradient and Hessian of w·z*."""
    t = np.tanh(root(THETA))
    slope = np.linalg.inv(np.eye(3) - MATRIX * (1 - t**2))
    g = slope.T @ WEIGHTS
    return g, slope.T @ np.diag((MATRIX.T @ g) * (-2 * t * (1 - t**2))) @ slope


def by_scipy(theta: Any) -> Any:
    if tf.executing_eagerly():
        return tf.constant(root(theta.numpy()))
    return tf.ensure_shape(tf.numpy_function(root, [theta], tf.float64), [3])


@pytest.mark.parametrize(
    ("mode", "order", "decorated"), [("eager", 2, False), ("eager", 2, True), ("graph", 1, True)]
)
def test_solved_by_scipy(mode: str, order: int, decorated: bool) -> None:
    options = {
        "rtol": 1e-10,
        "adjoint": fpi.Implicit(fpi.Picard(), rtol=1e-12, max_steps=500, fallback=None),
    }
    solve = fpi.custom_fixed_point(f, **options)(by_scipy)

    def slope(theta: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(theta)
            if decorated:
                z = solve(theta)
            else:
                z = fpi.implicit(f, by_scipy(theta), (theta,), **options).value
            loss = tf.reduce_sum(tf.constant(WEIGHTS) * z)
        return tape.gradient(loss, theta)

    theta = tf.constant(THETA)
    with tf.GradientTape() as tape:
        tape.watch(theta)
        found = (tf.function(slope, autograph=False) if mode == "graph" else slope)(theta)
    np.testing.assert_allclose(found, dense()[0], rtol=1e-8)
    if order == 2:
        second = tape.gradient(found, theta)
        np.testing.assert_allclose(second, dense()[1].sum(axis=0), rtol=1e-8)
