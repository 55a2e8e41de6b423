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

from .compilers import compilations, forget  # noqa: E402

pytestmark = pytest.mark.framework("jax")
RANDOM = np.random.default_rng(51)
WEIGHT = 0.5 * np.linalg.qr(RANDOM.standard_normal((128, 128)))[0]
DATA = RANDOM.standard_normal((32, 128))


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    jax.clear_caches()  # what other tests compiled would be no cost here
    with jax.enable_x64(True):
        yield
    forget()


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
    """Nor does a second Hessian product."""
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
    assert compilations(caplog) == []
    assert taken < 0.5  # it took as long as a compilation before; a few hundredths on a free core


def along(scale: Any) -> Any:
    """Six numbers of z*, as a function of one or of two."""
    data = jnp.asarray(DATA[:4, :3])
    return fpi.fixed_point(
        lambda z: 0.5 * jnp.tanh(z + jnp.sum(scale) * data), jnp.zeros((4, 3)), batch_ndim=1,
        solver=fpi.Picard(), adjoint=fpi.Implicit(fallback=None),
    ).value[::2]  # fmt: skip


MAPPED = {
    "vmap": lambda t: jax.vmap(along)(t),
    "gradient of vmap": jax.grad(lambda t: jax.vmap(along)(t).sum()),
    "jacrev": jax.jacrev(along),
    "hessian": jax.hessian(lambda t: along(t).sum()),
}


@pytest.mark.parametrize("name", MAPPED)
def test_second_unjitted_call_of_a_map_compiles_nothing(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """And gives what the compiled one gives."""
    theta, other = jnp.array([0.3, 0.1]), jnp.array([0.9, 0.0])
    MAPPED[name](theta)
    with jax.log_compiles(True), caplog.at_level("WARNING", logger="jax"):
        found = MAPPED[name](other)
    assert compilations(caplog) == []
    np.testing.assert_allclose(found, jax.jit(MAPPED[name])(other), rtol=1e-12, atol=1e-15)


def test_unjitted_lanes_end_as_compiled_ones() -> None:
    """At once, after some steps, never; and each counts its own."""

    def solve(theta: Any) -> Any:
        return fpi.fixed_point(
            lambda z: theta * z + 1.0, jnp.zeros(2), solver=fpi.Picard(), max_steps=30,
            on_failure="ignore",
        )  # fmt: skip

    thetas = jnp.array([0.0, 0.5, jnp.nan, 2.0])
    found, wanted = jax.vmap(solve)(thetas), jax.jit(jax.vmap(solve))(thetas)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("adjoint", [None, fpi.Implicit(fallback=fpi.Anderson())])
def test_compiled_gradient_evaluates_f_in_the_loop_and_once_more(adjoint: Any) -> None:
    """One tanh in the forward loop, one for the linearisation; a fallback has products alone."""
    compiled = (
        jax.jit(jax.grad(lambda w: layer_loss(w, adjoint))).lower(jnp.asarray(WEIGHT)).compile()
    )
    assert (compiled.as_text() or "").count(" tanh(") == 2


@pytest.mark.parametrize(
    ("shape", "batch_ndim", "memory"), [((5, 7, 3), 1, "5x6x21"), ((1, 105), 0, "6x105")]
)
def test_history_is_multiplied_as_it_lies(
    shape: tuple[int, ...], batch_ndim: int, memory: str
) -> None:
    """What is reshaped or transposed between its update and the products is copied in each step."""

    def solve(data: Any) -> Any:
        return fpi.fixed_point(
            lambda z: 0.5 * jnp.sin(z) + data, jnp.zeros(shape),
            solver=fpi.Anderson(5), batch_ndim=batch_ndim,
        ).value  # fmt: skip

    lines = jax.jit(solve).lower(jnp.ones(shape)).as_text().splitlines()
    used = [line for line in lines if f"tensor<{memory}xf64>" in line]
    assert sum("dot_general" in line for line in used) == 1
    assert not [line for line in used if "reshape" in line or "transpose" in line]


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
