"""JAX's layers, flax nnx modules: values and gradients of a dense reference, and training."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")
nnx: Any = pytest.importorskip("flax.nnx", reason="flax is not installed")

import jax.numpy as jnp  # noqa: E402
import optax  # noqa: E402

import fpicore_jax as fpi  # noqa: E402
from fpicore_jax import nn  # noqa: E402

from .labs import Lab  # noqa: E402
from .layer_cases import (  # noqa: E402
    CASES,
    FEATURES,
    HIDDEN,
    INPUTS,
    OPTIONS,
    RADIUS,
    STEP,
    Case,
    case,
    singular,
)

pytestmark = pytest.mark.framework("jax")


@pytest.fixture(autouse=True)
def precision() -> Iterator[None]:
    with Lab("jax").precision():
        yield


def linear(n: int, m: int, **options: Any) -> Any:
    return nnx.Linear(n, m, param_dtype=jnp.float64, rngs=nnx.Rngs(0), **options)


class Cell(nnx.Module):
    def __init__(self) -> None:
        self.kernel = linear(FEATURES, FEATURES, use_bias=False)
        self.inject = linear(INPUTS, FEATURES)

    def __call__(self, z: Any, x: Any) -> Any:
        return jnp.tanh(self.kernel(z) + self.inject(x))


class Energy(nnx.Module):
    def __init__(self) -> None:
        self.linear = linear(INPUTS + FEATURES, HIDDEN)

    def __call__(self, z: Any, x: Any) -> Any:
        hidden = self.linear(jnp.concatenate([x, z], -1))
        return 0.5 * jnp.sum(z * z, -1) + jnp.sum(jnp.log(jnp.cosh(hidden)), -1)


def make(name: str, **options: Any) -> Any:
    options = {**OPTIONS, **options}
    if name == "FixedPoint":
        return nn.FixedPoint(Cell(), z0=FEATURES, **options)
    if name == "FPINN":
        first, second = linear(INPUTS + FEATURES, HIDDEN), linear(HIDDEN, FEATURES)
        return nn.FPINN(nnx.Sequential(first, jnp.tanh, second), z0=FEATURES, **options)
    if name == "FPIGD":
        return nn.FPIGD(Energy(), STEP, z0=FEATURES, **options)
    return nn.Equilibrium(
        INPUTS, FEATURES, radius=RADIUS, rngs=nnx.Rngs(0), param_dtype=jnp.float64, **options
    )


def parameters(layer: Any) -> dict[str, Any]:
    """The parameters under the names of the cases."""
    if isinstance(layer, nn.FPINN):
        first, _, second = layer.network.layers
        return {"w1": first.kernel, "b1": first.bias, "w2": second.kernel, "b2": second.bias}
    if type(layer).__name__ == "FPIGD":
        return {"w": layer.energy.linear.kernel, "b": layer.energy.linear.bias}
    if isinstance(layer, nn.Equilibrium):
        return {"kernel": layer.recurrent, "inject": layer.inject.kernel, "bias": layer.inject.bias}
    cell = layer.cell
    return {"kernel": cell.kernel.kernel, "inject": cell.inject.kernel, "bias": cell.inject.bias}


def loaded(name: str, **options: Any) -> tuple[Any, Case]:
    layer, expected = make(name, **options), case(name)
    for key, parameter in parameters(layer).items():
        parameter.set_value(jnp.asarray(expected.parameters[key]))
    if name == "Equilibrium":
        layer.left.set_value(jnp.asarray(singular(expected.parameters["kernel"])[0]))
    return layer, expected


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradients(name: str) -> None:
    """By nnx.grad in nnx.jit, which bring the summary out."""
    layer, expected = loaded(name)

    @nnx.jit
    def derive(layer: Any, x: Any) -> Any:
        def loss(layer: Any, x: Any) -> Any:
            value = layer(x)
            return jnp.sum(value * expected.cotangent), value

        return nnx.grad(loss, argnums=(0, 1), has_aux=True)(layer, x)

    (slopes, slope), value = derive(layer, jnp.asarray(expected.x))
    twin = nnx.clone(layer)
    nnx.update(twin, slopes)
    gradients = {key: np.asarray(p.get_value()) for key, p in parameters(twin).items()}
    expected.check(np.asarray(value), np.asarray(slope), gradients)
    assert layer.summary.steps > 2
    assert layer.summary.residual <= 1.0
    assert layer.summary.failed == 0


def test_by_split_and_merge_and_closed_over() -> None:
    """The layer under plain JAX transforms, also forward mode and the second derivative."""
    layer, expected = loaded("FPIGD")
    graph, mine, rest = nnx.split(layer, nnx.Param, ...)
    x = jnp.asarray(expected.x)

    def loss(mine: Any) -> Any:
        return jnp.sum(nnx.merge(graph, mine, rest)(x) * expected.cotangent)

    slopes = jax.jit(jax.grad(loss))(mine)
    twin = nnx.merge(graph, slopes, rest)
    for found, exact in zip(
        parameters(twin).values(), expected.reference.gradients[1:], strict=True
    ):
        np.testing.assert_allclose(found.get_value(), exact, rtol=1e-8, atol=1e-9)
    total = jax.jit(jax.grad(lambda x: jnp.sum(layer(x) * expected.cotangent)))
    np.testing.assert_allclose(total(x), expected.reference.gradients[0], rtol=1e-8, atol=1e-9)
    assert layer.summary.steps == 0  # could not be written to
    _, forward = jax.jvp(lambda x: layer(x), (x,), (jnp.ones_like(x),))
    np.testing.assert_allclose(
        jnp.sum(forward * expected.cotangent), expected.reference.gradients[0].sum(), rtol=1e-8
    )


def test_training() -> None:
    """An optimiser step a call, in single precision, with a block that keeps its radius."""
    x, y = jax.random.normal(jax.random.key(0), (2, 16, 4), "float32")
    layer: Any = nn.Equilibrium(4, 4, radius=0.7, rngs=nnx.Rngs(0), warm_start=True)
    optimizer = nnx.Optimizer(layer, optax.sgd(0.2), wrt=nnx.Param)

    @nnx.jit
    def train(layer: Any, optimizer: Any) -> Any:
        loss, slopes = nnx.value_and_grad(lambda layer: jnp.mean((layer(x) - y) ** 2))(layer)
        optimizer.update(layer, slopes)
        return loss

    losses, steps = [], []
    for _ in range(12):
        losses.append(float(train(layer, optimizer)))
        steps.append(int(layer.summary.steps))
    assert losses[-1] < losses[0]
    assert steps[-1] < steps[0]
    layer.eval()
    norm = jnp.linalg.norm(layer.map(x)[1][0], 2)
    np.testing.assert_allclose(norm, 0.7, rtol=2e-2)
    before = layer.left.get_value()
    layer(x)
    np.testing.assert_array_equal(layer.left.get_value(), before)


def test_normalisation_by_weight_and_none() -> None:
    for kind in ("weight", None):
        layer = nn.Equilibrium(2, 5, radius=0.6, rngs=nnx.Rngs(0), normalization=kind)
        weight = lambda layer=layer: layer.map(jnp.ones((1, 2)))[1][0]  # noqa: E731
        np.testing.assert_allclose(jnp.linalg.norm(weight(), 2), 0.6, rtol=1e-5)
        layer.recurrent.set_value(3.0 * layer.recurrent.get_value())
        np.testing.assert_allclose(jnp.linalg.norm(weight(), 2), 0.6 if kind else 1.8, rtol=1e-5)


def test_warm_start() -> None:
    """A system that did not converge starts afresh, the others where they ended."""
    f = lambda z, x: {"a": jnp.cos(z["a"]) * x}  # noqa: E731
    layer = nn.FixedPoint(
        f, z0=lambda x: {"a": 0.0 * x + 0.25}, warm_start=True, solver=fpi.Picard(), max_steps=60,
        on_failure="ignore",
    )  # fmt: skip
    x = jnp.array([[0.5], [30.0]])
    value = layer(x)["a"]
    kept = layer.kept.get_value()["a"]
    np.testing.assert_array_equal(kept, [value[0], [0.25]])
    assert layer.summary.failed == 1
    layer(x[:1])
    assert layer.summary.steps > 3  # another shape
    layer(x[:1])
    assert layer.summary.steps <= 2


def test_a_module_that_changes_is_refused() -> None:
    for part in (nnx.Dropout(0.5, rngs=nnx.Rngs(0)), nnx.BatchNorm(4, rngs=nnx.Rngs(0))):
        layer = nn.FPINN(nnx.Sequential(part, nnx.Linear(4, 2, rngs=nnx.Rngs(0))))
        with pytest.raises(Exception, match=r"training=False|different trace level"):
            layer(jnp.ones((3, 2), jnp.float32))


def test_a_layer_that_keeps_nothing() -> None:
    layer, expected = loaded("FPINN", batch_ndim=0)
    layer.summary = None
    value = nnx.vmap(lambda layer, x: layer(x), in_axes=(None, 0))(layer, jnp.asarray(expected.x))
    np.testing.assert_allclose(value, expected.reference.value, rtol=1e-9)


def test_a_callback() -> None:
    told: list[fpi.Progress] = []
    layer, expected = loaded("FixedPoint", callback=told.append)
    nnx.jit(lambda layer, x: layer(x))(layer, jnp.asarray(expected.x))
    jax.effects_barrier()
    assert len(told) == int(layer.summary.get_value().steps) + 1


def test_a_step_that_is_a_parameter() -> None:
    layer = nn.FPIGD(lambda z, x: jnp.sum((z - x) ** 2), nnx.Param(jnp.array(0.3)))
    np.testing.assert_allclose(layer(jnp.ones((2, 3))), 1.0, rtol=1e-4)
    assert len(jax.tree.leaves(nnx.state(layer, nnx.Param))) == 1


def test_errors() -> None:
    with pytest.raises(fpi.InputError, match="cell"):
        nn.FixedPoint(3)  # type: ignore[arg-type]
    for wrong in ({"rtol": -1.0}, {"normalization": "batch"}, {"activation": "swish"}):
        with pytest.raises(fpi.InputError):
            nn.Equilibrium(2, 3, rngs=nnx.Rngs(0), **wrong)  # type: ignore[arg-type]
    with pytest.raises(fpi.MapError, match="like that of z"):
        nn.FixedPoint(lambda z, x: z[:, 1:])(jnp.ones((2, 3)))
