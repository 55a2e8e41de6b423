"""Gradient strategies in JAX: each against its own formula, in every transform; what is refused."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")

import jax.numpy as jnp  # noqa: E402

import fpicore_jax as fpi  # noqa: E402
from fpicore import DerivativeError  # noqa: E402

from .compilers import forget  # noqa: E402

pytestmark = pytest.mark.framework("jax")

N = 3
RANDOM = np.random.default_rng(31)
MATRIX = 0.4 * RANDOM.standard_normal((N, N))
THETA, DIRECTION = RANDOM.standard_normal((2, N))
THETAS = np.stack([THETA, DIRECTION])
APPROXIMATE = {
    "onestep": fpi.OneStep(),
    "neumann": fpi.Neumann(terms=3),
    "phantom": fpi.Phantom(steps=4, damping=0.7),
}
STRATEGIES = {
    **APPROXIMATE,
    "implicit": fpi.Implicit(),
    "reuse": fpi.Implicit(reuse=True, solver=fpi.Picard()),
    "fallback": fpi.Implicit(solver=fpi.Picard(), max_steps=12, fallback=fpi.Broyden()),
    "unrolled": fpi.Unrolled(),
    "checkpointed": fpi.Unrolled(checkpoint=True),
    "segments": fpi.Unrolled(checkpoint=7),
}


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield
    forget()


def solved(theta: Any, adjoint: Any) -> Any:
    solver = fpi.Broyden() if getattr(adjoint, "reuse", False) else fpi.Picard()
    return fpi.fixed_point(
        lambda z, t: jnp.tanh(jnp.asarray(MATRIX) @ z) + t * t,
        jnp.zeros_like(theta),
        (theta,),
        solver=solver,
        adjoint=adjoint,
        rtol=1e-13,
        max_steps=60,
    ).value


def inverse(name: str, jacobian: np.ndarray) -> np.ndarray:
    """What stands for (I − J)⁻¹: its Neumann series, cut and damped as the strategy says."""
    one = np.eye(N)
    powers = np.linalg.matrix_power
    if name == "onestep":
        return one
    if name == "neumann":
        return one + jacobian + jacobian @ jacobian
    if name == "phantom":
        return 0.7 * sum((powers(0.3 * one + 0.7 * jacobian, k) for k in range(4)), 0 * one)
    return np.linalg.inv(one - jacobian)


def jacobian(name: str, theta: np.ndarray) -> np.ndarray:
    z = np.zeros(N)
    for _ in range(500):
        z = np.tanh(MATRIX @ z) + theta**2
    slope = (1.0 - np.tanh(MATRIX @ z) ** 2)[:, None] * MATRIX
    return inverse(name, slope) * (2.0 * theta)


@pytest.mark.parametrize("name", STRATEGIES)
def test_against_its_formula(name: str) -> None:
    """vmap of jvp and of vjp, jitted."""
    function = lambda t: solved(t, STRATEGIES[name])  # noqa: E731

    def everything(thetas: Any) -> Any:
        along = lambda t: jax.jvp(function, (t,), (jnp.asarray(DIRECTION),))[1]  # noqa: E731
        pulled = lambda t: jax.vjp(function, t)[1](jnp.asarray(DIRECTION))[0]  # noqa: E731
        return jax.vmap(along)(thetas), jax.vmap(pulled)(thetas)

    found = jax.jit(everything)(jnp.asarray(THETAS))
    exact = [jacobian(name, theta) for theta in THETAS]
    wanted = [J @ DIRECTION for J in exact], [J.T @ DIRECTION for J in exact]
    np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["neumann", "implicit", "reuse", "fallback", "segments"])
def test_without_jit(name: str) -> None:
    function = lambda t: solved(t, STRATEGIES[name])  # noqa: E731
    (found,) = jax.vjp(function, jnp.asarray(THETA))[1](jnp.asarray(DIRECTION))
    np.testing.assert_allclose(found, jacobian(name, THETA).T @ DIRECTION, rtol=1e-8, atol=1e-10)


def total(theta: Any, adjoint: Any) -> Any:
    return solved(theta, adjoint).sum()


def straight(theta: Any, adjoint: Any) -> Any:
    """J, and the derivative in θ, are constant: only a guard can tell that the rule is wrong."""
    sol = fpi.fixed_point(
        lambda z: theta - 0.5 * z, jnp.zeros_like(theta), adjoint=adjoint, rtol=1e-10
    )
    return (sol.value**2).sum()


ROUTES: dict[str, Callable[[Any], Callable[[Any], Any]]] = {
    "reverse over reverse": lambda f: jax.grad(lambda t: jax.grad(f)(t).sum()),
    "forward over reverse": lambda f: jax.jacfwd(jax.grad(f)),
    "reverse over forward": lambda f: jax.jacrev(jax.jacfwd(f)),
    "forward over forward": lambda f: jax.jacfwd(jax.jacfwd(f)),
    "over jit": lambda f: jax.jacfwd(jax.jit(jax.grad(f))),
    "over vmap": lambda f: jax.jacfwd(lambda t: jax.vmap(jax.grad(f))(t[None])),
    "over checkpoint": lambda f: jax.jacfwd(jax.grad(jax.checkpoint(f))),
    "over scan": lambda f: jax.jacfwd(
        lambda t: jax.lax.scan(lambda c, _: (c, jax.grad(f)(t)), 0.0, None, length=2)[1]
    ),
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("map_", [total, straight], ids=["curved", "straight"])
def test_second_derivative_of_an_approximation_is_refused(route: str, map_: Any) -> None:
    second = ROUTES[route](lambda t: map_(t, fpi.OneStep()))
    with pytest.raises(DerivativeError, match=r"at most 1 derivative.*OneStep.*adjoint=Implicit"):
        jax.eval_shape(second, jnp.asarray(THETA))


@pytest.mark.parametrize("name", APPROXIMATE)
def test_every_approximation_refuses(name: str) -> None:
    second = jax.jacfwd(jax.grad(lambda t: total(t, APPROXIMATE[name])))
    with pytest.raises(DerivativeError, match=type(APPROXIMATE[name]).__name__):
        jax.eval_shape(second, jnp.asarray(THETA))


def test_approximation_within_an_exact_solve() -> None:
    """One derivative of the outer solve takes one of the inner; a second is refused."""

    def loss(theta: Any) -> Any:
        def outer(z: Any, t: Any) -> Any:
            inner = fpi.fixed_point(
                lambda y: z - 0.5 * y, jnp.zeros_like(z), adjoint=fpi.OneStep(), rtol=1e-12
            )
            return t - 0.3 * inner.value

        return fpi.fixed_point(outer, jnp.zeros_like(theta), (theta,), rtol=1e-12).value.sum()

    theta = jnp.asarray(THETA)
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(theta), 1 / 1.3, rtol=1e-8)
    with pytest.raises(DerivativeError):
        jax.eval_shape(jax.hessian(loss), theta)


def test_unrolled_second_order() -> None:
    """z = θ sin z + 1 by Newton's derivatives: d²z/dθ² from the implicit function theorem."""

    def value(theta: Any) -> Any:
        return fpi.fixed_point(
            lambda z, t: t * jnp.sin(z) + 1.0, jnp.zeros(()), (theta,),
            solver=fpi.Picard(), adjoint=fpi.Unrolled(checkpoint=True), rtol=1e-15, max_steps=60,
            on_failure="ignore",
        ).value  # fmt: skip

    z = float(value(jnp.array(0.3)))
    slope = np.sin(z) / (1 - 0.3 * np.cos(z))
    curvature = (2 * np.cos(z) * slope - 0.3 * np.sin(z) * slope**2) / (1 - 0.3 * np.cos(z))
    found = jax.jit(jax.grad(jax.grad(value)))(jnp.array(0.3))
    np.testing.assert_allclose(found, curvature, rtol=1e-8)


def kept(checkpoint: bool | int, steps: int) -> int:
    """Entries that the backward pass of an unrolled solve keeps of the forward pass."""

    def value(theta: Any) -> Any:
        return fpi.fixed_point(
            lambda z: jnp.tanh(theta * z) + 1.0, jnp.zeros(50), solver=fpi.Picard(),
            adjoint=fpi.Unrolled(checkpoint=checkpoint), max_steps=steps,
        ).value  # fmt: skip

    _, pull = jax.eval_shape(lambda t: jax.vjp(value, t), jnp.ones(50))
    return sum(leaf.size for leaf in jax.tree.leaves(pull))


def test_memory_grows_with_the_steps_and_with_their_root_if_checkpointed() -> None:
    """399 and 99 steps are 400 and 100 evaluations."""
    whole = kept(False, 399) / kept(False, 99)
    assert 3.6 < whole < 4.1
    root = kept(True, 399) / kept(True, 99)
    assert 1.8 < root < 2.2
    assert kept(True, 399) < kept(False, 399) / 10
    assert kept(40, 399) < kept(True, 399)
