"""What only TensorFlow has: variables, tapes, tf.function, XLA, Keras layers."""

import contextlib
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import tensorflow as _tensorflow

import fpicore_tensorflow as fpi
from fpicore import DerivativeError, Result

from .problems import sine_derivative

tf: Any = _tensorflow  # its modules load lazily, so that type checkers do not see them
pytestmark = pytest.mark.framework("tensorflow")

THETA = np.array([0.4, -0.7])
COMPILE = {"eager": None, "graph": {}, "xla": {"jit_compile": True}}


def compiled(function: Any, mode: str) -> Any:
    options = COMPILE[mode]
    return function if options is None else tf.function(function, autograph=False, **options)


def value(theta: Any, **options: Any) -> Any:
    """z = θ sin z + 1."""
    return fpi.fixed_point(
        lambda z: theta * tf.sin(z) + 1.0,
        tf.zeros(2, tf.float64),
        **{"rtol": 1e-12, **options},
    ).value


def slope(theta: np.ndarray) -> np.ndarray:
    return sine_derivative(theta, 1)


@pytest.mark.parametrize("mode", COMPILE)
def test_variable_in_a_closure(mode: str) -> None:
    theta = tf.Variable(THETA)

    def gradient() -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(value(theta))
        return tape.gradient(loss, theta)

    np.testing.assert_allclose(compiled(gradient, mode)(), slope(THETA), rtol=1e-9)


def test_variable_as_argument_and_as_start() -> None:
    theta, start = tf.Variable(THETA), tf.Variable(np.zeros(2))
    with tf.GradientTape() as tape:
        sol = fpi.fixed_point(lambda z, t: t * tf.sin(z) + 1.0, start, (theta,), rtol=1e-12)
    found, zero = tape.gradient(sol.value, [theta, start], unconnected_gradients="zero")
    np.testing.assert_allclose(found, slope(THETA), rtol=1e-9)
    np.testing.assert_array_equal(zero, 0.0)
    np.testing.assert_array_equal(start, 0.0)


def test_persistent_tape_and_two_solves() -> None:
    theta = tf.constant(THETA)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(theta)
        first = value(theta)
        second = value(0.5 * theta)
    for _ in range(2):
        np.testing.assert_allclose(tape.gradient(first, theta), slope(THETA), rtol=1e-9)
        np.testing.assert_allclose(
            tape.gradient(second, theta), 0.5 * slope(0.5 * THETA), rtol=1e-9
        )


def test_backward_record() -> None:
    theta = tf.constant([2.0, 1.0], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(theta)
        sol = fpi.fixed_point(lambda z: theta - 1.5 * z, tf.zeros(2, tf.float64), rtol=1e-8)
    assert sol.backward is not None
    assert sol.backward.result is None
    tape.gradient(sol.value, theta)
    assert sol.backward.result is not None
    assert sol.backward.stats is not None
    assert sol.backward.result.flat() == [Result.CONVERGED]
    assert float(sol.backward.stats.residual) <= 1.001e-8


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_forward_mode_is_refused(mode: str) -> None:
    """A ForwardAccumulator would go through the iteration, or past the node unseen."""

    def push(theta: Any) -> Any:
        with tf.autodiff.ForwardAccumulator(theta, tf.ones(2, tf.float64)) as forward:
            z = value(theta, solver=fpi.Picard())
        return forward.jvp(z)

    with pytest.raises(DerivativeError):
        compiled(push, mode)(tf.constant(THETA))


@pytest.mark.parametrize("mode", ["graph", "xla"])
def test_unknown_batch_size(mode: str) -> None:
    weight = tf.constant([[0.5, -0.2], [0.1, 0.4]], tf.float64)

    def gradient(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            sol = fpi.fixed_point(
                lambda z: tf.tanh(z @ weight) + x, tf.zeros_like(x), rtol=1e-10, batch_ndim=1
            )
            loss = tf.reduce_sum(sol.value)
        return sol.value, sol.result.codes, tape.gradient(loss, x)

    signature = [tf.TensorSpec([None, 2], tf.float64)]
    run = tf.function(
        gradient, input_signature=signature, autograph=False, jit_compile=mode == "xla" or None
    )
    for size in (1, 4):
        x = np.linspace(-1, 1, 2 * size).reshape(size, 2)
        z, codes, found = run(tf.constant(x))
        assert codes.shape == (size,)
        np.testing.assert_allclose(np.tanh(z @ weight.numpy()) + x, z, rtol=1e-8, atol=1e-9)
        assert found.shape == x.shape
    assert run.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("mode", COMPILE)
def test_solution_from_a_function(mode: str) -> None:
    sol = compiled(
        lambda t: fpi.fixed_point(lambda z: t * tf.sin(z) + 1.0, tf.zeros(2, tf.float64)), mode
    )(tf.constant(THETA))
    assert isinstance(sol, fpi.Solution)
    assert str(sol.result).startswith("CONVERGED")
    assert bool(sol.converged)
    assert int(sol.stats.evaluations) == int(sol.stats.steps) + 1


def test_autograph_does_not_interfere() -> None:
    @tf.function
    def run(theta: Any) -> Any:
        z = value(theta)
        if tf.reduce_sum(z) > 0.0:
            z = 2.0 * z
        return z

    expected = value(tf.constant(THETA))
    np.testing.assert_allclose(run(tf.constant(THETA)), 2 * expected, rtol=1e-10)


def keras_layer() -> Any:
    import keras as _keras

    keras: Any = _keras

    class Equilibrium(keras.layers.Layer):
        """z = tanh(dense(z) + x)."""

        def __init__(self, units: int) -> None:
            super().__init__(dtype="float64")
            self.dense = keras.layers.Dense(
                units, kernel_initializer=keras.initializers.RandomNormal(0.0, 0.2, seed=0),
                dtype="float64",
            )  # fmt: skip

        def build(self, input_shape: Any) -> None:
            self.dense.build(input_shape)
            self.built = True

        def call(self, x: Any) -> Any:
            return fpi.fixed_point(
                lambda z: tf.tanh(self.dense(z) + x), tf.zeros_like(x), rtol=1e-12, batch_ndim=1
            ).value

    return Equilibrium(3)


@pytest.mark.parametrize("mode", COMPILE)
def test_keras_layer(mode: str) -> None:
    layer, x = keras_layer(), tf.constant(np.linspace(-1, 1, 6).reshape(2, 3))
    layer(x)
    variables = [v.value for v in layer.trainable_variables]

    def gradient() -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(x) ** 2)
        return tape.gradient(loss, variables)

    with tf.GradientTape() as tape:
        z = tf.zeros_like(x)
        for _ in range(120):
            z = tf.tanh(layer.dense(z) + x)
        loss = tf.reduce_sum(z**2)
    for got, expected in zip(
        compiled(gradient, mode)(), tape.gradient(loss, variables), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-12)


def test_keras_fit() -> None:
    import keras as _keras

    keras: Any = _keras
    model = keras.Sequential([keras_layer(), keras.layers.Dense(1, dtype="float64")])
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    random = np.random.default_rng(0)
    x = random.standard_normal((16, 3))
    history = model.fit(x, x.sum(axis=1), batch_size=6, epochs=4, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]


def test_singular_gram_matrix_does_not_raise() -> None:
    """Two entries that are always equal, a residual that becomes exactly zero."""
    run = tf.function(
        lambda z: fpi.fixed_point(lambda z: 0.5 * z, z, atol=1e-300, rtol=0.0, max_steps=50),
        autograph=False,
    )
    with contextlib.suppress(fpi.FixedPointError):
        sol = run(tf.ones(2, tf.float64))
        assert np.isfinite(sol.value).all()
