"""GMRES: exact in n products, certified by one, the same for a batch, a nest and every framework.

Its count of products against SciPy's is in test_gmres_products; how it fails, in
test_gmres_failure.
"""

import warnings
from typing import Any

import numpy as np
import pytest

from fpicore import GMRES, Anderson, Implicit, Picard, Result

from .labs import Lab
from .problems import matvec, orthogonal, symmetric

N = 6


def solve(lab: Lab, jacobian: Any, v: Any, restart: int = 20, **options: Any) -> Any:
    """g = J g + v; options of the adjoint solve, with rtol 1e-9 unless they say otherwise."""
    m, right = lab.tensor(jacobian), lab.tensor(v)
    options = {"rtol": 1e-9, "on_failure": "ignore", **options}
    adjoint = Implicit(solver=GMRES(restart), fallback=None)
    product = lambda g: matvec(lab.xp, m, g)  # noqa: E731
    return lab.fpi.adjoint_solve(product, right, adjoint=adjoint, **options)


def outcome(lab: Lab, sol: Any) -> tuple[np.ndarray, ...]:
    """Value, codes, steps, residual."""
    return lab.numpy((sol.value, sol.result.codes, sol.stats.steps, sol.stats.residual))


def compiled(lab: Lab, mode: str, *arrays: np.ndarray, **options: Any) -> tuple[np.ndarray, ...]:
    def run(m: Any, v: Any) -> Any:
        sol = lab.fpi.adjoint_solve(
            lambda g: matvec(lab.xp, m, g),
            v,
            adjoint=Implicit(solver=GMRES(4), fallback=None),
            rtol=1e-9,
            on_failure="ignore",
            **options,
        )
        return sol.value, sol.result.codes, sol.stats.steps, sol.stats.residual

    return lab.run(run, *arrays, mode=mode)


def general(seed: int = 0, n: int = N) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A Jacobian with complex eigenvalues, some above 1 in modulus, v, and the answer."""
    random = np.random.default_rng(seed)
    jacobian, v = random.standard_normal((n, n)), random.standard_normal(n)
    return jacobian, v, np.linalg.solve(np.eye(n) - jacobian, v)


def definite(seed: int = 0, n: int = 40) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """I − J of spectrum 0.2 … 4."""
    random = np.random.default_rng(seed)
    jacobian, v = symmetric(random, np.linspace(-3.0, 0.8, n)), random.standard_normal(n)
    return jacobian, v, np.linalg.solve(np.eye(n) - jacobian, v)


def stagnating(n: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """I − J is a cyclic shift: a Krylov space of fewer than n dimensions knows nothing of g."""
    return np.eye(n) - np.roll(np.eye(n), 1, axis=0), np.eye(n)[0]


@pytest.mark.parametrize("seed", range(3))
def test_n_unknowns_take_n_products_and_one_that_certifies(lab: Lab, seed: int) -> None:
    jacobian, v, exact = general(seed)
    sol = solve(lab, jacobian, v)
    value, code, steps, residual = outcome(lab, sol)
    np.testing.assert_allclose(value, exact, rtol=1e-8, atol=1e-10)
    assert code == Result.CONVERGED
    assert steps == N
    assert int(lab.numpy(sol.stats.evaluations)) == N + 1
    assert residual <= 1e-12


def test_three_eigenvalues_take_three_products(lab: Lab) -> None:
    random = np.random.default_rng(1)
    jacobian = symmetric(random, [-4.0] * 5 + [0.5] * 5 + [3.0] * 5)
    value, _, steps, _ = outcome(lab, solve(lab, jacobian, np.ones(15)))
    assert steps == 3
    np.testing.assert_allclose(value - jacobian @ value, 1.0, rtol=1e-9)


@pytest.mark.only("numpy", "torch")
def test_iterates_minimise_the_residual(lab: Lab) -> None:
    """After k products the residual is the least that the Krylov space of dimension k allows."""
    jacobian, v, _ = definite(n=12)
    a, powers = np.eye(12) - jacobian, [v]
    for k in range(1, 8):
        found = outcome(lab, solve(lab, jacobian, v, max_steps=k, rtol=1e-12))
        images = a @ np.stack(powers, axis=1)
        best = v - images @ np.linalg.lstsq(images, v, rcond=None)[0]
        assert found[1] == Result.MAX_STEPS
        assert found[3] == pytest.approx(np.linalg.norm(best) / np.linalg.norm(v), rel=1e-8)
        true = np.linalg.norm(v - a @ found[0]) / np.linalg.norm(v)
        assert found[3] == pytest.approx(true, rel=1e-8)
        powers.append(a @ powers[-1])


@pytest.mark.parametrize("restart", [1, 3, 7])
def test_short_cycles_converge_for_a_definite_operator(lab: Lab, restart: int) -> None:
    jacobian, v, exact = definite()
    value, code, steps, residual = outcome(lab, solve(lab, jacobian, v, restart, max_steps=800))
    assert code == Result.CONVERGED
    assert steps > restart
    assert residual <= 1e-9
    np.testing.assert_allclose(value, exact, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("norm", ["l2", "rms", "max"])
def test_the_residual_is_true_in_the_chosen_norm(lab: Lab, norm: str) -> None:
    jacobian, v, _ = definite(1)
    sol = solve(lab, jacobian, v, 5, norm=norm, rtol=1e-5, max_steps=800)
    value, code, _, residual = outcome(lab, sol)
    order = np.inf if norm == "max" else None
    true = v + jacobian @ value - value
    relative = np.linalg.norm(true, order) / np.linalg.norm(v, order)
    assert code == Result.CONVERGED
    assert residual <= float(lab.numpy(sol.stats.tolerance)) == pytest.approx(1e-5)
    assert residual == pytest.approx(relative, rel=1e-9)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_the_answer_is_proportional_to_the_right_hand_side(lab: Lab, scale: float) -> None:
    jacobian, v, exact = general(2)
    value = outcome(lab, solve(lab, jacobian, scale * v))[0]
    np.testing.assert_allclose(value / scale, exact, rtol=1e-8)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_narrow_leaves(lab: Lab, dtype: str) -> None:
    if dtype == "bfloat16" and lab.name == "numpy":
        pytest.skip("NumPy has no bfloat16")
    rates = lab.tensor(np.array([0.5, -1.5, -3.0, 0.25]), dtype)
    v = lab.tensor(np.array([1.0, -2.0, 0.5, 0.75]), dtype)
    rtol = {"float32": 1e-5, "float16": 5e-3, "bfloat16": 4e-2}[dtype]
    sol = lab.fpi.adjoint_solve(
        lambda g: rates * g,
        v,
        adjoint=Implicit(solver=GMRES(), fallback=None, rtol=rtol),
        on_failure="ignore",
    )
    assert sol.value.dtype == v.dtype
    assert float(lab.numpy(sol.stats.residual)) <= rtol
    np.testing.assert_allclose(
        lab.numpy(sol.value).astype(float), [2.0, -0.8, 0.125, 1.0], rtol=8 * rtol
    )


def test_nested_equals_flat(lab: Lab) -> None:
    jacobian, v, _ = definite(2, n=10)
    m, xp = lab.tensor(jacobian), lab.xp
    flat = solve(lab, jacobian, v, 4, max_steps=300)

    def product(g: dict[str, Any]) -> dict[str, Any]:
        image = matvec(xp, m, xp.concat([xp.reshape(g["a"], (6,)), g["b"]], axis=0))
        return {"a": xp.reshape(image[:6], (2, 3)), "b": image[6:]}

    right = lab.tensor({"a": v[:6].reshape(2, 3), "b": v[6:]})
    adjoint = Implicit(solver=GMRES(4), fallback=None, rtol=1e-9)
    nested = lab.fpi.adjoint_solve(product, right, adjoint=adjoint, max_steps=300)
    value = lab.numpy(nested.value)
    packed = np.concatenate([value["a"].ravel(), value["b"]])
    np.testing.assert_allclose(packed, lab.numpy(flat.value), rtol=1e-7)
    assert int(lab.numpy(nested.stats.steps)) == int(lab.numpy(flat.stats.steps))


def conjugate(lab: Lab, x: Any) -> Any:
    if lab.name == "tensorflow":
        import tensorflow as tf

        return tf.math.conj(x)
    return lab.xp.conj(x)


def test_complex_state_is_a_real_space_of_twice_the_size(lab: Lab) -> None:
    random = np.random.default_rng(3)
    jacobian = random.standard_normal((N, N)) + 1j * random.standard_normal((N, N))
    v = random.standard_normal(N) + 1j * random.standard_normal(N)
    value, code, steps, residual = outcome(lab, solve(lab, jacobian, v))
    assert code == Result.CONVERGED
    assert steps == 2 * N
    assert not np.iscomplexobj(residual)
    np.testing.assert_allclose(value, np.linalg.solve(np.eye(N) - jacobian, v), rtol=1e-8)


def test_product_that_is_linear_over_the_reals_only(lab: Lab) -> None:
    """g = a g + b ḡ + v, as a map that is not holomorphic has it."""
    a, b, v = 0.3 + 0.4j, -1.5 + 0.2j, np.array([1.0 + 2.0j, -0.5 + 0.1j])
    x, y = lab.tensor(np.array(a)), lab.tensor(np.array(b))
    sol = lab.fpi.adjoint_solve(
        lambda g: x * g + y * conjugate(lab, g),
        lab.tensor(v),
        adjoint=Implicit(solver=GMRES(), fallback=None, rtol=1e-12),
    )
    exact = ((1 - np.conj(a)) * v + b * np.conj(v)) / (abs(1 - a) ** 2 - abs(b) ** 2)
    np.testing.assert_allclose(lab.numpy(sol.value), exact, rtol=1e-10)


@pytest.mark.gradients
def test_gradient_above_spectral_radius_one(lab: Lab, mode: str) -> None:
    """z = θ − 1.5 z: dz*/dθ = 0.4, in one product and its certificate."""

    def loss(theta: Any) -> Any:
        sol = lab.fpi.fixed_point(
            lambda z, t: t - 1.5 * z, lab.xp.zeros_like(theta), (theta,),
            adjoint=Implicit(solver=GMRES(), fallback=None), rtol=1e-10,
        )  # fmt: skip
        return lab.xp.sum(sol.value)

    (gradient,) = lab.gradient(loss, np.array([2.0, -1.0]), mode=mode)
    np.testing.assert_allclose(gradient, 0.4, rtol=1e-12)


@pytest.mark.gradients
def test_second_derivative(lab: Lab) -> None:
    """z = A tanh z + θ, whose Hessian needs solves with J as well as with Jᵀ."""
    random = np.random.default_rng(5)
    matrix = 0.8 * orthogonal(random, 4) @ np.diag([1.0, 0.5, 1.0, 0.2])
    theta, direction = random.standard_normal((2, 4))

    def loss(solver: Any) -> Any:
        return lambda theta: lab.xp.sum(
            lab.fpi.fixed_point(
                lambda z, t: lab.xp.matmul(lab.tensor(matrix), lab.xp.tanh(z)) + t,
                lab.xp.zeros_like(theta),
                (theta,),
                solver=Anderson(),
                adjoint=Implicit(solver=solver, fallback=None, order=2),
                rtol=1e-12,
                max_steps=1000,
            ).value
        )

    found = lab.hessian_product(loss(GMRES()), theta, direction, lab.swift)
    expected = lab.hessian_product(loss(Picard()), theta, direction, lab.swift)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.gradients
def test_the_adjoint_reports(lab: Lab) -> None:
    told: list[Any] = []

    def loss(theta: Any) -> Any:
        adjoint = Implicit(solver=GMRES(), fallback=None, callback=lambda *both: told.append(both))
        sol = lab.fpi.fixed_point(
            lambda z: lab.tensor(np.array([0.5, -1.5])) * z + theta, 0.0 * theta, adjoint=adjoint
        )
        return lab.xp.sum(sol.value)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lab.gradient(loss, np.ones(2))
        lab.wait()
    ((results, stats),) = told
    assert results.flat() == [Result.CONVERGED]
    assert int(stats.evaluations) == int(stats.steps) + 1 == 3
