"""What only JAX has: transforms of every order, compiled control flow, modules of two libraries."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")

import jax.numpy as jnp  # noqa: E402

import fpicore_jax as fpi  # noqa: E402
from fpicore import Result  # noqa: E402

from .problems import sine_derivative  # noqa: E402

pytestmark = pytest.mark.framework("jax")

THETA = np.array([0.4, -0.7])


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def solve(theta: Any, **options: Any) -> Any:
    """z = θ sin z + 1; one system."""
    options = {"rtol": 1e-12, "on_failure": "ignore", **options}
    return fpi.fixed_point(
        lambda z, t: t * jnp.sin(z) + 1.0, jnp.zeros_like(theta), (theta,), **options
    )


def value(theta: Any, **options: Any) -> Any:
    return solve(theta, **options).value


def slope(theta: np.ndarray) -> np.ndarray:
    return sine_derivative(theta.ravel(), 1).reshape(theta.shape)


def test_vmap_equals_batch() -> None:
    thetas = jnp.linspace(-0.8, 0.8, 6).reshape(3, 2)
    mapped = jax.jit(jax.vmap(value))(thetas)
    batched = value(thetas, batch_ndim=1)
    np.testing.assert_allclose(mapped, batched, rtol=1e-10)


def test_vmapped_lanes_stop_on_their_own() -> None:
    thetas = jnp.array([[0.0], [0.9]])
    sol = jax.vmap(solve)(thetas)
    assert sol.result.codes.tolist() == [0, 0]
    assert sol.stats.steps[0] < sol.stats.steps[1]


def test_nan_in_one_lane_harms_no_other() -> None:
    thetas = jnp.array([[0.3], [jnp.nan], [0.5]])
    run = jax.jit(jax.vmap(solve))
    sol, healthy = run(thetas), run(jnp.nan_to_num(thetas))
    assert sol.result.codes.tolist() == [0, Result.NONFINITE, 0]
    np.testing.assert_array_equal(sol.value[::2], healthy.value[::2])


def test_gradient_of_vmap_and_vmap_of_gradient() -> None:
    thetas = np.linspace(-0.8, 0.8, 6).reshape(3, 2)
    outside = jax.grad(lambda t: jax.vmap(value)(t).sum())(jnp.asarray(thetas))
    inside = jax.jit(jax.vmap(jax.grad(lambda t: value(t).sum())))(jnp.asarray(thetas))
    np.testing.assert_allclose(outside, slope(thetas), rtol=1e-9)
    np.testing.assert_allclose(inside, slope(thetas), rtol=1e-9)


def test_scan() -> None:
    """A recurrent use: every solve starts where the last one ended."""

    def chain(theta: Any) -> Any:
        def body(carry: Any, drive: Any) -> Any:
            z = fpi.fixed_point(
                lambda z: theta * jnp.sin(z) + drive, carry, rtol=1e-12, on_failure="ignore"
            ).value
            return z, z

        _, values = jax.lax.scan(body, jnp.zeros(2), jnp.array([0.5, 1.0]))
        return values[-1].sum()

    found = jax.jit(jax.grad(chain))(jnp.asarray(THETA))
    np.testing.assert_allclose(found, slope(THETA), rtol=1e-9)


def test_cond_and_checkpoint() -> None:
    def branch(theta: Any) -> Any:
        solved = jax.checkpoint(lambda t: value(t).sum())
        return jax.lax.cond(theta.sum() < 1.0, solved, jnp.sum, theta)

    found = jax.jit(jax.grad(branch))(jnp.asarray(THETA))
    np.testing.assert_allclose(found, slope(THETA), rtol=1e-9)


def test_solution_is_a_pytree() -> None:
    sol = jax.jit(solve)(jnp.asarray(THETA))
    assert isinstance(sol, fpi.Solution)
    assert isinstance(sol.value, jax.Array)
    assert str(sol.result).startswith("CONVERGED")
    assert bool(sol.converged)
    assert sol.backward is None
    eager = solve(jnp.asarray(THETA))
    assert int(sol.stats.evaluations) == int(eager.stats.evaluations)
    np.testing.assert_allclose(sol.value, eager.value, rtol=1e-13)


def test_traced_results_have_a_repr() -> None:
    seen: list[str] = []

    def run(theta: Any) -> Any:
        sol = solve(theta)
        seen.append(str(sol.result))
        return sol.value

    jax.jit(run)(jnp.asarray(THETA))
    assert seen[0].startswith("Results(codes=")


def test_float32_without_x64() -> None:
    with jax.enable_x64(False):
        sol = fpi.fixed_point(lambda z: 0.5 * jnp.sin(z) + 1.0, jnp.zeros(3), rtol=1e-5)
        assert sol.value.dtype == jnp.float32
        assert sol.stats.residual.dtype == jnp.float32
        assert bool(sol.converged)
        gradient = jax.grad(lambda t: value(t, rtol=1e-5).sum())(jnp.asarray(THETA))
    np.testing.assert_allclose(gradient, slope(THETA), rtol=1e-4)


@pytest.mark.parametrize("scale", [1e30, 1e-30])
@pytest.mark.parametrize("solver", [fpi.Anderson(), fpi.Broyden()], ids=lambda s: s.name)
def test_float32_numbers_far_from_one(solver: Any, scale: float) -> None:
    """Without x64 inner products themselves are float32: they overflow, the answer does not."""
    with jax.enable_x64(False):
        sol = fpi.fixed_point(
            lambda z: scale - 0.5 * z, jnp.zeros(5), solver=solver, rtol=1e-5, on_failure="ignore"
        )
        assert bool(sol.converged)
    np.testing.assert_allclose(sol.value, scale / 1.5, rtol=2e-5)


def test_weak_types_and_numpy_start() -> None:
    assert fpi.fixed_point(lambda z: 0.5 * z + 1.0, np.zeros(3)).value.shape == (3,)
    assert float(fpi.fixed_point(lambda z: 0.5 * z + 1, jnp.array(0.0)).value) == pytest.approx(
        2, rel=1e-3
    )


def test_equinox_module_as_closure_and_argument() -> None:
    eqx = pytest.importorskip("equinox")
    layer = eqx.nn.Linear(3, 3, key=jax.random.key(0), dtype=jnp.float64)
    layer = eqx.tree_at(lambda m: m.weight, layer, 0.5 * layer.weight)

    def loss(layer: Any, closure: bool) -> Any:
        f = (lambda z: jnp.tanh(layer(z))) if closure else (lambda z, m: jnp.tanh(m(z)))
        args = () if closure else (layer,)
        return fpi.fixed_point(f, jnp.zeros(3), args, rtol=1e-12).value.sum()

    _check_linear(
        [eqx.filter_grad(loss)(layer, closure) for closure in (True, False)],
        np.asarray(layer.weight),
        np.asarray(layer.bias),
    )


def test_flax_module_as_closure_and_argument() -> None:
    nnx = pytest.importorskip("flax.nnx")
    layer = nnx.Linear(3, 3, rngs=nnx.Rngs(0), param_dtype=jnp.float64, dtype=jnp.float64)

    layer.kernel[...] = 0.4 * layer.kernel[...]

    def loss(layer: Any, closure: bool) -> Any:
        f = (lambda z: jnp.tanh(layer(z) + 0.3)) if closure else (lambda z, m: jnp.tanh(m(z) + 0.3))
        args = () if closure else (layer,)
        return fpi.fixed_point(f, jnp.zeros(3), args, rtol=1e-12).value.sum()

    found = [nnx.grad(lambda m, c=closure: loss(m, c))(layer) for closure in (True, False)]
    gradients = [_Linear(np.asarray(g.kernel[...]).T, np.asarray(g.bias[...])) for g in found]
    _check_linear(gradients, np.asarray(layer.kernel[...]).T, np.asarray(layer.bias[...]) + 0.3)


class _Linear:
    def __init__(self, weight: np.ndarray, bias: np.ndarray) -> None:
        self.weight, self.bias = weight, bias


def _check_linear(found: list[Any], weight: np.ndarray, bias: np.ndarray) -> None:
    """Against the dense adjoint of Σ z, z = tanh(W z + b)."""
    z = np.zeros(3)
    for _ in range(500):
        z = np.tanh(weight @ z + bias)
    diagonal = 1 - z**2
    g = diagonal * np.linalg.solve(np.eye(3) - (weight.T * diagonal), np.ones(3))
    for gradient in found:
        np.testing.assert_allclose(gradient.weight, np.outer(g, z), rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(gradient.bias, g, rtol=1e-8)


def test_registered_pytree_as_state() -> None:
    @jax.tree_util.register_pytree_node_class
    class Pair:
        def __init__(self, a: Any, b: Any) -> None:
            self.a, self.b = a, b

        def tree_flatten(self) -> Any:
            return (self.a, self.b), None

        @classmethod
        def tree_unflatten(cls, _: Any, children: Any) -> Any:
            return cls(*children)

    sol = fpi.fixed_point(
        lambda z: Pair(0.5 * z.b, 0.5 * z.a + 1.0), Pair(jnp.zeros(2), jnp.zeros(2)), rtol=1e-9
    )
    np.testing.assert_allclose(sol.value.a, 2 / 3, rtol=1e-7)
    np.testing.assert_allclose(sol.value.b, 4 / 3, rtol=1e-7)


def test_second_eager_call_compiles_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """An un-jitted call compiles its step once for a solver and a shape."""
    solve(jnp.asarray(THETA))
    with jax.log_compiles(True), caplog.at_level("WARNING", logger="jax"):
        solve(jnp.asarray(2.0 * THETA))
    compiled = [r.getMessage() for r in caplog.records if "ompil" in r.getMessage()]
    assert not [message for message in compiled if "_update" in message or "while" in message]
