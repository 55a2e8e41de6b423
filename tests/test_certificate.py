"""The answer carries its own proof: residual, tolerance, status and cost are what they claim."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fpicore import Result

from .labs import Lab
from .problems import SOLVERS, symmetric

NORMS = {
    "l2": np.linalg.norm,
    "rms": lambda x: np.sqrt(np.mean(x**2)),
    "max": lambda x: np.max(np.abs(x)),
}
CRITERIA = [("l2", 1e-9), ("rms", 1e-3), ("max", 1e-6)]
N = 4
RECORDING = {"numpy": 0, "torch": 1, "jax": 0, "tensorflow": 1}
"""Evaluations after the solve, of the linearisation at z*; JAX makes it when it differentiates."""

seeds = st.integers(0, 2**16)
contraction = st.floats(0.0, 0.95)


def linear(seed: int, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """A symmetric matrix of spectrum low … high and a shift."""
    random = np.random.default_rng(seed)
    return symmetric(random, np.linspace(low, high, N)), random.standard_normal(N)


def f(xp: Any, z: Any, matrix: Any, shift: Any) -> Any:
    return xp.matmul(matrix, z) + 0.1 * xp.sin(z) + shift


@pytest.mark.parametrize("solver", SOLVERS)
@settings(max_examples=10)
@given(seed=seeds, rho=contraction, criterion=st.sampled_from(CRITERIA))
def test_returned_point_satisfies_its_certificate(
    lab: Lab, fpi: Any, solver: str, seed: int, rho: float, criterion: tuple[str, float]
) -> None:
    norm, rtol = criterion
    matrix, shift = linear(seed, -0.8 * rho, 0.8 * rho)
    sol = fpi.fixed_point(
        lambda z, m, b: f(lab.xp, z, m, b),
        lab.tensor(np.zeros(N)),
        (lab.tensor(matrix), lab.tensor(shift)),
        solver=SOLVERS[solver],
        rtol=rtol,
        norm=norm,
        max_steps=200,
    )
    z = lab.numpy(sol.value)
    image = f(np, z, matrix, shift)
    residual, size = NORMS[norm](image - z), NORMS[norm](image)
    rounding = 1e-14 * (1.0 + size)
    assert int(lab.numpy(sol.result.codes)) == Result.CONVERGED
    assert bool(lab.numpy(sol.converged))
    assert residual <= rtol * size + rounding
    assert float(lab.numpy(sol.stats.residual)) == pytest.approx(residual, rel=1e-6, abs=rounding)
    assert float(lab.numpy(sol.stats.tolerance)) == pytest.approx(rtol * size, rel=1e-12)
    assert float(lab.numpy(sol.stats.residual)) <= float(lab.numpy(sol.stats.tolerance))


@pytest.mark.parametrize("damping", [0.5, 1.0])
def test_residual_is_undamped(lab: Lab, fpi: Any, damping: float) -> None:
    matrix, shift = linear(0, -0.5, 0.5)
    sol = fpi.fixed_point(
        lambda z: f(lab.xp, z, lab.tensor(matrix), lab.tensor(shift)),
        lab.tensor(np.zeros(N)),
        solver=fpi.Picard(damping=damping),
        max_steps=3,
        on_failure="ignore",
    )
    z = lab.numpy(sol.value)
    residual = np.linalg.norm(f(np, z, matrix, shift) - z)
    assert float(lab.numpy(sol.stats.residual)) == pytest.approx(residual, rel=1e-12)


@pytest.mark.parametrize("batch_ndim", [0, 1])
def test_the_tolerance_is_that_of_the_best_iterate(lab: Lab, fpi: Any, batch_ndim: int) -> None:
    """The residual falls, far from its tolerance, and grows again: the last iterate is no best."""
    start = np.array([-3.0, -2.7, -2.4])
    sol = fpi.fixed_point(
        lambda z: z + (z + 2.0) ** 2 + 0.1,
        lab.tensor(start),
        solver=fpi.Picard(),
        rtol=1e-6,
        norm="max",
        max_steps=9,
        batch_ndim=batch_ndim,
        on_failure="ignore",
    )
    z = lab.numpy(sol.value)
    size = np.abs(z + (z + 2.0) ** 2 + 0.1)
    expected = 1e-6 * (size if batch_ndim else size.max())
    assert np.all(lab.numpy(sol.stats.steps) == 9)
    assert lab.numpy(sol.stats.tolerance) == pytest.approx(expected, rel=1e-12)
    assert np.all(np.abs(z + 2.0) < 0.5)


@pytest.mark.parametrize("atol", [1e-3, 1e-6])
def test_atol_alone(lab: Lab, fpi: Any, atol: float) -> None:
    """rtol=0 with an atol is a purely absolute test, here of a fixed point at zero."""
    sol = fpi.fixed_point(
        lambda z: 0.5 * z, lab.tensor(np.ones(N)), solver=fpi.Picard(), rtol=0.0, atol=atol
    )
    assert float(lab.numpy(sol.stats.tolerance)) == pytest.approx(atol)
    assert float(lab.numpy(sol.stats.residual)) <= atol
    # ‖f(z) − z‖ = 2^−k after k steps, from a start of norm 2.
    assert int(lab.numpy(sol.stats.steps)) == int(np.ceil(-np.log2(atol)))


def test_atol_adds_to_rtol(lab: Lab, fpi: Any) -> None:
    sol = fpi.fixed_point(lambda z: 0.5 * z + 1.0, lab.tensor(np.ones(N)), rtol=1e-3, atol=1e-3)
    size = np.linalg.norm(0.5 * lab.numpy(sol.value) + 1.0)
    assert float(lab.numpy(sol.stats.tolerance)) == pytest.approx(1e-3 + 1e-3 * size)


@settings(max_examples=10)
@given(seed=seeds, low=st.floats(-0.9, 0.0), high=st.floats(0.0, 0.9))
def test_every_solver_finds_the_same_point(
    lab: Lab, fpi: Any, seed: int, low: float, high: float
) -> None:
    matrix, shift = linear(seed, low, high)
    found = [_linear_solution(lab, fpi, matrix, shift, solver) for solver in SOLVERS.values()]
    exact = np.linalg.solve(np.eye(N) - matrix, shift)
    for value in found:
        np.testing.assert_allclose(value, exact, rtol=0, atol=2e-8 * float(np.linalg.norm(exact)))


@settings(max_examples=10)
@given(seed=seeds, low=st.floats(-3.0, -1.1), high=st.floats(0.0, 0.8))
def test_accelerated_solvers_find_expansive_points(
    lab: Lab, fpi: Any, seed: int, low: float, high: float
) -> None:
    matrix, shift = linear(seed, low, high)
    exact = np.linalg.solve(np.eye(N) - matrix, shift)
    for solver in (SOLVERS["anderson"], SOLVERS["broyden"]):
        value = _linear_solution(lab, fpi, matrix, shift, solver)
        np.testing.assert_allclose(value, exact, rtol=0, atol=2e-8 * float(np.linalg.norm(exact)))


def _linear_solution(
    lab: Lab, fpi: Any, matrix: np.ndarray, shift: np.ndarray, solver: Any
) -> np.ndarray:
    m, b = lab.tensor(matrix), lab.tensor(shift)
    sol = fpi.fixed_point(
        lambda z: lab.xp.matmul(m, z) + b,
        lab.tensor(np.zeros(N)),
        solver=solver,
        rtol=1e-9,
        max_steps=500,
    )
    return lab.numpy(sol.value)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("max_steps", [1, 2, 3, 500])
def test_one_evaluation_a_step_and_one_more(
    lab: Lab, fpi: Any, solver: str, max_steps: int
) -> None:
    matrix, shift = linear(3, -0.6, 0.6)
    tensors = lab.tensor(matrix), lab.tensor(shift)
    counted, count = lab.counted(lambda z: f(lab.xp, z, *tensors))
    sol = fpi.fixed_point(
        counted,
        lab.tensor(np.zeros(N)),
        solver=SOLVERS[solver],
        rtol=1e-9,
        max_steps=max_steps,
        on_failure="ignore",
    )
    evaluations, steps = int(lab.numpy(sol.stats.evaluations)), int(lab.numpy(sol.stats.steps))
    assert evaluations == steps + 1
    assert steps == max_steps or max_steps == 500
    assert count() == evaluations + RECORDING[lab.name]


@pytest.mark.parametrize("batch_ndim", [0, 1])
def test_start_at_the_fixed_point_costs_one_evaluation(lab: Lab, fpi: Any, batch_ndim: int) -> None:
    sol = fpi.fixed_point(lambda z: 0.5 * z, lab.tensor(np.zeros((2, N))), batch_ndim=batch_ndim)
    assert int(lab.numpy(sol.stats.evaluations)) == 1
    assert not np.any(lab.numpy(sol.stats.steps))
    assert np.all(lab.numpy(sol.converged))
