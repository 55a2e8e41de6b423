"""The solvers' mathematics, in NumPy: evaluations they may take, and what they must equal."""

from typing import Any, NamedTuple

import numpy as np
import pytest

import fpicore_numpy as fpi
from fpicore import Anderson, Broyden, NewtonKrylov, Picard, Result

from .problems import symmetric

pytestmark = [
    pytest.mark.framework("numpy"),
    pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning"),
]

RTOLS = (1e-5, 1e-8, 1e-10)
BUDGETS = {Anderson(history=5): (105, 225, 315), Broyden(): (65, 115, 145)}
"""Evaluations at each rtol, on the symmetric map of spectrum 0 … 0.99 in 100 unknowns."""
SEEDS = range(5)


class Solved(NamedTuple):
    evaluations: int
    converged: bool
    value: np.ndarray


def hundred(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return symmetric(random, np.linspace(0.0, 0.99, 100)), random.standard_normal(100)


def solve(matrix: np.ndarray, shift: np.ndarray, solver: Any, **options: Any) -> Solved:
    options = {"rtol": 1e-10, "max_steps": 5000, "on_failure": "ignore", **options}
    sol = fpi.fixed_point(
        lambda z: matrix @ z + shift, np.zeros(len(shift)), solver=solver, **options
    )
    return Solved(sol.stats.evaluations, sol.result.codes == Result.CONVERGED, sol.value)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("solver", BUDGETS, ids=lambda s: s.name)
def test_evaluations_on_the_symmetric_map(solver: Any, seed: int, record_property: Any) -> None:
    matrix, shift = hundred(seed)
    found = [solve(matrix, shift, solver, rtol=rtol) for rtol in RTOLS]
    record_property("evaluations", [f.evaluations for f in found])
    print(solver, "seed", seed, [f.evaluations for f in found])
    for got, budget, rtol in zip(found, BUDGETS[solver], RTOLS, strict=True):
        assert got.converged
        assert got.evaluations <= budget
        residual = matrix @ got.value + shift - got.value
        assert np.linalg.norm(residual) <= rtol * np.linalg.norm(matrix @ got.value + shift) * 1.001


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("solver", [Anderson(), Anderson(history=2), Broyden(), Broyden(history=3)])
def test_faster_than_plain_iteration_at_tight_tolerance(solver: Any, seed: int) -> None:
    matrix, shift = hundred(seed)
    plain = solve(matrix, shift, Picard())
    fast = solve(matrix, shift, solver)
    assert fast.converged
    assert fast.evaluations < 0.5 * plain.evaluations


@pytest.mark.parametrize("exponent", [-400, -60, 60, 400])
@pytest.mark.parametrize("solver", [Anderson(), Broyden(), NewtonKrylov()], ids=lambda s: s.name)
def test_units_do_not_matter(solver: Any, exponent: int) -> None:
    """In other units the same steps are taken, bit for bit: nothing in a solver is absolute."""
    matrix, shift = hundred(0)
    plain = solve(matrix, shift, solver)
    scaled = solve(matrix, 2.0**exponent * shift, solver)
    assert scaled.evaluations == plain.evaluations
    np.testing.assert_array_equal(scaled.value, 2.0**exponent * plain.value)


@pytest.mark.parametrize("scale", [1e-250, 1e-200, 1e160, 1e250])
@pytest.mark.parametrize("solver", [Anderson(), Broyden(), NewtonKrylov()], ids=lambda s: s.name)
def test_beyond_the_range_of_squares(solver: Any, scale: float) -> None:
    """Inner products leave the range of float64; the answer may take longer, and is right."""
    random = np.random.default_rng(0)
    matrix, shift = symmetric(random, np.linspace(-0.5, 0.5, 6)), random.standard_normal(6)
    found = solve(matrix, scale * shift, solver)
    assert found.converged
    np.testing.assert_allclose(
        found.value / scale, np.linalg.solve(np.eye(6) - matrix, shift), rtol=1e-8
    )


@pytest.mark.parametrize("history", [1, 2, 3, 5, 10])
@pytest.mark.parametrize("seed", SEEDS)
def test_broyden_keeps_converging_when_its_memory_wraps(history: int, seed: int) -> None:
    matrix, shift = hundred(seed)
    seen: list[np.ndarray] = []

    def f(z: np.ndarray) -> np.ndarray:
        seen.append(z)
        return matrix @ z + shift

    sol = fpi.fixed_point(
        f, np.zeros(100), solver=Broyden(history=history), rtol=1e-10, max_steps=5000
    )
    assert sol.stats.steps > 2 * history
    assert np.isfinite(seen).all()


@pytest.mark.parametrize("history", [1, 3, 5, 20])
@pytest.mark.parametrize("seed", SEEDS)
def test_anderson_keeps_converging_when_its_memory_wraps(history: int, seed: int) -> None:
    found = solve(*hundred(seed), Anderson(history=history))
    assert found.converged
    assert np.isfinite(found.value).all()


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("solver", [Anderson(history=5), Broyden()], ids=lambda s: s.name)
def test_finite_termination_on_small_linear_maps(solver: Any, n: int) -> None:
    """Anderson with history ≥ n is GMRES: n + 1 steps. Broyden needs at most 2n (Gay, 1979)."""
    random = np.random.default_rng(n)
    matrix = symmetric(random, np.linspace(-2.0, 0.8, n))
    found = solve(matrix, random.standard_normal(n), solver, rtol=1e-8)
    assert found.converged
    assert found.evaluations <= (n + 3 if solver.name == "anderson" else 2 * n + 2)


@pytest.mark.parametrize("beta", [0.3, 0.7, 1.0])
def test_picard_is_the_damped_formula(beta: float) -> None:
    matrix, shift = hundred(1)
    z = np.zeros(100)
    for _ in range(4):
        z = (1 - beta) * z + beta * (matrix @ z + shift)
    found = solve(matrix, shift, Picard(damping=beta), max_steps=4)
    np.testing.assert_allclose(found.value, z, rtol=1e-12)


def test_damping_makes_picard_converge() -> None:
    """Spectrum −2.5 … 0.5: the plain iteration diverges, |1 − β(1 − λ)| < 1 for β = 0.5."""
    random = np.random.default_rng(0)
    matrix, shift = symmetric(random, np.linspace(-2.5, 0.5, 6)), random.standard_normal(6)
    assert not solve(matrix, shift, Picard()).converged
    assert solve(matrix, shift, Picard(damping=0.5)).converged


def test_picard_takes_the_number_of_steps_that_theory_says() -> None:
    """‖r_k‖ = λ^k ‖r_0‖ for f = λ z + b."""
    found = fpi.fixed_point(
        lambda z: 0.9 * z + 1.0, np.zeros(3), solver=Picard(), rtol=0.0, atol=1e-6, max_steps=500
    )
    steps = int(np.ceil(np.log(1e-6 / np.sqrt(3)) / np.log(0.9)))
    assert abs(found.stats.steps - steps) <= 1
