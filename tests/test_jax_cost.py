"""What a gradient costs in JAX: programs compiled, evaluations of f, collectable memory."""

import gc
import time
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")

import jax.numpy as jnp  # noqa: E402

import fpicore_jax as fpi  # noqa: E402

pytestmark = pytest.mark.framework("jax")
RANDOM = np.random.default_rng(51)
WEIGHT = 0.5 * np.linalg.qr(RANDOM.standard_normal((128, 128)))[0]
DATA = RANDOM.standard_normal((32, 128))


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield
    jax.clear_caches()


def layer_loss(weight: Any, adjoint: Any = None) -> Any:
    data = jnp.asarray(DATA)
    sol = fpi.fixed_point(
        lambda z: jnp.tanh(z @ weight.T + data),
        jnp.zeros_like(data),
        solver=fpi.Picard(),
        adjoint=adjoint,
        batch_ndim=1,
    )
    return (sol.value**2).sum()


def test_second_unjitted_gradient_compiles_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Nor does a second Hessian product: the adjoint loop runs in Python, as the forward one."""
    weight, other = jnp.asarray(WEIGHT), jnp.asarray(0.9 * WEIGHT)
    gradient = jax.grad(layer_loss)

    def twice(w: Any) -> Any:
        return gradient(w), jax.jvp(gradient, (w,), (w,))[1]

    jax.block_until_ready(twice(weight))
    started = time.perf_counter()
    with jax.log_compiles(True), caplog.at_level("WARNING", logger="jax"):
        jax.block_until_ready(gradient(other))
        taken = time.perf_counter() - started
        jax.block_until_ready(twice(other))
    compiled = [r.getMessage() for r in caplog.records if "XLA compilation" in r.getMessage()]
    assert compiled == []
    assert taken < 0.5  # it took as long as a compilation before; a few hundredths on a free core


@pytest.mark.parametrize("adjoint", [None, fpi.Implicit(fallback=fpi.Anderson())])
def test_compiled_gradient_evaluates_f_in_the_loop_and_once_more(adjoint: Any) -> None:
    """One tanh in the forward loop, one for the linearisation; a fallback has products alone."""
    compiled = (
        jax.jit(jax.grad(lambda w: layer_loss(w, adjoint))).lower(jnp.asarray(WEIGHT)).compile()
    )
    assert (compiled.as_text() or "").count(" tanh(") == 2


def test_nothing_outlives_its_use() -> None:
    """No reference cycle holds the arrays of a solve, with its derivative or without."""

    class Map:
        """Something that a weak reference can watch."""

        def __init__(self, shift: Any) -> None:
            self.shift = shift

        def __call__(self, z: Any) -> Any:
            return 0.5 * jnp.sin(z) + self.shift

    watched: list[Any] = []

    def loss(theta: Any) -> Any:
        f = Map(theta)
        watched.append(weakref.ref(f))
        return fpi.fixed_point(f, jnp.zeros(2), solver=fpi.Picard()).value.sum()

    theta = jnp.array([0.3, 0.4])
    loss(theta)
    gc.collect()
    gc.disable()
    try:
        loss(theta)
        jax.grad(loss)(theta)
        assert [ref() for ref in watched] == [None] * 3
    finally:
        gc.enable()
