"""Every gradient strategy against its own exact formula, its cost, and what it reports."""

import warnings
from typing import Any

import numpy as np
import pytest

import fpicore_numpy
from fpicore import (
    Anderson,
    Broyden,
    ConvergenceWarning,
    Implicit,
    InputError,
    Neumann,
    OneStep,
    Phantom,
    Picard,
    Result,
    Unrolled,
)

from .labs import Lab

pytestmark = pytest.mark.gradients

_RANDOM = np.random.default_rng(11)
WEIGHT = 0.8 * np.linalg.qr(_RANDOM.standard_normal((5, 5)))[0]
THETA, COTANGENT = _RANDOM.standard_normal((2, 5))


def loss(lab: Lab, adjoint: Any, cotangent: Any = COTANGENT, **options: Any) -> Any:
    """(θ, z0) ↦ vᵀz*, with z = tanh(Wz + θ)."""
    weight, v = lab.tensor(WEIGHT), lab.tensor(cotangent)

    def of(theta: Any, z0: Any) -> Any:
        sol = lab.fpi.fixed_point(
            lambda z: lab.xp.tanh(lab.xp.matmul(weight, z) + theta), z0, adjoint=adjoint, **options
        )
        return lab.xp.sum(v * sol.value)

    return of


def slope(z: np.ndarray) -> np.ndarray:
    """The diagonal of tanh' at a fixed point."""
    return 1.0 - z**2


def series(z: np.ndarray, terms: int, damping: float) -> np.ndarray:
    """Dᵀ λ Σ ((1 − λ) I + λ Jᵀ)ᵏ v."""
    transposed = (slope(z)[:, None] * WEIGHT).T
    step = (1.0 - damping) * np.eye(5) + damping * transposed
    total = sum(np.linalg.matrix_power(step, k) @ COTANGENT for k in range(terms))
    return slope(z) * (damping * total)


def fixed_point() -> np.ndarray:
    z = np.zeros(5)
    for _ in range(400):
        z = np.tanh(WEIGHT @ z + THETA)
    return z


TRUNCATED = [
    (OneStep(), 1, 1.0),
    (Neumann(1), 1, 1.0),
    (Neumann(7), 7, 1.0),
    (Phantom(), 5, 0.5),
    (Phantom(steps=4, damping=0.6), 4, 0.6),
    (Phantom(steps=1, damping=0.3), 1, 0.3),
]


@pytest.mark.modes("eager", "jit", "xla")
@pytest.mark.parametrize(("adjoint", "terms", "damping"), TRUNCATED, ids=str)
def test_truncated_series(lab: Lab, mode: str, adjoint: Any, terms: int, damping: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        found, start = lab.gradient(loss(lab, adjoint, rtol=1e-13), THETA, np.zeros(5), mode=mode)
    exact = series(fixed_point(), terms, damping)
    np.testing.assert_allclose(found, exact, rtol=1e-10)
    assert not start.any()


@pytest.mark.only("torch", "tensorflow")
@pytest.mark.parametrize(("adjoint", "terms", "damping"), TRUNCATED, ids=str)
def test_truncated_series_reports_its_products(
    lab: Lab, adjoint: Any, terms: int, damping: float
) -> None:
    del damping
    sols = []

    def of(theta: Any) -> Any:
        sols.append(
            lab.fpi.fixed_point(
                lambda z: 0.5 * lab.xp.tanh(z) + theta, 0.0 * theta, adjoint=adjoint, batch_ndim=1
            )
        )
        return lab.xp.sum(sols[0].value)

    lab.gradient(of, np.ones((2, 3)))
    record = sols[0].backward
    assert record.result.flat() == [Result.TRUNCATED] * 2
    assert int(record.stats.evaluations) == terms - 1
    assert lab.numpy(record.stats.steps).tolist() == [terms] * 2
    assert np.isnan(lab.numpy(record.stats.residual)).all()


@pytest.mark.modes("eager", "graph")
@pytest.mark.parametrize("checkpoint", [False, True, 3])
def test_unrolled_picard(lab: Lab, mode: str, checkpoint: Any) -> None:
    """The derivative of the iterate, not of the fixed point, and that for z0 as well."""
    steps, damping = 6, 0.7
    start = np.linspace(-1.0, 1.0, 5)
    z, by_theta, by_start = start, np.zeros((5, 5)), np.eye(5)
    for _ in range(steps):
        f = np.tanh(WEIGHT @ z + THETA)
        jacobian = slope(f)[:, None] * WEIGHT
        by_theta = (1 - damping) * by_theta + damping * (jacobian @ by_theta + np.diag(slope(f)))
        by_start = (1 - damping) * by_start + damping * jacobian @ by_start
        z = (1 - damping) * z + damping * f
    of = loss(
        lab,
        Unrolled(checkpoint),
        solver=Picard(damping),
        max_steps=steps,
        rtol=1e-12,
        on_failure="ignore",
    )
    found = lab.gradient(of, THETA, start, mode=mode)
    np.testing.assert_allclose(found[0], COTANGENT @ by_theta, rtol=1e-12)
    np.testing.assert_allclose(found[1], COTANGENT @ by_start, rtol=1e-12)


@pytest.mark.parametrize("solver", [Anderson(3), Broyden(4)], ids=lambda s: s.name)
def test_unrolled_solvers(lab: Lab, solver: Any) -> None:
    """In segments of two steps, against central differences of the same program on NumPy."""

    def run(theta: np.ndarray) -> float:
        sol = fpicore_numpy.fixed_point(
            lambda z: np.tanh(WEIGHT @ z + theta), np.zeros(5), **options
        )
        return float(COTANGENT @ sol.value)

    options: Any = {"solver": solver, "max_steps": 5, "rtol": 1e-12, "on_failure": "ignore"}
    differences = [(run(THETA + 1e-5 * e) - run(THETA - 1e-5 * e)) / 2e-5 for e in np.eye(5)]
    found, _ = lab.gradient(
        loss(lab, Unrolled(checkpoint=2), **options), THETA, np.zeros(5), mode=lab.swift
    )
    np.testing.assert_allclose(found, differences, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("solver", [Anderson(), Broyden()], ids=lambda s: s.name)
def test_reused_factors_save_products(lab: Lab, solver: Any) -> None:
    random = np.random.default_rng(5)
    weight = random.standard_normal((60, 60))
    weight *= 1.2 / np.abs(np.linalg.eigvals(weight)).max()
    theta, cotangent = random.standard_normal((2, 60))

    def found(reuse: bool) -> tuple[np.ndarray, int]:
        told: list[Any] = []
        adjoint = Implicit(reuse=reuse, callback=lambda *outcome: told.append(outcome))
        w, v = lab.tensor(weight), lab.tensor(cotangent)

        def of(theta: Any) -> Any:
            sol = lab.fpi.fixed_point(
                lambda z: lab.xp.tanh(lab.xp.matmul(w, z) + theta),
                lab.xp.zeros_like(theta),
                solver=solver,
                adjoint=adjoint,
                rtol=1e-9,
                max_steps=300,
            )
            return lab.xp.sum(v * sol.value)

        (gradient,) = lab.gradient(of, theta, mode=lab.swift)
        lab.wait()
        ((results, stats),) = told
        assert results.flat() == [Result.CONVERGED]
        return gradient, int(stats.evaluations)

    (plain, products), (reused, fewer) = found(False), found(True)
    np.testing.assert_allclose(reused, plain, rtol=1e-6, atol=1e-8)
    assert fewer <= 0.9 * products


@pytest.mark.modes("eager", "jit", "graph", "xla")
def test_fallback_takes_up_only_what_failed(lab: Lab, mode: str) -> None:
    """Picard's adjoint converges on the first system and diverges on the second."""
    slopes = np.array([[0.5], [-1.5]])

    def gradient(fallback: Any) -> np.ndarray:
        a = lab.tensor(slopes)
        adjoint = Implicit(solver=Picard(), fallback=fallback, on_failure="ignore")

        def of(theta: Any) -> Any:
            sol = lab.fpi.fixed_point(
                lambda z, t: t + a * z,
                lab.xp.zeros_like(theta),
                (theta,),
                adjoint=adjoint,
                rtol=1e-10,
                batch_ndim=1,
            )
            return lab.xp.sum(sol.value)

        return lab.gradient(of, np.array([[1.0, 2.0], [3.0, 4.0]]), mode=mode)[0]

    without, rescued = gradient(None), gradient(Broyden())
    np.testing.assert_allclose(rescued, [[2.0, 2.0], [0.4, 0.4]], rtol=1e-9)
    np.testing.assert_array_equal(rescued[0], without[0])
    assert abs(without[1, 0] - 0.4) > 0.01


@pytest.mark.parametrize("adjoint", [Implicit(), Implicit(reuse=True), Neumann(60), Phantom(90)])
def test_strategies_reach_the_limit(lab: Lab, adjoint: Any) -> None:
    z = fixed_point()
    system = np.eye(5) - (slope(z)[:, None] * WEIGHT).T
    exact = slope(z) * np.linalg.solve(system, COTANGENT)
    found, _ = lab.gradient(loss(lab, adjoint, rtol=1e-12), THETA, np.zeros(5), mode=lab.swift)
    np.testing.assert_allclose(found, exact, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Neumann(0), "terms"),
        (lambda: Phantom(steps=0), "steps"),
        (lambda: Phantom(damping=0.0), "damping"),
        (lambda: Unrolled(checkpoint=-1), "checkpoint"),
        (lambda: Unrolled(checkpoint=2.5), "checkpoint"),  # type: ignore[arg-type]
        (lambda: Implicit(reuse=1), "reuse"),  # type: ignore[arg-type]
        (lambda: Implicit(fallback="gmres"), "fallback"),  # type: ignore[arg-type]
    ],
)
def test_options(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"expected.*{message}.*received"):
        make()


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("solver", [Anderson(), Broyden()], ids=lambda s: s.name)
def test_unrolled_where_the_residual_vanishes(lab: Lab, solver: Any, checkpoint: bool) -> None:
    """f ignores z, and one system starts at the answer: no norm or product has a derivative."""

    def of(theta: Any) -> Any:
        sol = lab.fpi.fixed_point(
            lambda z: 0.0 * z + theta**2,
            lab.xp.zeros_like(theta),
            solver=solver,
            adjoint=Unrolled(checkpoint),
            max_steps=9,
            batch_ndim=1,
        )
        return lab.xp.sum(sol.value)

    (found,) = lab.gradient(of, np.array([[1.0, 2.0], [0.0, 0.0]]), mode=lab.swift)
    np.testing.assert_allclose(found, [[2.0, 4.0], [0.0, 0.0]], rtol=1e-12)
