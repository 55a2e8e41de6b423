"""JAX's transforms around a solve, modules inside of it, and fixed points that others found."""

import warnings
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
RANDOM = np.random.default_rng(61)
MATRIX = 0.4 * RANDOM.standard_normal((3, 3))
SHIFTS = RANDOM.standard_normal((4, 3))
SCALES = np.array([0.2, 0.5, 0.7, 0.8])
TIGHT: dict[str, Any] = {
    "solver": fpi.Picard(), "adjoint": LEAN, "rtol": 1e-13, "max_steps": 300,
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield
    forget()


def step(z: Any, scale: Any, shift: Any) -> Any:
    return scale * jnp.tanh(jnp.asarray(MATRIX) @ z) + shift


def value(scale: Any, shift: Any) -> Any:
    return fpi.fixed_point(step, jnp.zeros(3), (scale, shift), **TIGHT).value


def loss(scale: Any, shift: Any) -> Any:
    return (value(scale, shift) ** 2).sum()


def dense_gradient(scale: float, shift: np.ndarray) -> tuple[float, np.ndarray]:
    """Of the loss, by the implicit function theorem."""
    z = np.zeros(3)
    for _ in range(300):
        z = scale * np.tanh(MATRIX @ z) + shift
    t = np.tanh(MATRIX @ z)
    g = np.linalg.solve(np.eye(3) - (scale * (1 - t**2)[:, None] * MATRIX).T, 2 * z)
    return float(g @ t), g


def test_vmap_over_some_arguments_equals_the_loop() -> None:
    """in_axes of every kind, gradient inside and outside of vmap, and vmap twice."""
    scales, shifts = jnp.asarray(SCALES), jnp.asarray(SHIFTS)
    slope = jax.grad(loss, argnums=(0, 1))

    def everything() -> Any:
        summed = lambda s, b: jax.vmap(loss, in_axes=(0, 1))(s, b.T).sum()  # noqa: E731
        table = jax.vmap(jax.vmap(slope, in_axes=(None, 0)), in_axes=(0, None))(scales, shifts)
        return table, jax.grad(summed, argnums=(0, 1))(scales, shifts)

    table, outside = jax.jit(everything)()
    for i, scale in enumerate(SCALES):
        for j, shift in enumerate(SHIFTS):
            wanted = dense_gradient(scale, shift)
            np.testing.assert_allclose(table[0][i, j], wanted[0], rtol=1e-9)
            np.testing.assert_allclose(table[1][i, j], wanted[1], rtol=1e-9)
        wanted = dense_gradient(scale, SHIFTS[i])
        np.testing.assert_allclose(outside[0][i], wanted[0], rtol=1e-9)
        np.testing.assert_allclose(outside[1][i], wanted[1], rtol=1e-9)


def test_vmap_with_a_named_axis_inside_f() -> None:
    """The lanes are one coupled system each way; their sum is what vmap knows as an axis."""

    def f(b: Any) -> Any:
        return fpi.fixed_point(
            lambda z: 0.5 * z + 0.0 * jax.lax.psum(b, "lane") + b, jnp.zeros(()), **TIGHT
        ).value

    total = lambda b: jax.vmap(f, axis_name="lane")(b).sum()  # noqa: E731
    np.testing.assert_allclose(jax.jit(jax.grad(total))(jnp.ones(3)), 2.0, rtol=1e-9)


@pytest.mark.parametrize("where", ["around the solve", "around f"])
def test_checkpoint(where: str) -> None:
    def objective(scale: Any, shift: Any) -> Any:
        if where == "around the solve":
            return jax.checkpoint(loss)(scale, shift)
        z = fpi.fixed_point(jax.checkpoint(step), jnp.zeros(3), (scale, shift), **TIGHT).value
        return (z**2).sum()

    found = jax.grad(objective, argnums=(0, 1))(jnp.array(0.8), jnp.asarray(SHIFTS[0]))
    for each, wanted in zip(found, dense_gradient(0.8, SHIFTS[0]), strict=True):
        np.testing.assert_allclose(each, wanted, rtol=1e-9)


@pytest.mark.parametrize("within", ["scan", "jit", "cond", "checkpoint"])
def test_second_order_through_what_jax_linearises_apart(within: str) -> None:
    """z_k = θ sin(z_{k−1}) − z_k/2, solved three times."""

    def chain(solved: bool) -> Any:
        def run(theta: Any) -> Any:
            def body(z: Any, _: None) -> Any:
                drive = theta * jnp.sin(z)
                if not solved:
                    return drive / 1.5, None
                return fpi.fixed_point(lambda y: drive - 0.5 * y, 0.0 * z, **TIGHT).value, None

            if within == "scan":
                return jax.lax.scan(body, jnp.array(1.0), None, length=3)[0]
            step = lambda z: body(z, None)[0]  # noqa: E731
            step = {
                "jit": jax.jit(step),
                "cond": lambda z, step=step: jax.lax.cond(z > -9.0, step, jnp.sin, z),
                "checkpoint": jax.checkpoint(step),
            }[within]
            return step(step(step(jnp.array(1.0))))

        return lambda theta: (jax.grad(run)(theta), jax.grad(jax.grad(run))(theta))

    found, wanted = (jax.jit(chain(solved))(jnp.array(1.3)) for solved in (True, False))
    np.testing.assert_allclose(found, wanted, rtol=1e-8)


@pytest.fixture
def wide() -> Iterator[None]:
    """64-bit mode in every thread: a host callback runs in one of its own."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.mark.usefixtures("wide")
def test_root_of_scipy_outside_and_inside_of_jit() -> None:
    """implicit and custom_fixed_point: gradient and Hessian of a point that SciPy found."""
    optimize = pytest.importorskip("scipy.optimize")

    def root(scale: Any, shift: Any) -> np.ndarray:
        residual = lambda z: scale * np.tanh(MATRIX @ z) + shift - z  # noqa: E731
        return optimize.root(residual, np.zeros(3), tol=1e-14).x

    options: dict[str, Any] = {
        "adjoint": fpi.Implicit(solver=fpi.Picard(), fallback=None),
        "rtol": 1e-12,
    }

    @fpi.custom_fixed_point(step, **options)
    def traced(scale: Any, shift: Any) -> Any:
        kind = jax.ShapeDtypeStruct((3,), jnp.float64)
        return jax.pure_callback(root, kind, scale, shift, vmap_method="sequential")

    def found_before(scale: Any, shift: Any) -> Any:
        point = root(*(np.asarray(jax.lax.stop_gradient(x)) for x in (scale, shift)))
        return fpi.implicit(step, point, (scale, shift), **options).value

    scale, shift = jnp.array(0.8), jnp.asarray(SHIFTS[0])
    wanted = dense_gradient(0.8, SHIFTS[0])[1]
    outside = jax.grad(lambda b: (found_before(scale, b) ** 2).sum())(shift)
    np.testing.assert_allclose(outside, wanted, rtol=1e-8)
    quadratic = lambda b: (traced(scale, b) ** 2).sum()  # noqa: E731
    gradient = jax.jit(jax.grad(quadratic))
    np.testing.assert_allclose(gradient(shift), wanted, rtol=1e-8)
    hessian = jax.jit(jax.jacfwd(jax.grad(quadratic)))(shift)
    for i, row in enumerate(np.asarray(hessian)):
        moved = [dense_gradient(0.8, SHIFTS[0] + h * np.eye(3)[i])[1] for h in (1e-3, -1e-3)]
        finer = [dense_gradient(0.8, SHIFTS[0] + h * np.eye(3)[i])[1] for h in (5e-4, -5e-4)]
        coarse, fine = (moved[0] - moved[1]) / 2e-3, (finer[0] - finer[1]) / 1e-3
        np.testing.assert_allclose(row, (4 * fine - coarse) / 3, rtol=1e-8, atol=1e-8)


def test_flax_module_to_the_second_order() -> None:
    """By its state as an argument; Hessian product against the same map in plain JAX."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nnx = pytest.importorskip("flax.nnx")
    layer = nnx.Linear(3, 3, rngs=nnx.Rngs(0), param_dtype=jnp.float64, dtype=jnp.float64)
    graph, state = nnx.split(layer)

    def by_module(theta: Any) -> Any:
        scaled = jax.tree.map(lambda leaf: theta * leaf, state)
        f = lambda z, s: jnp.tanh(nnx.merge(graph, s)(z) + 0.3)  # noqa: E731
        return fpi.fixed_point(f, jnp.zeros(3), (scaled,), **TIGHT).value.sum()

    def plain(theta: Any) -> Any:
        kernel = theta * jnp.asarray(layer.kernel[...])
        f = lambda z: jnp.tanh(z @ kernel + 0.3)  # noqa: E731
        return fpi.fixed_point(f, jnp.zeros(3), **TIGHT).value.sum()

    theta = jnp.array(0.4)
    for order in (jax.grad, lambda f: jax.grad(jax.grad(f))):
        found, wanted = (jax.jit(order(f))(theta) for f in (by_module, plain))
        np.testing.assert_allclose(found, wanted, rtol=1e-9)


@pytest.mark.parametrize("kind", ["BatchNorm", "Dropout"])
def test_flax_module_that_changes_itself_is_refused(kind: str) -> None:
    nnx = pytest.importorskip("flax.nnx")
    first = (3,) if kind == "BatchNorm" else (0.5,)
    module = getattr(nnx, kind)(*first, rngs=nnx.Rngs(0))
    f = lambda z: 0.5 * module(z) + 1.0  # noqa: E731
    start = jnp.ones((4, 3), "float32")
    with pytest.raises(fpi.MapError, match=r"training mode.*module.eval\(\).*has_aux=True"):
        fpi.fixed_point(f, start)
    module.eval()
    assert bool(fpi.fixed_point(f, start).converged)
