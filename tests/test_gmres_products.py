"""The figure of GMRES: never more products than scipy.sparse.linalg.gmres to the same tolerance."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy.sparse import linalg as _linalg

import fpicore_numpy as fpi
from fpicore import GMRES, Implicit

from .problems import orthogonal, symmetric

pytestmark = pytest.mark.framework("numpy")

linalg: Any = _linalg  # its classes choose themselves, which type checkers do not see
RESTART = 20
Random = np.random.Generator


class Count(NamedTuple):
    name: str
    ours: int
    theirs: int
    residual: float
    converged: bool


def _contracting(random: Random, n: int) -> np.ndarray:
    return symmetric(random, random.uniform(-0.9, 0.95, n))


def _expansive(random: Random, n: int) -> np.ndarray:
    """Symmetric, eigenvalues of I − J on both sides of zero."""
    low, high = random.uniform(-4.0, 0.5, n), random.uniform(1.5, 4.0, n)
    return symmetric(random, np.where(random.random(n) < 0.9, low, high))


def _non_normal(random: Random, n: int) -> np.ndarray:
    upper = np.triu(random.standard_normal((n, n)), 1)
    return np.diag(random.uniform(-0.8, 0.8, n)) + upper / np.sqrt(n)


def _complex(random: Random, n: int) -> np.ndarray:
    """Eigenvalues all over a disc of radius 0.5 … 0.95."""
    return random.uniform(0.5, 0.95) * random.standard_normal((n, n)) / np.sqrt(n)


def _complex_expansive(random: Random, n: int) -> np.ndarray:
    """Rotations by all angles, shrunk or stretched, away from 1."""
    angles = random.uniform(0.6, np.pi, n // 2)
    sizes = random.uniform(0.3, 1.8, n // 2)
    matrix = np.diag(random.uniform(-1.5, 0.5, n))
    for i, (angle, size) in enumerate(zip(angles, sizes, strict=True)):
        turn = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        matrix[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = size * np.array(turn)
    basis = orthogonal(random, n)
    return basis @ matrix @ basis.T


def _clustered(random: Random, n: int) -> np.ndarray:
    centres = random.choice([-2.0, 0.3, 0.9], n)
    return symmetric(random, centres + 1e-3 * random.standard_normal(n))


def _nearly_singular(random: Random, n: int) -> np.ndarray:
    spectrum = random.uniform(-0.5, 0.5, n)
    spectrum[0] = 1.0 - 10.0 ** random.uniform(-6.0, -3.0)
    return symmetric(random, spectrum)


FAMILIES: tuple[Callable[[Random, int], np.ndarray], ...] = (
    _contracting,
    _expansive,
    _non_normal,
    _complex,
    _complex_expansive,
    _clustered,
    _nearly_singular,
)


def count(seed: int, rtol: float, restart: int = RESTART) -> Count:
    """One system of the suite, solved by both."""
    random = np.random.default_rng(seed)
    family, n = FAMILIES[seed % len(FAMILIES)], int(random.integers(5, 101))
    jacobian, v = family(random, n), random.standard_normal(n)
    operator, calls = np.eye(n) - jacobian, [0, 0]

    def product(g: np.ndarray) -> np.ndarray:
        calls[0] += 1
        return jacobian @ g

    def matvec(g: np.ndarray) -> np.ndarray:
        calls[1] += 1
        return operator @ g

    sol = fpi.adjoint_solve(
        product,
        v,
        adjoint=Implicit(solver=GMRES(restart), fallback=None, rtol=rtol),
        max_steps=5000,
    )
    _, failed = linalg.gmres(
        linalg.LinearOperator((n, n), matvec=matvec, dtype=v.dtype), v, rtol=rtol,
        restart=restart, maxiter=250, callback=lambda _: None, callback_type="pr_norm",
    )  # fmt: skip
    residual = float(np.linalg.norm(v - operator @ sol.value) / np.linalg.norm(v))
    assert sol.stats.evaluations == calls[0]
    assert not failed, f"choose the suite so that SciPy solves it: {family.__name__}, seed {seed}"
    name = f"{family.__name__[1:]} {n} (seed {seed})"
    return Count(name, calls[0], calls[1], residual, bool(sol.converged))


@pytest.mark.parametrize("rtol", [1e-4, 1e-8])
def test_never_more_products_than_scipy(rtol: float) -> None:
    found = [count(seed, rtol) for seed in range(200)]
    saved = np.array([c.theirs - c.ours for c in found])
    ours, theirs = sum(c.ours for c in found), sum(c.theirs for c in found)
    figure = (
        f"rtol {rtol}: {ours} products, SciPy {theirs}; "
        f"saved per system: {np.percentile(saved, [0, 25, 50, 75, 100])}"
    )
    worse = [c for c in found if c.ours > c.theirs]
    loose = [c for c in found if not c.converged or c.residual > rtol * (1 + 1e-6)]
    print(figure)
    assert not worse, f"{figure}\nmore than SciPy: {worse}"
    assert not loose, f"{figure}\nnot to the tolerance: {loose}"


@pytest.mark.parametrize("seed", range(5))
def test_one_cycle_is_as_accurate_as_a_solve(seed: int) -> None:
    """Residual of order ε·κ, not ε·κ², for a condition κ of 10⁶."""
    random, n = np.random.default_rng(seed), 18
    operator = orthogonal(random, n) * np.logspace(0, -6, n) @ orthogonal(random, n)
    v = random.standard_normal(n)
    adjoint = Implicit(solver=GMRES(), fallback=None, rtol=1e-14, on_failure="ignore")
    sol = fpi.adjoint_solve(
        lambda g: g - operator @ g, v, adjoint=adjoint, max_steps=n, on_failure="ignore"
    )
    assert sol.stats.residual <= 1e-9
