"""Anderson and Broyden against textbook versions that keep dense matrices."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fpicore_numpy as fpi
from fpicore import Anderson, Broyden

from .problems import symmetric

pytestmark = pytest.mark.framework("numpy")

N = 30
Map = Callable[[np.ndarray], np.ndarray]


def linear(seed: int) -> Map:
    random = np.random.default_rng(seed)
    matrix, shift = symmetric(random, np.linspace(-0.7, 0.95, N)), random.standard_normal(N)
    return lambda z: matrix @ z + shift


def nonlinear(seed: int) -> Map:
    f = linear(seed)
    return lambda z: np.tanh(0.8 * f(z)) + 0.1


def iterates(f: Map, solver: Any, count: int) -> list[np.ndarray]:
    """The points at which the library evaluates f."""
    seen: list[np.ndarray] = []

    def watched(z: np.ndarray) -> np.ndarray:
        seen.append(z.copy())
        return f(z)

    fpi.fixed_point(
        watched, np.zeros(N), solver=solver, rtol=1e-14, max_steps=count - 1, on_failure="ignore"
    )
    return seen


def dense_anderson(f: Map, history: int, count: int, beta: float = 1.0) -> list[np.ndarray]:
    """Walker and Ni (2011), (2.1): differences of residuals, least squares by QR.

    After a mixed step that increased the residual the next step is a plain one.
    """
    z, values, residuals, seen = np.zeros(N), [], [], []
    mixed = False
    for _ in range(count):
        seen.append(z)
        values.append(f(z))
        residuals.append(values[-1] - z)
        values, residuals = values[-history - 1 :], residuals[-history - 1 :]
        worse = len(residuals) > 1 and np.linalg.norm(residuals[-1]) > np.linalg.norm(residuals[-2])
        if len(residuals) == 1 or (mixed and worse):
            gamma = np.zeros(len(residuals) - 1)
            mixed = len(residuals) == 1
        else:
            gamma = np.linalg.lstsq(np.diff(residuals, axis=0).T, residuals[-1], rcond=None)[0]
            mixed = True
        bar = residuals[-1] - gamma @ np.diff(residuals, axis=0).reshape(-1, N)
        z = values[-1] - gamma @ np.diff(values, axis=0).reshape(-1, N) - (1 - beta) * bar
    return seen


def dense_broyden(f: Map, count: int, history: int = 1000) -> list[np.ndarray]:
    """Good Broyden on r(z) = f(z) − z by Sherman and Morrison, from H = −I.

    More than ``history`` pairs are given up for the newest of them.
    """
    z, pairs, seen = np.zeros(N), [], []
    r = f(z) - z
    for _ in range(count):
        seen.append(z)
        s = -inverse_jacobian(pairs) @ r
        z = z + s
        new = f(z) - z
        pairs.append((s, new - r))
        pairs = pairs if len(pairs) <= history else pairs[-1:]
        r = new
    return seen


def inverse_jacobian(pairs: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """−I, updated by each pair (s, y) in turn."""
    inverse = -np.eye(N)
    for s, y in pairs:
        inverse = inverse + np.outer(s - inverse @ y, s @ inverse) / (s @ inverse @ y)
    return inverse


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("make", [linear, nonlinear])
@pytest.mark.parametrize(("history", "beta"), [(1, 1.0), (3, 1.0), (5, 1.0), (5, 0.6)])
def test_anderson_is_the_least_squares_method(
    make: Any, history: int, beta: float, seed: int
) -> None:
    solver = Anderson(history=history, mixing=beta, regularization=1e-15)
    ours = iterates(make(seed), solver, 11)
    dense = dense_anderson(make(seed), history, 11, beta)
    for a, b in zip(ours, dense, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * max(1.0, float(np.linalg.norm(b))))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("make", [linear, nonlinear])
def test_broyden_is_the_dense_method(make: Any, seed: int) -> None:
    ours = iterates(make(seed), Broyden(), 7)
    dense = dense_broyden(make(seed), 7)
    for a, b in zip(ours, dense, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make", [linear, nonlinear])
@pytest.mark.parametrize("history", [1, 2, 4])
def test_broyden_restarts_from_its_newest_pair(make: Any, history: int) -> None:
    ours = iterates(make(0), Broyden(history=history), 12)
    dense = dense_broyden(make(0), 12, history)
    for a, b in zip(ours, dense, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("solver", [Anderson(), Anderson(history=1), Broyden(), Broyden(history=1)])
def test_first_step_is_the_plain_step(solver: Any) -> None:
    f = nonlinear(0)
    ours = iterates(f, solver, 2)
    np.testing.assert_allclose(ours[1], f(ours[0]), rtol=1e-9)


def test_first_step_of_anderson_is_damped_by_mixing() -> None:
    f = nonlinear(0)
    ours = iterates(f, Anderson(mixing=0.25), 2)
    np.testing.assert_allclose(ours[1], 0.25 * f(np.zeros(N)), rtol=1e-9)


def test_safeguard_takes_a_plain_step_after_a_mixed_one_that_made_things_worse() -> None:
    """A kink that extrapolation runs past: the step after the first increase is plain."""
    for seed in range(40):
        f = _kinked(seed)
        points = iterates(f, Anderson(), 30)
        errors = [np.linalg.norm(f(z) - z) for z in points]
        for k in range(2, len(points) - 1):
            if errors[k] > errors[k - 1] and not _plain(f, points, k - 1):
                assert _plain(f, points, k)
                return
    pytest.fail("no map of the family made Anderson's residual grow")


def _kinked(seed: int) -> Map:
    random = np.random.default_rng(seed)
    matrix, shift = random.standard_normal((N, N)) / np.sqrt(N), random.standard_normal(N)
    return lambda z: 0.9 * np.abs(matrix @ z + shift) - 0.3


def _plain(f: Map, points: list[np.ndarray], k: int) -> bool:
    return np.allclose(points[k + 1], f(points[k]), rtol=1e-9, atol=1e-12)


def test_regularisation_is_relative() -> None:
    """A ridge that is absolute would fade or dominate when the problem is scaled."""
    f = linear(1)
    plain = iterates(f, Anderson(regularization=1e-2), 8)
    size = float(np.linalg.norm(f(np.zeros(N))))
    for scale in (1e-6, 1e6):
        scaled = iterates(lambda z, s=scale: s * f(z / s), Anderson(regularization=1e-2), 8)
        for a, b in zip(scaled, plain, strict=True):
            np.testing.assert_allclose(a / scale, b, rtol=1e-8, atol=1e-8 * size)


def test_large_regularisation_averages_the_values() -> None:
    """λ = 1 with equal residuals weighs all stored values by 1 / ‖r‖²; it still converges."""
    f = linear(2)
    sol = fpi.fixed_point(
        f, np.zeros(N), solver=Anderson(regularization=1.0), rtol=1e-6, max_steps=3000
    )
    assert sol.converged


def test_broyden_takes_no_step_along_a_secant_that_is_rounding() -> None:
    """Residuals that differ in their last bit would make a secant step of 10¹⁵."""
    f = lambda z: (1.0 + 4e-16) * z + 1.0  # noqa: E731
    seen = iterates(f, Broyden(), 20)
    assert np.abs(seen).max() <= 20.0
