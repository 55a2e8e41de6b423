"""jacobian_penalty against dense Jacobians."""

from itertools import product
from typing import Any

import numpy as np
import pytest

from fpicore import DerivativeError, InputError, MapError

from .labs import Lab
from .problems import matvec

RANDOM = np.random.default_rng(17)
WEIGHT, SHIFT, POINT = RANDOM.standard_normal((3, 3)), *RANDOM.standard_normal((2, 2, 3))
SIGNS = [np.tile(e, (2, 1)) for e in product((-1.0, 1.0), repeat=3)]
PROBES = RANDOM.standard_normal((2, 2, 3))


def layer(xp: Any, z: Any, weight: Any, shift: Any) -> Any:
    return xp.tanh(matvec(xp, weight, z) + shift)


def penalty(lab: Lab, probes: Any = PROBES) -> Any:
    def call(z: Any, weight: Any, shift: Any) -> Any:
        def f(z: Any, weight: Any) -> Any:  # the shift is captured
            return layer(lab.xp, z, weight, shift)

        given = [lab.tensor(e) for e in probes]
        return lab.fpi.jacobian_penalty(f, z, (weight,), probes=given, batch_ndim=1)

    return call


def dense(z: Any, weight: Any, shift: Any) -> Any:
    """J of each system; analytic, so that complex steps give derivatives to rounding."""
    return (1 - layer(np, z, weight, shift) ** 2)[..., None] * weight


def dense_penalty(z: Any, weight: Any, shift: Any) -> Any:
    products = [matvec(np, np.swapaxes(dense(z, weight, shift), 1, 2), e) for e in PROBES]
    return sum((p**2).sum(-1) for p in products) / len(products)


def complex_step(function: Any, *args: np.ndarray) -> list[np.ndarray]:
    slopes = [np.zeros(a.shape) for a in args]
    for i, a in enumerate(args):
        for index in np.ndindex(a.shape):
            moved = a.astype(complex)
            moved[index] += 1e-30j
            slopes[i][index] = function(*args[:i], moved, *args[i + 1 :]).imag * 1e30
    return slopes


@pytest.mark.gradients
def test_mean_over_all_signs_is_the_frobenius_norm(lab: Lab, mode: str) -> None:
    found = lab.run(penalty(lab, SIGNS), POINT, WEIGHT, SHIFT, mode=mode)
    exact = (dense(POINT, WEIGHT, SHIFT) ** 2).sum((-2, -1))
    np.testing.assert_allclose(found, exact, rtol=1e-13)


@pytest.mark.gradients
def test_gradient(lab: Lab, mode: str) -> None:
    found = lab.gradient(
        lambda *args: lab.xp.sum(penalty(lab)(*args) ** 2), POINT, WEIGHT, SHIFT, mode=mode
    )
    exact = complex_step(lambda *args: (dense_penalty(*args) ** 2).sum(), POINT, WEIGHT, SHIFT)
    for one, other in zip(found, exact, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.gradients
def test_second_derivative(lab: Lab) -> None:
    direction = RANDOM.standard_normal(POINT.shape)

    def loss(z: Any) -> Any:
        return lab.xp.sum(penalty(lab)(z, lab.tensor(WEIGHT), lab.tensor(SHIFT)))

    def slope(t: float) -> np.ndarray:
        moved = POINT + t * direction
        return complex_step(lambda z: dense_penalty(z, WEIGHT, SHIFT).sum(), moved)[0]

    found = lab.hessian_product(loss, POINT, direction, lab.swift)
    np.testing.assert_allclose(found, (slope(1e-5) - slope(-1e-5)) / 2e-5, rtol=1e-7, atol=1e-8)


@pytest.mark.gradients
def test_gradient_through_the_fixed_point(lab: Lab) -> None:
    weight = 0.2 * WEIGHT

    def loss(weight: Any) -> Any:
        shift = lab.tensor(SHIFT)
        f = lambda z, w: layer(lab.xp, z, w, shift)  # noqa: E731
        args = (0.0 * shift, (weight,))
        z = lab.fpi.fixed_point(f, *args, rtol=1e-13, batch_ndim=1).value
        return lab.xp.sum(penalty(lab)(z, weight, shift))

    def reference(weight: Any) -> Any:
        z = 0 * SHIFT
        for _ in range(200):
            z = layer(np, z, weight, SHIFT)
        return dense_penalty(z, weight, SHIFT).sum()

    found = lab.gradient(loss, weight, mode=lab.swift)[0]
    np.testing.assert_allclose(found, complex_step(reference, weight)[0], rtol=1e-8, atol=1e-10)


@pytest.mark.gradients
def test_complex_and_nested_probes(lab: Lab, fpi: Any) -> None:
    matrix = RANDOM.standard_normal((2, 2)) + 1j * RANDOM.standard_normal((2, 2))
    z = lab.tensor(RANDOM.standard_normal(2) + 1j)
    m = lab.tensor(matrix)
    corners = [complex(a, b) / 2**0.5 for a, b in product((-1, 1), repeat=2)]
    probes = [lab.tensor(np.array(e)) for e in product(corners, repeat=2)]
    found = fpi.jacobian_penalty(lambda z: matvec(lab.xp, m, z), z, probes=probes)
    assert float(lab.numpy(found)) == pytest.approx((abs(matrix) ** 2).sum())

    a, b = lab.tensor(np.array([2.0, 3.0])), lab.tensor(np.array(4.0))
    f = lambda z: {"a": z["b"] * a, "b": z["b"] * b}  # noqa: E731
    found = fpi.jacobian_penalty(f, {"a": a, "b": b}, probes=[{"b": b, "a": a}])
    assert float(lab.numpy(found)) == pytest.approx((4 + 9 + 16) ** 2)


def source(name: str, seed: int) -> Any:
    if name == "torch":
        import torch

        return torch.Generator().manual_seed(seed)
    if name == "jax":
        import jax

        return jax.random.key(seed)
    import tensorflow as tf

    return tf.random.Generator.from_seed(seed)


@pytest.mark.gradients
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "complex64"])
def test_drawn_probes_are_signs(lab: Lab, fpi: Any, dtype: str) -> None:
    """A diagonal J gives its norm whatever the signs; another one tells them apart."""
    rate = lab.tensor(np.array([[1.0, 2.0], [3.0, 0.5]]), dtype)
    rng = source(lab.name, 0)
    found = fpi.jacobian_penalty(lambda z: rate * z, rate, probes=3, rng=rng, batch_ndim=1)
    np.testing.assert_allclose(lab.numpy(found), [5.0, 9.25], rtol=1e-6)
    assert lab.numpy(found).dtype == ("float64" if dtype == "float64" else "float32")

    z = lab.tensor(np.ones(30), dtype)
    f = lambda z: z * 0 + lab.xp.sum(z * z)  # noqa: E731
    draws = [
        float(lab.numpy(fpi.jacobian_penalty(f, z, rng=source(lab.name, s)))) for s in (0, 0, 1, 2)
    ]
    assert draws[0] == draws[1]
    assert len(set(draws)) > 1


@pytest.mark.gradients
def test_f_may_close_over_z(lab: Lab, fpi: Any) -> None:
    def loss(z: Any) -> Any:
        ones = [lab.xp.ones_like(z)]
        return fpi.jacobian_penalty(lambda u: u * z, z, probes=ones)

    z = np.array([1.0, 2.0])
    np.testing.assert_allclose(lab.gradient(loss, z)[0], 2 * z)


@pytest.mark.gradients
def test_bad_input(lab: Lab, fpi: Any) -> None:
    z, f = lab.tensor(np.ones(4)), lambda z: z * z
    bad: Any = (0, 1.5, True, [], [z[:2]], [{"a": z}], [lab.tensor(np.ones(4), "float32")])
    for probes in bad:
        with pytest.raises(InputError, match=r"expected .*probes"):
            fpi.jacobian_penalty(f, z, probes=probes)
    with pytest.raises(InputError, match="rng"):
        fpi.jacobian_penalty(f, z, probes=[z], rng=source(lab.name, 0))
    with pytest.raises(InputError, match="expected rng"):
        fpi.jacobian_penalty(f, z, rng="0")
    with pytest.raises(MapError, match="expected leaf 0"):
        fpi.jacobian_penalty(lambda z: z[:2], z, probes=[z])
    found = fpi.jacobian_penalty(lambda z: (z * z, None), z, probes=[z], has_aux=True)
    assert float(lab.numpy(found)) == 16.0


@pytest.mark.framework("torch")
def test_torch_grad_mode_decides_what_is_kept() -> None:
    import torch

    import fpicore_torch as fpi

    weight, z = torch.ones(2, 2, requires_grad=True), torch.ones(2)
    f = lambda z: weight @ z  # noqa: E731
    assert fpi.jacobian_penalty(f, z).requires_grad
    assert not fpi.jacobian_penalty(lambda z: 2 * z, z).requires_grad
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            found = fpi.jacobian_penalty(f, z * 1, probes=[z])
        assert found == 8.0
        assert not found.requires_grad
    assert fpi.spectral_radius(f, z).value == pytest.approx(2.0, rel=1e-3)
    assert not z.requires_grad


@pytest.mark.only("numpy")
def test_numpy_refuses(lab: Lab, fpi: Any) -> None:
    with pytest.raises(DerivativeError, match="expected a framework that differentiates"):
        fpi.jacobian_penalty(np.tanh, np.ones(3))
