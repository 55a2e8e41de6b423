"""Maps that use a jax.custom_vjp function: every derivative that reverse mode gives, none other."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="jax is not installed")

import jax.numpy as jnp  # noqa: E402

import fpicore_jax as fpi  # noqa: E402

from .compilers import compilations, forget  # noqa: E402

pytestmark = pytest.mark.framework("jax")
N = 3
RANDOM = np.random.default_rng(71)
MATRIX = 0.4 * RANDOM.standard_normal((N, N))
SHIFTS = RANDOM.standard_normal((4, N))
OPTIONS: dict[str, Any] = {
    "solver": fpi.Picard(),
    "adjoint": fpi.Implicit(fallback=None),  # which compiles fastest
    "rtol": 1e-13,
    "max_steps": 400,
}


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield
    forget()


def plain(z: Any, matrix: Any, shift: Any) -> Any:
    return jnp.tanh(matrix @ z + shift)


def make_kernel(scale: float) -> Any:
    """tanh(A z + b) by a rule of its own, which is its derivative times ``scale``."""

    def forward(z: Any, matrix: Any, shift: Any) -> Any:
        t = plain(z, matrix, shift)
        return t, (z, matrix, t)

    def backward(kept: Any, v: Any) -> Any:
        z, matrix, t = kept
        h = scale * (1.0 - t * t) * v
        return matrix.T @ h, jnp.outer(h, z), h

    kernel = jax.custom_vjp(plain)
    kernel.defvjp(forward, backward)
    return kernel


KERNEL, SCALED = make_kernel(1.0), make_kernel(0.5)


def by_closure(kernel: Any, matrix: Any, shift: Any, **options: Any) -> Any:
    options = {**OPTIONS, **options}
    return fpi.fixed_point(lambda z: kernel(z, matrix, shift), jnp.zeros(N), **options).value


def by_argument(kernel: Any, matrix: Any, shift: Any) -> Any:
    def f(z: Any, p: Any, count: Any) -> Any:
        return kernel(z, p["matrix"], p["shift"]) * count

    args = ({"matrix": matrix, "shift": shift}, jnp.array(1))  # an integer among the arguments
    return fpi.fixed_point(f, jnp.zeros(N), args, **OPTIONS).value


def by_nested_state(kernel: Any, matrix: Any, shift: Any) -> Any:
    def f(z: Any) -> Any:
        y = kernel(jnp.concatenate([z["a"], z["b"][0]]), matrix, shift)
        return {"a": y[:1], "b": [y[1:]]}

    zero = {"a": jnp.zeros(1), "b": [jnp.zeros(N - 1)]}
    z = fpi.fixed_point(f, zero, **OPTIONS).value
    return jnp.concatenate([z["a"], z["b"][0]])


def by_batch(kernel: Any, matrix: Any, shift: Any) -> Any:
    shifts = jnp.stack([0.3 * shift, shift])

    def f(z: Any) -> Any:
        return jax.vmap(kernel, in_axes=(0, None, 0))(z, matrix, shifts)

    return fpi.fixed_point(f, jnp.zeros((2, N)), batch_ndim=1, **OPTIONS).value[1]


def by_inner_solve(kernel: Any, matrix: Any, shift: Any) -> Any:
    """The inner state is constant in the outer one, so that both have the same fixed point."""

    def outer(z: Any) -> Any:
        return by_closure(kernel, matrix, shift) + 0.1 * (z - by_closure(kernel, matrix, shift))

    return fpi.fixed_point(outer, jnp.zeros(N), **{**OPTIONS, "rtol": 1e-12}).value


WAYS = {
    "closure": by_closure,
    "argument": by_argument,
    "nested": by_nested_state,
    "batch": by_batch,
    "inner": by_inner_solve,
}


def dense(_: Any, matrix: Any, shift: Any) -> Any:
    """z*, with derivatives to the third order: two of Newton's steps from z* held constant."""
    fixed = jax.lax.stop_gradient((matrix, shift))
    z = jax.lax.fori_loop(0, 400, lambda _, z: plain(z, *fixed), jnp.zeros(N))
    for _ in range(2):
        slope = matrix * (1.0 - plain(z, matrix, shift) ** 2)[:, None]
        z = z + jnp.linalg.solve(jnp.eye(N) - slope, plain(z, matrix, shift) - z)
    return z


def loss(way: Any, matrix: Any, shift: Any) -> Any:
    return jnp.vdot(jnp.arange(1.0, N + 1.0), way(KERNEL, matrix, shift) ** 2)


def gradient(way: Any) -> Any:
    return jax.grad(partial(loss, way), argnums=(0, 1))


def over_vmap(way: Any, matrix: Any, shifts: Any) -> Any:
    return jax.vmap(partial(loss, way), in_axes=(None, 0))(matrix, shifts).sum()


def over_scan(way: Any, matrix: Any, shifts: Any) -> Any:
    chain = lambda z, shift: (way(KERNEL, matrix, shift + 0.3 * z), None)  # noqa: E731
    return jax.lax.scan(chain, jnp.zeros(N), shifts)[0].sum()


def both_orders(way: Any) -> Any:
    """The Jacobian of z*, and the Hessian of the loss through jax.checkpoint."""
    slope = jax.grad(jax.checkpoint(partial(loss, way)), argnums=(0, 1))
    return lambda *given: (
        jax.jacrev(partial(way, KERNEL), argnums=(0, 1))(*given),
        jax.jacrev(slope)(*given),
    )


BATCHED = {
    "vmap of gradient": lambda way: jax.vmap(gradient(way), in_axes=(None, 0)),
    "gradient of vmap": lambda way: jax.grad(partial(over_vmap, way), argnums=(0, 1)),
    "gradient of scan": lambda way: jax.grad(partial(over_scan, way), argnums=(0, 1)),
    "hessian of vmap": lambda way: jax.jacrev(jax.grad(partial(over_vmap, way))),
    "hessian of scan": lambda way: jax.jacrev(jax.grad(partial(over_scan, way))),
}


def compare(make: Any, way: Any, *given: Any) -> None:
    run = jax.jit(lambda *given: (make(way)(*given), make(dense)(*given)))
    for found, wanted in zip(*map(jax.tree.leaves, run(*map(jnp.asarray, given))), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("way", WAYS)
def test_against_the_dense_derivatives(way: str) -> None:
    compare(both_orders, WAYS[way], MATRIX, SHIFTS[0])


@pytest.mark.parametrize("name", BATCHED)
def test_batched_against_the_dense_derivative(name: str) -> None:
    compare(BATCHED[name], by_closure, MATRIX, SHIFTS)


def test_third_order() -> None:
    """Along one direction."""

    def third(way: Any) -> Any:
        along = lambda f: lambda t: f(t).sum()  # noqa: E731
        slope = lambda t: jax.grad(partial(loss, way), argnums=1)(jnp.asarray(MATRIX), t)  # noqa: E731
        return jax.grad(along(jax.grad(along(slope))))

    compare(third, by_closure, SHIFTS[0])


ADJOINTS = {
    "implicit": fpi.Implicit(fallback=None),
    "reuse": fpi.Implicit(reuse=True, solver=fpi.Picard(), fallback=None),
    "gmres": fpi.Implicit(solver=fpi.GMRES(), fallback=None),
    "neumann": fpi.Neumann(terms=3),
}


@pytest.mark.parametrize("name", ADJOINTS)
def test_the_rule_that_f_was_given_is_the_one_that_is_solved_with(name: str) -> None:
    """Half of J, and of the derivative in the shift; without jit."""
    solver = fpi.Broyden() if name == "reuse" else fpi.Picard()
    run = partial(by_closure, SCALED, jnp.asarray(MATRIX), solver=solver, adjoint=ADJOINTS[name])
    z, pull = jax.vjp(run, jnp.asarray(SHIFTS[0]))
    slope = 0.5 * (1.0 - np.asarray(z) ** 2)
    jacobian, v = slope[:, None] * MATRIX, np.arange(1.0, N + 1.0)
    inverse = np.linalg.inv(np.eye(N) - jacobian)
    if name == "neumann":
        inverse = np.eye(N) + jacobian + jacobian @ jacobian
    np.testing.assert_allclose(pull(jnp.asarray(v))[0], slope * (inverse.T @ v), rtol=1e-8)


FORWARD = {
    "jvp": lambda f: jax.jvp(f, (jnp.ones(N),), (jnp.ones(N),)),
    "compiled": lambda f: jax.jit(jax.jacfwd(f))(jnp.ones(N)),
    "linearize": lambda f: jax.linearize(f, jnp.ones(N))[1](jnp.ones(N)),
    "forward over reverse": lambda f: jax.jit(jax.jacfwd(jax.jacrev(f)))(jnp.ones(N)),
    "reverse over forward": lambda f: jax.jit(jax.jacrev(jax.jacfwd(f)))(jnp.ones(N)),
}


@pytest.mark.parametrize("mode", FORWARD)
def test_forward_mode_is_refused(mode: str) -> None:
    run = partial(by_closure, KERNEL, jnp.asarray(MATRIX))
    with pytest.raises(fpi.DerivativeError, match=r"reverse mode.*jax\.custom_vjp.*custom_jvp"):
        FORWARD[mode](run)


def test_second_derivative_of_an_approximation_is_refused() -> None:
    run = partial(by_closure, KERNEL, jnp.asarray(MATRIX), adjoint=fpi.OneStep())
    with pytest.raises(fpi.DerivativeError, match=r"at most 1 derivative.*OneStep"):
        jax.eval_shape(jax.jacrev(jax.jacrev(run)), jnp.ones(N))


def test_function_that_no_derivative_meets_leaves_forward_mode() -> None:
    def run(theta: Any) -> Any:
        def f(z: Any) -> Any:
            drift = KERNEL(jax.lax.stop_gradient(z), jnp.zeros((N, N)), jnp.zeros(N))
            return drift + theta - z / 2

        return fpi.fixed_point(f, jnp.zeros(N), **OPTIONS).value

    np.testing.assert_allclose(jax.jit(jax.jacfwd(run))(jnp.ones(N)), np.eye(N) / 1.5, rtol=1e-9)


def test_second_unjitted_gradient_compiles_nothing(caplog: pytest.LogCaptureFixture) -> None:
    run = jax.grad(lambda b: (by_closure(KERNEL, jnp.asarray(MATRIX), b) ** 2).sum())
    run(jnp.asarray(SHIFTS[0]))
    with jax.log_compiles(True), caplog.at_level("WARNING", logger="jax"):
        run(jnp.asarray(SHIFTS[1]))
    assert compilations(caplog) == []
