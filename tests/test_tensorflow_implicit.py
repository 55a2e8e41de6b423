"""`implicit` and `custom_fixed_point` around SciPy; replicas."""

import subprocess
import sys
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


REPLICAS = """
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import fpicore_tensorflow as fpi

x = np.linspace(-1.0, 1.0, 8).reshape(4, 2)

def train(strategy):
    with strategy.scope():
        w = tf.Variable([[0.3, -0.4], [0.2, 0.5]], dtype=tf.float64)

    def step(rows):
        with tf.GradientTape() as tape:
            z = fpi.fixed_point(lambda z: tf.tanh(z @ w) + rows, tf.zeros_like(rows),
                                solver=fpi.Picard(), rtol=1e-12, batch_ndim=1).value
            loss = tf.reduce_sum(z**2)
        gradient = tape.gradient(loss, w)
        total = tf.distribute.get_replica_context().all_reduce("sum", gradient)
        w.assign_sub(0.01 * total)

    data = tf.data.Dataset.from_tensor_slices(x).batch(4)
    run = tf.function(lambda rows: strategy.run(step, (rows,)), autograph=False)
    for _ in range(2):
        for rows in strategy.experimental_distribute_dataset(data):
            run(rows)
    return w.numpy()

one = train(tf.distribute.OneDeviceStrategy("/cpu:0"))
two = train(tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"]))
assert abs(one - np.array([[0.3, -0.4], [0.2, 0.5]])).max() > 1e-3
np.testing.assert_allclose(two, one, rtol=1e-8)
print("agree")
"""


def test_two_replicas_agree_with_one() -> None:
    done = subprocess.run(
        [sys.executable, "-c", REPLICAS], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.stdout.strip().endswith("agree"), done.stderr[-2000:]
