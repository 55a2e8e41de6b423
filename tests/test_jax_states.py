"""States and arguments of every kind in JAX, and solves within solves, to the second order."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")

import jax.numpy as jnp  # noqa: E402

import fpicore_jax as fpi  # noqa: E402

from .compilers import forget  # noqa: E402
from .problems import LEAN  # noqa: E402

pytestmark = pytest.mark.framework("jax")
RANDOM = np.random.default_rng(41)
TIGHT: dict[str, Any] = {
    "solver": fpi.Picard(), "adjoint": LEAN, "rtol": 1e-13, "max_steps": 300,
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield
    forget()


def test_bfloat16_state_with_float32_sums() -> None:
    """The Gram matrix and the residual are float32, z and its gradient bfloat16."""
    weight = 0.5 * np.linalg.qr(RANDOM.standard_normal((16, 16)))[0]

    def loss(shift: Any, dtype: str) -> Any:
        w = jnp.asarray(weight, dtype)
        sol = fpi.fixed_point(lambda z: jnp.tanh(w @ z + shift), jnp.zeros(16, dtype))
        return (sol.value.astype("float64") ** 2).sum(), sol

    shift = RANDOM.standard_normal(16)
    found, sol = jax.grad(loss, has_aux=True)(jnp.asarray(shift, "bfloat16"), "bfloat16")
    wanted, _ = jax.grad(loss, has_aux=True)(jnp.asarray(shift), "float64")
    assert (sol.value.dtype, sol.stats.residual.dtype) == (jnp.bfloat16, jnp.float32)
    assert found.dtype == jnp.bfloat16
    assert bool(sol.converged)
    assert np.linalg.norm(np.asarray(found, float) - wanted) < 0.05 * np.linalg.norm(wanted)


def test_complex_state_in_the_convention_of_jax() -> None:
    """z = A tanh(z) + c + conj(z)/5, not holomorphic, against its real and imaginary parts."""
    matrix = 0.3 * (RANDOM.standard_normal((3, 3)) + 1j * RANDOM.standard_normal((3, 3)))
    shift = RANDOM.standard_normal(3) + 1j * RANDOM.standard_normal(3)
    weights = jnp.asarray(RANDOM.standard_normal(3))

    def f(z: Any, a: Any, c: Any) -> Any:
        return a @ (z / (1.0 + jnp.abs(z) ** 2)) + c + 0.2 * jnp.conj(z)

    def loss(z: Any) -> Any:
        return (weights * (z.real**2 + z.real * z.imag)).sum()

    def by_parts(parts: Any) -> Any:
        a, c = (part[0] + 1j * part[1] for part in parts)
        pair = lambda z: (z.real, z.imag)  # noqa: E731
        zero = (jnp.zeros(3), jnp.zeros(3))
        z = fpi.fixed_point(lambda z: pair(f(z[0] + 1j * z[1], a, c)), zero, **TIGHT).value
        return loss(z[0] + 1j * z[1])

    def whole(a: Any, c: Any) -> Any:
        return loss(fpi.fixed_point(f, jnp.zeros(3, complex), (a, c), **TIGHT).value)

    args = (jnp.asarray(matrix), jnp.asarray(shift))
    found = jax.grad(whole, argnums=(0, 1))(*args)
    parts = jax.grad(by_parts)(tuple((x.real, x.imag) for x in args))
    for each, (real, imaginary) in zip(found, parts, strict=True):
        np.testing.assert_allclose(each, real - 1j * imaginary, rtol=1e-8, atol=1e-11)
    along = jax.jvp(lambda c: whole(args[0], c), (args[1],), (1j * jnp.ones(3),))[1]
    np.testing.assert_allclose(along, sum(parts[1][1]), rtol=1e-8)


def test_leaves_of_two_precisions() -> None:
    """float32 and float64 leaves keep their dtypes, in z and in the gradient."""

    def loss(p: Any) -> Any:
        kind = p["narrow"].dtype

        def f(z: Any) -> Any:
            narrow = 0.5 * jnp.sin(z["narrow"]) + p["narrow"] + 0.1 * z["wide"].astype(kind)
            return {"narrow": narrow, "wide": p["wide"] - 0.4 * z["narrow"].astype("float64")}

        zero = {"narrow": jnp.zeros(2, kind), "wide": jnp.zeros(2)}
        z = fpi.fixed_point(f, zero, rtol=1e-6).value
        return z["wide"].sum() + z["narrow"].sum()

    p = {"narrow": jnp.array([0.3, -0.2], "float32"), "wide": jnp.array([1.0, 0.5])}
    found = jax.grad(loss)(p)
    assert {k: v.dtype.name for k, v in found.items()} == {"narrow": "float32", "wide": "float64"}
    wide = jax.grad(loss)(jax.tree.map(lambda leaf: leaf.astype("float64"), p))
    for key in p:
        np.testing.assert_allclose(found[key], wide[key], rtol=1e-4)


def test_integer_and_key_arguments() -> None:
    """Indices have float0 tangents; a key among the arguments is the same noise in every step."""

    def value(theta: Any, index: Any, key: Any) -> Any:
        def f(z: Any, t: Any, i: Any, k: Any) -> Any:
            noise = jax.random.bernoulli(k, 0.5, t.shape)
            return jnp.where(noise, t[i], 0.1) - 0.5 * z

        return fpi.fixed_point(f, jnp.zeros(3), (theta, index, key), **TIGHT)

    theta, index, key = jnp.arange(1.0, 4.0), jnp.array([2, 0, 2]), jax.random.key(4)
    mask = np.asarray(jax.random.bernoulli(key, 0.5, (3,)))
    assert mask.any()
    sol = value(theta, index, key)
    assert bool(sol.converged)
    loss = lambda t, i: value(t, i, key).value.sum()  # noqa: E731
    none = np.zeros(3, jax.dtypes.float0)
    along = jax.jvp(loss, (theta, index), (jnp.ones(3), none))[1]
    np.testing.assert_allclose(along, mask.sum() / 1.5, rtol=1e-10)
    found = jax.grad(loss, argnums=(0, 1), allow_int=True)(theta, index)
    wanted = np.bincount(np.asarray(index), weights=mask / 1.5, minlength=3)
    np.testing.assert_allclose(found[0], wanted, rtol=1e-10)
    assert found[1].dtype == jax.dtypes.float0


def test_map_that_ignores_its_state_and_start_that_is_differentiated() -> None:
    def loss(theta: Any, start: Any) -> Any:
        z = fpi.fixed_point(lambda z, t: t**3, start, (theta,), **TIGHT).value
        return (z**2).sum()

    given = (jnp.array([0.5, -2.0]), jnp.array([1.0, 2.0]))
    found, start = jax.grad(loss, argnums=(0, 1))(*given)
    np.testing.assert_allclose(found, 6 * given[0] ** 5, rtol=1e-10)
    np.testing.assert_array_equal(start, 0.0)
    unit = jnp.ones(2), jnp.zeros(2)
    second = jax.jvp(jax.grad(loss), given, unit)[1]
    np.testing.assert_allclose(second, 30 * given[0] ** 4, rtol=1e-9)


def test_value_used_twice_two_solves_and_aux_to_the_second_order() -> None:
    """a = θ − a/2 and b = aθ − b/2: a = θ/1.5, b = θ²/1.5²; aux is a²θ."""

    def loss(theta: Any) -> Any:
        first = fpi.fixed_point(
            lambda z, t: (t - 0.5 * z, z * z * t), jnp.zeros(()), (theta,), has_aux=True, **TIGHT
        )
        a = first.value
        b = fpi.fixed_point(lambda z: a * theta - 0.5 * z, jnp.zeros(()), **TIGHT).value
        return a * a + jnp.sin(a) + b + first.aux

    def exact(t: Any) -> Any:
        a = t / 1.5
        return a * a + jnp.sin(a) + t * t / 2.25 + a * a * t

    for order in (jax.grad, lambda f: jax.grad(jax.grad(f))):
        found, wanted = (jax.jit(order(f))(jnp.array(0.7)) for f in (loss, exact))
        np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_solve_within_a_solve_to_the_second_order() -> None:
    """Inner y = z sin(y)/2 + θ; outer z = cos(y)/2. Newton's method on both says the same."""

    def loss(theta: Any) -> Any:
        def outer(z: Any, t: Any) -> Any:
            inner = fpi.fixed_point(lambda y: 0.5 * z * jnp.sin(y) + t, jnp.zeros(()), **TIGHT)
            return 0.5 * jnp.cos(inner.value)

        options = {**TIGHT, "rtol": 1e-12}
        return fpi.fixed_point(outer, jnp.zeros(()), (theta,), **options).value

    def newton(theta: Any) -> Any:
        def residual(u: Any) -> Any:
            return jnp.stack(
                [0.5 * jnp.cos(u[1]) - u[0], 0.5 * u[0] * jnp.sin(u[1]) + theta - u[1]]
            )

        u = jnp.zeros(2)
        for _ in range(8):
            u = u - jnp.linalg.solve(jax.jacfwd(residual)(u), residual(u))
        return u[0]

    theta = jnp.array(0.4)
    both = lambda f: (jax.grad(f)(theta), jax.jvp(jax.grad(f), (theta,), (1.0,))[1])  # noqa: E731
    wanted = jax.jit(lambda: both(newton))()
    np.testing.assert_allclose(jax.jit(lambda: both(loss))(), wanted, rtol=1e-8)
