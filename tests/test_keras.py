"""Keras layers, on the backend that Keras runs on; the last test repeats them on the others."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fpicore import Anderson, Broyden, Implicit, InputError, MapError, Picard
from fpicore.verify.frameworks import installed

from .layer_cases import CASES, FEATURES, INPUTS, OPTIONS, case

_keras = pytest.importorskip("keras", reason="keras is not installed")
import fpicore_keras  # noqa: E402

from .keras_layers import BACKEND, differentiate, loaded, make, ops, parameters, tanh, twice  # noqa: E402

keras: Any = _keras
pytestmark = pytest.mark.framework("tensorflow")
CHILD = "FPICORE_KERAS_CHILD"


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradients(name: str) -> None:
    layer, expected = loaded(name)
    for training in (True, False)[: 1 if CHILD in os.environ else 2]:
        value, slope, *gradients = differentiate(layer, expected.x, expected.cotangent, training)
        expected.check(value, slope, dict(zip(expected.parameters, gradients, strict=True)))


def test_the_report_of_an_eager_call() -> None:
    layer, expected = loaded("FPINN")
    assert layer.last is None
    layer(expected.x, training=True)
    report: Any = layer.last
    assert bool(ops.all(ops.convert_to_tensor(report.result.converged)))
    steps = ops.convert_to_numpy(ops.convert_to_tensor(report.stats.steps))
    assert steps.shape == (3,)
    assert layer.summary.steps == steps.max() > 2
    assert 0.0 < layer.summary.residual <= 1.0
    assert layer.summary.failed == 0


def test_fit_save_and_load(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x, y = random.standard_normal((32, INPUTS)), random.standard_normal((32, 1))
    options = {"rtol": 1e-4, "max_steps": 60, "solver": Broyden(history=7)}
    adjoint = Implicit(solver=Anderson(history=3), rtol=1e-3, fallback=None)
    block = make("Equilibrium", "float32", adjoint=adjoint, z0=None, **options)
    layers = [block, make("FPIGD", "float32", **{**options, "solver": Picard()})]
    inputs = keras.Input((INPUTS,))
    hidden = layers[1](layers[0](inputs))
    assert tuple(hidden.shape) == (None, FEATURES)
    model = keras.Model(inputs, keras.layers.Dense(1)(hidden))
    model.compile(optimizer=keras.optimizers.Adam(0.05), loss="mse")
    losses = model.fit(x, y, batch_size=16, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    for layer in layers:
        assert layer.summary.steps > 1
        assert layer.summary.failed == 0
    path = tmp_path / "model.keras"
    model.save(path)
    twin = keras.saving.load_model(path)
    np.testing.assert_array_equal(twin.predict(x, verbose=0), model.predict(x, verbose=0))
    assert [layer.options for layer in twin.layers[1:3]] == [layer.options for layer in layers]


def test_config_of_a_start_and_of_every_option() -> None:
    layer = fpicore_keras.FPIGD(
        twice, 0.25, z0=twice, solver=Picard(damping=0.5), atol=1e-7, norm="max", max_steps=7,
        batch_ndim=2, on_failure="ignore", warm_start=True, trace=True, name="mine",
        dtype="float64",
    )  # fmt: skip
    twin = fpicore_keras.FPIGD.from_config(layer.get_config())
    assert twin.options == layer.options
    assert (twin.energy, twin.step_size, twin.name) == (twice, 0.25, "mine")
    assert twin.dtype_policy.name == "float64"
    told: dict[str, Any]
    for told in ({"adjoint": Implicit(callback=print)}, {"callback": print}):
        with pytest.raises(InputError, match="callback"):
            make("FPINN", **told).get_config()


def test_mixed_precision() -> None:
    x = np.random.default_rng(0).standard_normal((8, INPUTS)).astype("float32")
    for name in ("FixedPoint", "Equilibrium"):
        layer = make(name, "mixed_bfloat16", rtol=None)
        value = layer(x, training=True)
        assert keras.backend.standardize_dtype(value.dtype) == "bfloat16"
        assert {v.dtype for v in layer.trainable_variables} == {"float32"}
        assert layer.summary.failed == 0


def test_several_inputs_and_a_nested_state() -> None:
    """x and y; the state is a pair that starts where z0 says."""

    def f(z: Any, x: Any, y: Any) -> Any:
        return (0.5 * tanh(z[0]) + x, 0.25 * z[1] + z[0] + y)

    layer = fpicore_keras.FixedPoint(
        f, z0=lambda x, y: (ops.zeros_like(x), ops.ones_like(y)), dtype="float64", **OPTIONS
    )
    x, y = np.linspace(-1, 1, 6).reshape(2, 3), np.ones((2, 3))
    a, b = map(ops.convert_to_numpy, layer([x, y]))
    np.testing.assert_allclose(a, 0.5 * np.tanh(a) + x)
    np.testing.assert_allclose(b, (a + y) / 0.75)
    assert layer.compute_output_shape([(2, 3), (2, 3)]) == ((2, 3), (2, 3))


def test_warm_start() -> None:
    layer = make("FPINN", warm_start=True, solver=Picard())
    expected = case("FPINN")
    layer.build((3, INPUTS))
    for variable, value in zip(parameters(layer), expected.parameters.values(), strict=True):
        variable.assign(value)
    layer(expected.x, training=True)
    cold = layer.summary.steps
    layer(expected.x, training=True)
    assert layer.summary.steps <= cold / 3
    layer(expected.x[:2], training=True)
    assert layer.summary.steps > cold / 3
    with pytest.raises(InputError, match="batch_shape"):
        make("FPINN", warm_start=True).build((None, INPUTS))


def test_a_cell_that_changes_is_refused() -> None:
    for part in (keras.layers.Dropout(0.5), keras.layers.BatchNormalization()):
        network = keras.Sequential([part, keras.layers.Dense(3)])
        layer = fpicore_keras.FPINN(network, max_steps=2, on_failure="ignore")
        x = np.ones((2, 3), "float32")
        layer(x)
        with pytest.raises(InputError, match="while training"):
            layer(x, training=True)


@pytest.mark.parametrize("kind", ["spectral", "weight", None])
def test_normalisations(kind: str | None) -> None:
    """The matrix begins at the radius, and spectral normalisation holds it there."""
    block = fpicore_keras.Equilibrium(
        5, activation=tanh, normalization=kind, radius=0.7, dtype="float64"
    )
    block.build((None, 2))
    effective = lambda: ops.convert_to_numpy(block.map((X,), False)[1][0])  # noqa: E731
    X = ops.convert_to_tensor(np.ones((3, 2)))
    np.testing.assert_allclose(np.linalg.norm(effective(), 2), 0.7)
    block.recurrent.assign(np.diag([3.0, 1.0, 0.5, 0.2, 0.1]))
    for _ in range(30):
        block(X, training=True)
    norm = np.linalg.norm(effective(), 2)
    if kind == "weight":
        block.gain.assign(2.0 * np.ones(5))
        np.testing.assert_allclose(np.linalg.norm(effective(), axis=0), 2.0)
    else:
        np.testing.assert_allclose(norm, 0.7 if kind else 3.0)


def test_errors() -> None:
    wrong: dict[str, Any]
    for wrong in ({"rtol": -1.0}, {"z0": 0.5}, {"solver": "anderson"}, {"normalization": "batch"}):
        with pytest.raises(InputError):
            fpicore_keras.Equilibrium(2, **wrong)
    with pytest.raises(InputError, match="cell"):
        fpicore_keras.FixedPoint(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="step_size"):
        fpicore_keras.FPIGD(twice, 0.0)
    with pytest.raises(MapError, match="like that of z"):
        fpicore_keras.FixedPoint(lambda z, x: z[:, 1:])(np.ones((2, 3), "float32"))


SHARED = "value or fit or warm or mixed"
"""What is repeated."""


@pytest.mark.skipif(CHILD in os.environ, reason="is the repetition")
@pytest.mark.parametrize("backend", [b for b in ("torch", "jax", "tensorflow") if b != BACKEND])
def test_on_the_other_backends(backend: str) -> None:
    if not installed(backend):
        pytest.skip(f"{backend} is not installed")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-k",
            SHARED,
            __file__,
        ],
        env={**os.environ, "KERAS_BACKEND": backend, "JAX_ENABLE_X64": "1", CHILD: "1"},
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stdout[-5000:]
