"""Anderson of type I and with a period: against dense formulas, in every framework, by system."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import fpicore_numpy
from fpicore import Anderson, Broyden, Leaves, Point, Result
from fpicore_numpy._ops import NumPyOps

from .labs import Lab
from .problems import symmetric
from .test_solver_formulas import iterates, linear, nonlinear

N = 30
KINDS = [
    Anderson(kind=1),
    Anderson(history=3, kind=1, mixing=0.7),
    Anderson(period=3),
    Anderson(filtering=0.3),
    Anderson(kind=1, filtering=0.3),
]


def dense_type_one(f: Any, history: int, count: int, beta: float) -> list[np.ndarray]:
    """Fang and Saad (2009), (24): z + β r − (S + β Y)(SᵀY)⁻¹ Sᵀ r; plain after a bad mixed step."""
    z, seen, residuals, mixed = np.zeros(N), [], [], False
    for _ in range(count):
        seen.append(z)
        residuals.append(f(z) - z)
        r = residuals[-1]
        worse = mixed and np.linalg.norm(r) > np.linalg.norm(residuals[-2])
        mixed = len(seen) > 1 and not worse
        z = z + beta * r
        if mixed:
            steps = np.diff(seen[-history - 1 :], axis=0)
            changes = np.diff(residuals[-history - 1 :], axis=0)
            gamma = np.linalg.solve(steps @ changes.T, steps @ r)
            z = z - gamma @ (steps + beta * changes)
    return seen


@pytest.mark.framework("numpy")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("make", [linear, nonlinear])
@pytest.mark.parametrize(("history", "beta"), [(1, 1.0), (3, 1.0), (3, 0.6)])
def test_type_one_is_the_dense_method(make: Any, history: int, beta: float, seed: int) -> None:
    solver = Anderson(history=history, mixing=beta, regularization=1e-15, kind=1)
    ours = iterates(make(seed), solver, 10)
    dense = dense_type_one(make(seed), history, 10, beta)
    for a, b in zip(ours, dense, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(1.0, float(np.linalg.norm(b))))


@pytest.mark.framework("numpy")
@pytest.mark.parametrize("kind", [1, 2])
@pytest.mark.parametrize("period", [2, 3])
def test_steps_between_are_plain(kind: int, period: int) -> None:
    f = nonlinear(0)
    seen = iterates(f, Anderson(kind=kind, period=period), 12)
    plain = [np.allclose(b, f(a), rtol=1e-9) for a, b in pairwise(seen)]
    assert plain == [(k + 1) % period != 0 for k in range(11)]


@pytest.mark.framework("numpy")
@pytest.mark.parametrize("exponent", [-300, 300])
@pytest.mark.parametrize("solver", KINDS, ids=str)
def test_units_do_not_matter(solver: Any, exponent: int) -> None:
    random = np.random.default_rng(0)
    matrix, shift = symmetric(random, np.linspace(0.0, 0.9, 20)), random.standard_normal(20)

    def solve(scale: float) -> Any:
        f = lambda z: matrix @ z + scale * shift  # noqa: E731
        return fpicore_numpy.fixed_point(f, 0.0 * shift, solver=solver, rtol=1e-9, max_steps=300)

    plain, scaled = solve(1.0), solve(2.0**exponent)
    assert plain.converged
    assert scaled.stats.evaluations == plain.stats.evaluations
    np.testing.assert_array_equal(scaled.value, 2.0**exponent * plain.value)


@pytest.mark.framework("numpy")
@pytest.mark.parametrize("solver", [Anderson(kind=1), Anderson(period=2)], ids=str)
def test_fewer_evaluations_on_a_slow_contraction(solver: Any) -> None:
    """Spectrum 0 … 0.99 of 100 unknowns to 1e-9: 60 % of what type II needs at every step."""
    random = np.random.default_rng(0)
    matrix, shift = symmetric(random, np.linspace(0.0, 0.99, 100)), random.standard_normal(100)

    def count(solver: Any) -> int:
        f = lambda z: matrix @ z + shift  # noqa: E731
        sol = fpicore_numpy.fixed_point(f, 0 * shift, solver=solver, rtol=1e-9, max_steps=2000)
        assert sol.converged
        return sol.stats.evaluations

    assert count(solver) < 0.6 * count(Anderson())


def family(lab: Lab, arrays: Any) -> Any:
    matrices, shifts = map(lab.tensor, arrays)
    product = lambda z: lab.xp.matmul(matrices, z[..., None])[..., 0]  # noqa: E731
    return lambda z: product(z) + 0.02 * lab.xp.cos(z) + shifts


def three() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    radii = (0.3, 0.8, 0.97)
    matrices = np.stack([symmetric(random, np.linspace(-r / 2, r, 6)) for r in radii])
    return matrices, random.standard_normal((3, 6))


@pytest.mark.parametrize("solver", [*KINDS, Broyden(kind="bad")], ids=str)
def test_systems_are_independent(lab: Lab, fpi: Any, solver: Any) -> None:
    """Each needs what it needs alone, and NaN in one harms no other."""
    matrices, shifts = three()
    options: dict[str, Any] = {"solver": solver, "rtol": 1e-10, "max_steps": 300, "batch_ndim": 1}
    options["on_failure"] = "ignore"
    zero = lab.tensor(np.zeros((3, 6)))
    together = fpi.fixed_point(family(lab, (matrices, shifts)), zero, **options)
    assert lab.numpy(together.converged).all()
    broken = shifts.copy()
    broken[1] = np.nan
    harmed = fpi.fixed_point(family(lab, (matrices, broken)), zero, **options)
    assert lab.numpy(harmed.result.codes).tolist() == [0, Result.NONFINITE, 0]
    steps, value = lab.numpy(together.stats.steps), lab.numpy(together.value)
    for i in (0, 2):
        np.testing.assert_array_equal(lab.numpy(harmed.value)[i], value[i])
        alone = (matrices[i : i + 1], shifts[i : i + 1])
        single = fpi.fixed_point(family(lab, alone), lab.tensor(np.zeros((1, 6))), **options)
        assert lab.numpy(single.stats.steps)[0] == steps[i]


@pytest.mark.modes("jit", "graph")
@pytest.mark.parametrize("solver", [KINDS[0], KINDS[2], KINDS[3]], ids=str)
def test_compiled(lab: Lab, mode: str, solver: Any) -> None:
    def run(start: Any) -> Any:
        sol = lab.fpi.fixed_point(
            family(lab, three()), start, solver=solver, rtol=1e-10, max_steps=300, batch_ndim=1
        )
        return sol.value, sol.stats.steps

    start = lab.tensor(np.zeros((3, 6)))
    (value, steps), (expected, count) = lab.numpy((lab.compiled(run, mode)(start), run(start)))
    np.testing.assert_allclose(value, expected, rtol=1e-8)
    assert np.abs(steps - count).max() <= 2


@pytest.mark.framework("numpy")
@pytest.mark.parametrize("tangent", [False, True])
def test_what_type_one_learned_of_the_inverse(tangent: bool) -> None:
    """After N independent steps on a linear map S spans everything: the estimate is exact."""
    random = np.random.default_rng(2)
    matrix, shift = 0.3 * random.standard_normal((4, 4)), random.standard_normal(4)
    ops, solver = NumPyOps(0, 2.0**-52), Anderson(history=4, kind=1, regularization=1e-14)
    z: Leaves = (np.zeros(4),)
    state = solver.init(ops, z)
    for _ in range(5):
        f = (matrix @ z[0] + shift,)
        r = (f[0] - z[0],)
        z, state = solver.step(ops, Point(z, f, r, float(np.linalg.norm(r[0]))), state)
    v = random.standard_normal(4)
    found = solver.inverse(ops, state, (v,), tangent)[0]
    jacobian = np.eye(4) - matrix
    np.testing.assert_allclose(found, np.linalg.solve(jacobian if tangent else jacobian.T, v), 1e-3)
