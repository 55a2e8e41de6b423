"""TensorFlow: f must be the same map at every evaluation, in every mode; mixed precision."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fpicore import Implicit, MapError, Picard, Reversible, Unrolled

pytestmark = pytest.mark.framework("tensorflow")
tf = pytest.importorskip("tensorflow")
fpi = pytest.importorskip("fpicore_tensorflow")

N = 3


def layer(kind: Any) -> Any:
    built = kind()
    built.build((None, N))
    return built


def dropout() -> tuple[Callable[..., Any], Any]:
    drop = tf.keras.layers.Dropout(0.5)
    return lambda z, training: 0.5 * drop(z, training=training) + 1.0, drop


def normalisation() -> tuple[Callable[..., Any], Any]:
    norm = layer(tf.keras.layers.BatchNormalization)
    return lambda z, training: 0.3 * norm(z, training=training) + 1.0, norm


def run(function: Callable[..., Any], mode: str) -> Any:
    if mode == "eager":
        return function()
    return tf.function(function, autograph=False, jit_compile=mode == "xla")()


@pytest.mark.parametrize("mode", ["eager", "graph"])
@pytest.mark.parametrize("make", [dropout, normalisation])
@pytest.mark.parametrize(
    "adjoint", [Implicit(), Unrolled(), Reversible()], ids=lambda a: str(a)[:8]
)
def test_training_mode_is_refused(make: Any, mode: str, adjoint: Any) -> None:
    f, _ = make()
    start = tf.zeros((4, N))
    solve = lambda training: fpi.fixed_point(  # noqa: E731
        lambda z: f(z, training), start, solver=Picard(), adjoint=adjoint, max_steps=60
    )
    with pytest.raises(MapError, match=r"same map at every evaluation.*training=False"):
        run(lambda: solve(True).value, mode)
    assert np.isfinite(run(lambda: solve(False).value, mode)).all()


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_random_numbers(mode: str) -> None:
    """Those of a seed are a function of it."""
    start = tf.zeros(N)
    with pytest.raises(MapError, match="draws random numbers"):
        run(lambda: fpi.fixed_point(lambda z: 0.5 * z + tf.random.normal((N,)), start).value, mode)
    noise = lambda: tf.random.stateless_normal((N,), (1, 2))  # noqa: E731
    found = run(lambda: fpi.fixed_point(lambda z: 0.5 * z + noise(), start, rtol=1e-6).value, mode)
    np.testing.assert_allclose(found, 2.0 * noise(), rtol=1e-5)


def test_solves_within_solves_keep_their_own_watch() -> None:
    def f(z: Any) -> Any:
        inner = fpi.fixed_point(lambda w: 0.5 * w + 0.1 * z, tf.zeros(N)).value
        return inner + tf.random.normal((N,))

    with pytest.raises(MapError, match="draws random numbers"):
        fpi.fixed_point(f, tf.zeros(N))


def test_mixed_bfloat16() -> None:
    """A Keras layer that computes in bfloat16 on float32 weights: right to that precision."""
    rng = np.random.default_rng(0)
    weight = (0.15 * rng.standard_normal((8, 8))).astype("float32")
    x = rng.standard_normal((4, 8)).astype("float32")

    def gradient(policy: str, dtype: Any) -> np.ndarray:
        dense = tf.keras.layers.Dense(8, activation="tanh", dtype=policy)
        dense.build((None, 8))
        dense.kernel.assign(weight)
        with tf.GradientTape() as tape:
            sol = fpi.fixed_point(
                lambda z: dense(z + tf.cast(x, dtype)),
                tf.zeros((4, 8), dtype),
                rtol=None if dtype == tf.float32 else 0.04,
                batch_ndim=1,
            )
            loss = tf.reduce_mean(tf.cast(sol.value, tf.float32) ** 2)
        assert sol.value.dtype == dtype
        assert not any(sol.result.flat())
        return tape.gradient(loss, dense.kernel).numpy()

    exact, found = gradient("float32", tf.float32), gradient("mixed_bfloat16", tf.bfloat16)
    assert np.linalg.norm(found - exact) <= 0.08 * np.linalg.norm(exact)
