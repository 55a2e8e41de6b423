"""Derivatives in JAX to the third order, in every mode and by every way into f."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")

import jax.numpy as jnp  # noqa: E402
from jax.test_util import check_grads  # noqa: E402

import fpicore_jax as fpi  # noqa: E402

from .compilers import forget  # noqa: E402
from .problems import LEAN, sine_derivative  # noqa: E402

pytestmark = pytest.mark.framework("jax")

N = 3
RANDOM = np.random.default_rng(21)
MATRIX = 0.4 * RANDOM.standard_normal((N, N))
THETA, WEIGHTS = RANDOM.standard_normal((2, N))
OPTIONS: dict[str, Any] = {
    "solver": fpi.Picard(), "adjoint": LEAN, "rtol": 1e-13, "max_steps": 400,
}  # fmt: skip
"""The solver that compiles fastest, without another to follow it."""


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield
    forget()


def step(z: Any, theta: Any) -> Any:
    return jnp.tanh(jnp.asarray(MATRIX) @ z + theta)


def newton(theta: Any) -> Any:
    """z*, with derivatives to the third order.

    Newton's first step from z* held constant has the first derivative, its second the third.
    """
    z = np.zeros(N)
    for _ in range(400):
        z = np.tanh(MATRIX @ z + THETA)
    for _ in range(2):
        slope = jnp.asarray(MATRIX) * (1.0 - step(z, theta) ** 2)[:, None]
        z = z + jnp.linalg.solve(jnp.eye(N) - slope, step(z, theta) - z)
    return z


def by_argument(theta: Any) -> Any:
    return fpi.fixed_point(step, jnp.zeros(N), (theta,), **OPTIONS).value


def by_closure(theta: Any) -> Any:
    """With all that the default adjoint compiles."""
    moved, options = 1.0 * theta, {**OPTIONS, "adjoint": None}
    return fpi.fixed_point(lambda z: step(z, moved), jnp.zeros(N), **options).value


def by_nested_state(theta: Any) -> Any:
    """The same map with a state in two leaves, of which one is passed on unchanged by θ."""

    def f(z: Any, p: Any, count: Any) -> Any:
        whole = step(jnp.concatenate([z["a"], z["b"][0]]), p["theta"])
        cut = count.astype(whole.dtype) - 1.0
        return {"a": cut * whole[:1], "b": [cut * whole[1:]]}

    zero = {"a": jnp.zeros(1), "b": [jnp.zeros(N - 1)]}
    args = ({"theta": theta}, jnp.array(2))  # an integer among the arguments
    z = fpi.fixed_point(f, zero, args, **OPTIONS).value
    return jnp.concatenate([z["a"], z["b"][0]])


WAYS = {"argument": by_argument, "closure": by_closure, "nested": by_nested_state}


def loss(function: Any) -> Any:
    return lambda theta: jnp.vdot(jnp.asarray(WEIGHTS), function(theta) ** 2)


@pytest.fixture(scope="module")
def exact() -> dict[str, np.ndarray]:
    """Derivatives of the dense solution."""
    whole = lambda t: (  # noqa: E731
        jax.jacfwd(newton)(t),
        jax.hessian(loss(newton))(t),
        jax.jacfwd(jax.hessian(loss(newton)))(t),
    )
    with jax.enable_x64(True):
        found = jax.jit(whole)(jnp.asarray(THETA))
    return dict(zip(("jacobian", "hessian", "third"), map(np.asarray, found), strict=True))


def close(found: Any, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-9)


def test_first_order(exact: dict[str, np.ndarray]) -> None:
    """jacfwd, jacrev, linearize, jvp, vjp."""

    def everything(t: Any) -> Any:
        _, push = jax.linearize(by_argument, t)
        _, pull = jax.vjp(by_argument, t)
        along = lambda u: jax.jvp(by_argument, (t,), (u,))[1]  # noqa: E731
        return [
            jax.jacfwd(by_argument)(t),
            jax.jacrev(by_argument)(t),
            jax.vmap(push, out_axes=1)(jnp.eye(N)),
            jax.vmap(along, out_axes=1)(jnp.eye(N)),
            jax.vmap(pull)(jnp.eye(N))[0],
        ]

    for found in jax.jit(everything)(jnp.asarray(THETA)):
        close(found, exact["jacobian"])


@pytest.mark.parametrize("way", WAYS)
def test_second_order(way: str, exact: dict[str, np.ndarray]) -> None:
    """Both nestings of the modes."""
    f = loss(WAYS[way])
    both = jax.jit(lambda t: [jax.jacfwd(jax.jacrev(f))(t), jax.jacrev(jax.jacfwd(f))(t)])
    for found in both(jnp.asarray(THETA)):
        close(found, exact["hessian"])


def test_without_jit(exact: dict[str, np.ndarray]) -> None:
    theta, units = jnp.asarray(THETA), jnp.eye(N)
    push = jax.linearize(by_closure, theta)[1]
    close(jnp.stack([push(u) for u in units], 1), exact["jacobian"])
    rows = [jax.vjp(by_argument, theta)[1](u)[0] for u in units]
    close(jnp.stack(rows), exact["jacobian"])
    hvp = lambda u: jax.grad(lambda t: jnp.vdot(jax.grad(loss(by_closure))(t), u))(theta)  # noqa: E731
    close(jnp.stack([hvp(u) for u in units]), exact["hessian"])
    forward = lambda u: jax.jvp(jax.grad(loss(by_nested_state)), (theta,), (u,))[1]  # noqa: E731
    close(jnp.stack([forward(u) for u in units]), exact["hessian"])


@pytest.mark.parametrize("outer", ["forward", "reverse"])
def test_third_order(outer: str, exact: dict[str, np.ndarray]) -> None:
    """Forward over the Hessian, and reverse three times, along one direction."""
    theta, unit = jnp.asarray(THETA), jnp.ones(N)
    slope = lambda t: jnp.vdot(jax.grad(loss(by_argument))(t), unit)  # noqa: E731
    second = lambda t: jnp.vdot(jax.grad(slope)(t), unit)  # noqa: E731
    if outer == "forward":
        found = jnp.stack([jax.jvp(second, (theta,), (u,))[1] for u in jnp.eye(N)])
    else:
        found = jax.grad(second)(theta)
    close(found, np.einsum("ijk,j,k->i", exact["third"], np.ones(N), np.ones(N)))


@pytest.mark.parametrize("modes", ["fwd", "rev"])
def test_check_grads_to_the_third_order(modes: str) -> None:
    """By differences of the derivative one order below, so of few digits."""

    def value(theta: Any) -> Any:
        return fpi.fixed_point(
            lambda z, t: t * jnp.sin(z) + 1.0, jnp.zeros(1), (theta,), **OPTIONS
        ).value.sum()

    theta = jnp.array([0.3])
    check_grads(value, (theta,), order=3, modes=(modes,), atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(jax.grad(value)(theta), sine_derivative(np.array([0.3]), 1))


def test_pytree_module_to_the_second_order() -> None:
    """A module with a static field, as equinox makes them, by argument and by closure."""
    eqx = pytest.importorskip("equinox")
    layer = eqx.nn.Linear(2, 2, key=jax.random.key(0), dtype=jnp.float64)
    direction = jax.tree.map(jnp.ones_like, eqx.filter(layer, eqx.is_array))

    def value(weight: Any, bias: Any, how: str) -> Any:
        moved = eqx.tree_at(lambda m: (m.weight, m.bias), layer, (0.5 * weight, bias))
        f = lambda z, m=moved: jnp.tanh(m(z))  # noqa: E731
        if how == "newton":
            z = jnp.zeros(2)
            for _ in range(5):
                z = z - jnp.linalg.solve(jax.jacfwd(f)(z) - jnp.eye(2), f(z) - z)
            return z.sum()
        args = (moved,) if how == "argument" else ()
        return fpi.fixed_point(f, jnp.zeros(2), args, **OPTIONS).value.sum()

    def curvature(how: str) -> Any:
        slope = jax.grad(lambda w, b: value(w, b, how), argnums=(0, 1))
        given = (layer.weight, layer.bias)
        return jax.jit(lambda: jax.jvp(slope, given, (direction.weight, direction.bias))[1])()

    exact = curvature("newton")
    for how in ("argument", "closure"):
        for found, wanted in zip(curvature(how), exact, strict=True):
            close(found, wanted)
