"""Maps made of an energy: values, derivatives of both orders, structures, errors."""

from typing import Any

import numpy as np
import pytest

from fpicore import DerivativeError, InputError, MapError

from .labs import Lab
from .problems import LEAN, symmetric

RANDOM = np.random.default_rng(11)
S = symmetric(RANDOM, np.linspace(0.3, 1.5, 4))
B = RANDOM.standard_normal((3, 4))
WEIGHTS = RANDOM.standard_normal((3, 4))
TIGHT: dict[str, Any] = {"rtol": 1e-12, "max_steps": 300, "batch_ndim": 1, "adjoint": LEAN}


def energy(xp: Any) -> Any:
    """½ zᵀS z + Σ log cosh z − b·z per system: its gradient is S z + tanh z − b."""

    def e(z: Any, s: Any, b: Any) -> Any:
        return xp.sum(0.5 * z * xp.matmul(z, s) + xp.log(xp.cosh(z)) - b * z, axis=-1)

    return e


def explicit(xp: Any, step: float = 0.5) -> Any:

    def f(z: Any, s: Any, b: Any) -> Any:
        return z - step * (0.5 * xp.matmul(z, s + xp.matrix_transpose(s)) + xp.tanh(z) - b)

    return f


def minimum(s: np.ndarray, b: np.ndarray) -> np.ndarray:
    """By Newton's method."""
    z = np.zeros_like(b)
    for _ in range(50):
        hessian = s + np.eye(4) * (1 - np.tanh(z) ** 2)[:, None, :]
        z = z - np.linalg.solve(hessian, (z @ s + np.tanh(z) - b)[..., None])[..., 0]
    return z


def implicit_gradients(s: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of Σ WEIGHTS·z with respect to s and b: by the implicit function theorem, dense."""
    z = minimum(s, b)
    hessian = s + np.eye(4) * (1 - np.tanh(z) ** 2)[:, None, :]
    g = np.linalg.solve(hessian, WEIGHTS[..., None])[..., 0]
    return -0.5 * (z.T @ g + g.T @ z), g


def solved(lab: Lab, make: Any) -> Any:
    def loss(s: Any, b: Any) -> Any:
        value = lab.fpi.fixed_point(make(), lab.xp.zeros_like(b), (s, b), **TIGHT).value
        return lab.xp.sum(lab.tensor(WEIGHTS) * value)

    return loss


@pytest.mark.gradients
def test_gradient_step_is_right(lab: Lab) -> None:
    check_gradient_step(lab, lab.swift)
    f = lab.fpi.gradient_step(energy(lab.xp), 0.5)
    solve = lambda s, b: lab.fpi.fixed_point(f, 0.0 * b, (s, b), **TIGHT).value  # noqa: E731
    np.testing.assert_allclose(lab.run(solve, S, B, mode=lab.swift), minimum(S, B), rtol=1e-10)


@pytest.mark.only("tensorflow")
@pytest.mark.modes("xla")
def test_gradient_step_is_right_compiled(lab: Lab, mode: str) -> None:
    check_gradient_step(lab, mode)


def check_gradient_step(lab: Lab, mode: str) -> None:
    make = lambda: lab.fpi.gradient_step(energy(lab.xp), 0.5)  # noqa: E731
    found = lab.gradient(solved(lab, make), S, B, mode=mode)
    for gradient, expected in zip(found, implicit_gradients(S, B), strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.gradients
def test_second_derivative(lab: Lab) -> None:
    """That of the map written out."""
    direction = WEIGHTS[::-1].copy()
    make = lambda: lab.fpi.gradient_step(energy(lab.xp), 0.5)  # noqa: E731
    found, expected = (
        lab.hessian_product(
            lambda b, m=m: solved(lab, m)(lab.tensor(S), b) ** 2, B, direction, lab.swift
        )
        for m in (make, lambda: explicit(lab.xp))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.gradients
def test_nested_state_and_a_step_that_is_a_tensor(lab: Lab) -> None:
    xp = lab.xp

    def e(z: Any, c: Any) -> Any:
        (a,), b = z["a"], z["b"]
        return xp.sum(a * a) + xp.sum((b - c) ** 2 * (1.0 + xp.sum(a * a)))

    def after(a: Any, b: Any, c: Any, step: Any) -> Any:
        z = lab.fpi.gradient_step(e, step)({"a": (a,), "b": b}, c)
        return z["a"][0], z["b"]

    a, b, c, step = np.array([1.0, -2.0]), np.array([[0.5]]), np.array(2.0), np.array(0.1)
    new_a, new_b = lab.run(after, a, b, c, step)
    np.testing.assert_allclose(new_a, a - 0.1 * (2 * a + 2 * a * (0.5 - 2.0) ** 2))
    np.testing.assert_allclose(new_b, b - 0.1 * 2 * (b - c) * (1 + 5.0))
    slope = lab.gradient(lambda *args: xp.sum(after(*args)[1]), a, b, c, step)[3]
    np.testing.assert_allclose(slope, -2 * (0.5 - 2.0) * 6.0)


@pytest.mark.gradients
def test_complex_descent_goes_down(lab: Lab) -> None:
    """∂|z − c|²/∂Re z + i ∂/∂Im z = 2 (z − c)."""
    c = np.array([1.0 + 2.0j, -0.5j])

    def square(z: Any, c: Any) -> Any:
        r = z - c
        return lab.xp.sum(lab.xp.abs(r) ** 2)

    z = lab.run(lambda z, c: lab.fpi.gradient_step(square, 0.25)(z, c), np.zeros(2, complex) + 1, c)
    np.testing.assert_allclose(z, 0.5 * (1 + c))


@pytest.mark.gradients
def test_only_the_argument_moves(lab: Lab) -> None:
    """The derivative is partial: an argument that is z itself is held."""
    z = np.array([1.0, 2.0])
    product = lambda z, x: lab.xp.sum(z * x)  # noqa: E731
    step = lambda z: lab.fpi.gradient_step(product, 0.5)(z, z)  # noqa: E731
    np.testing.assert_allclose(lab.run(step, z), 0.5 * z)
    (slope,) = lab.gradient(lambda z: lab.xp.sum(step(z)), z)
    np.testing.assert_allclose(slope, [0.5, 0.5])


@pytest.mark.gradients
def test_an_energy_that_ignores_z(lab: Lab) -> None:
    z = np.array([1.0, 2.0])
    flat = lambda z, x: lab.xp.sum(x * x)  # noqa: E731
    np.testing.assert_array_equal(
        lab.run(lambda z: lab.fpi.gradient_step(flat, 0.5)(z, 3.0 * z), z), z
    )


@pytest.mark.gradients
def test_the_energy_is_the_one_that_was_solved(lab: Lab) -> None:
    """Names that it looks up are fixed at the call of fixed_point, for later derivatives too."""
    scales = [0.5, 2.0]

    def loss(x: Any) -> Any:
        h, xp = x, lab.xp
        for scale in scales:
            e = lambda z: xp.sum(scale * z * z / 2 - h * z + z * z * z * z / 40)  # noqa: B023, E731
            h = lab.fpi.fixed_point(lab.fpi.gradient_step(e, 0.3), 0.0 * x, rtol=1e-13).value
        return xp.sum(h * h)

    def exact(x: float) -> float:
        for scale in scales:
            x = next(r.real for r in np.roots([0.1, 0, scale, -x]) if abs(r.imag) < 1e-12)
        return x * x

    x, step = np.array([0.7]), 1e-4
    second = (exact(0.7 + step) - 2 * exact(0.7) + exact(0.7 - step)) / step**2
    found = lab.hessian_product(loss, x, np.ones(1), mode=lab.swift)
    np.testing.assert_allclose(found, second, rtol=1e-5)


def test_a_gradient_of_the_callers(lab: Lab) -> None:
    f = lab.fpi.gradient_step(None, 0.5, gradient=lambda z, b: 2.0 * z - b)
    solve = lambda b: lab.fpi.fixed_point(f, 0.0 * b, (b,), **TIGHT).value  # noqa: E731
    np.testing.assert_allclose(lab.run(solve, B), B / 2, rtol=1e-10)


def test_proximal_step_solves_a_lasso(lab: Lab) -> None:
    """minimise ½‖Az − b‖² + λ‖z‖₁; optimal where −∇ is in the subdifferential."""
    xp, weight, random = lab.xp, 3.0, np.random.default_rng(3)
    a, b = random.standard_normal((8, 5)), 2 * random.standard_normal(8)
    step_size = 1.0 / np.linalg.norm(a, 2) ** 2

    def soft(z: Any, step: float) -> Any:
        return xp.sign(z) * xp.maximum(xp.abs(z) - weight * step, 0.0 * z)

    def slope(z: Any, a: Any, b: Any) -> Any:
        return xp.matmul(xp.matrix_transpose(a), xp.matmul(a, z) - b)

    def solve(z0: Any, a: Any, b: Any) -> Any:
        step = lab.fpi.proximal_step(None, soft, step_size, gradient=slope)
        return lab.fpi.fixed_point(step, z0, (a, b), rtol=1e-12, max_steps=500).value

    z = lab.run(solve, np.zeros(5), a, b)
    down = -a.T @ (a @ z - b)
    zero = z == 0
    assert 0 < zero.sum() < 5
    np.testing.assert_allclose(down[~zero], weight * np.sign(z[~zero]), rtol=1e-8)
    assert np.all(np.abs(down[zero]) <= weight)


@pytest.mark.gradients
def test_projected_step_and_its_gradient(lab: Lab) -> None:
    """½ zᵀS z − b·z over z ≥ 0: on the free entries S z = b, the others do not move."""
    xp, fpi, b = lab.xp, lab.fpi, np.array([1.0, -2.0, 0.5, 1.5])
    down = lambda z, s, b: xp.sum(0.5 * z * xp.matmul(s, z) - b * z)  # noqa: E731
    f = fpi.projected_step(down, lambda z: xp.maximum(z, 0.0 * z), 0.6)

    def total(b: Any) -> Any:
        z = fpi.fixed_point(f, 0.0 * b, (lab.tensor(S), b), rtol=1e-12, max_steps=500).value
        return xp.sum(z * z)

    best = min(
        (candidate(free, b) for free in np.ndindex(2, 2, 2, 2)),
        key=lambda z: 0.5 * z @ S @ z - b @ z if np.all(z >= 0) else np.inf,
    )
    free = best > 0
    assert 0 < free.sum() < 4
    np.testing.assert_allclose(lab.run(total, b, mode=lab.swift), best @ best, rtol=1e-9)
    expected = np.zeros(4)
    expected[free] = np.linalg.solve(S[np.ix_(free, free)], 2 * best[free])
    np.testing.assert_allclose(
        lab.gradient(total, b, mode=lab.swift)[0], expected, rtol=1e-8, atol=1e-10
    )


def candidate(free: tuple[int, ...], b: np.ndarray) -> np.ndarray:
    keep, z = np.array(free, bool), np.zeros(4)
    z[keep] = np.linalg.solve(S[np.ix_(keep, keep)], b[keep])
    return z


def test_damped_breaks_a_cycle(lab: Lab) -> None:
    """f = 1 − z has eigenvalue −1; damped by a half it is a constant."""
    fpi = lab.fpi
    solve = lambda z: fpi.fixed_point(  # noqa: E731
        fpi.damped(lambda z: {"a": 1.0 - z["a"]}, 0.5), {"a": z}, solver=fpi.Picard()
    ).value["a"]
    np.testing.assert_allclose(lab.run(solve, np.array([3.0, -1.0])), [0.5, 0.5])


def test_options_are_checked(lab: Lab) -> None:
    fpi, e = lab.fpi, lambda z: z
    for step in (0.0, -1.0, float("inf"), True, "big", None):
        with pytest.raises(InputError, match="step_size"):
            fpi.gradient_step(e, step)
    with pytest.raises(InputError, match="received neither"):
        fpi.gradient_step(None, 0.1)
    with pytest.raises(InputError, match="received both"):
        fpi.gradient_step(e, 0.1, gradient=e)
    with pytest.raises(InputError, match="energy to be callable"):
        fpi.gradient_step(3, 0.1)
    with pytest.raises(InputError, match="prox to be callable"):
        fpi.proximal_step(e, None, 0.1)
    with pytest.raises(InputError, match="projection to be callable"):
        fpi.projected_step(e, None, 0.1)
    with pytest.raises(InputError, match="damping"):
        fpi.damped(e, 1.5)


def test_what_is_called_is_checked(lab: Lab) -> None:
    fpi, z = lab.fpi, lab.tensor(np.ones(2))
    with pytest.raises(MapError, match="the gradient"):
        fpi.gradient_step(None, 0.1, gradient=lambda z: (z, z))(z)
    with pytest.raises(MapError, match="f\\(z\\)"):
        fpi.damped(lambda z: (z, z), 0.5)(z)
    if lab.name == "numpy":
        with pytest.raises(DerivativeError, match="gradient="):
            fpi.gradient_step(lambda z: z.sum(), 0.1)(z)
        return
    for wrong in (lambda z: z, lambda z: 3.0, lambda z: {"a": z}):
        with pytest.raises(MapError, match="energy to return a real tensor"):
            fpi.gradient_step(wrong, 0.1)(lab.tensor(np.ones(2, complex)))
