"""A system of a batch gets what it would get alone, whatever its neighbours do."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fpicore import Result

from .labs import Lab
from .problems import SOLVERS

SYSTEMS, N = 4, 3
pytestmark = pytest.mark.filterwarnings(
    "ignore:(overflow|invalid value) encountered:RuntimeWarning"
)
EXACT = ("numpy", "torch")
"""Frameworks whose operations on a batch are those on its systems, bit for bit."""


class Found(NamedTuple):
    value: np.ndarray
    codes: np.ndarray
    steps: np.ndarray
    residual: np.ndarray


def f(z: Any, rate: Any, shift: Any) -> Any:
    """Only products and sums of entries, so that a batch is evaluated like its systems."""
    return rate * z * (1.0 - 0.05 * z * z) + shift


def systems(seed: int, hardest: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starts, rates from easy to hard, shifts."""
    random = np.random.default_rng(seed)
    rates = np.linspace(0.05, hardest, SYSTEMS)[:, None] * random.choice([-1.0, 1.0], (SYSTEMS, N))
    return random.standard_normal((SYSTEMS, N)), rates, 0.2 * random.standard_normal((SYSTEMS, N))


def solve(lab: Lab, solver: str, *arrays: np.ndarray, batch_ndim: int = 1) -> Found:
    start, rate, shift = map(lab.tensor, arrays)
    sol = lab.fpi.fixed_point(
        lambda z: f(z, rate, shift),
        start,
        solver=SOLVERS[solver],
        rtol=1e-10,
        max_steps=300,
        batch_ndim=batch_ndim,
        on_failure="ignore",
    )
    return Found(
        *map(lab.numpy, (sol.value, sol.result.codes, sol.stats.steps, sol.stats.residual))
    )


@pytest.mark.parametrize("solver", SOLVERS)
@settings(max_examples=6)
@given(seed=st.integers(0, 2**16), hardest=st.floats(0.3, 0.9))
def test_batch_equals_its_systems(lab: Lab, solver: str, seed: int, hardest: float) -> None:
    arrays = systems(seed, hardest)
    together = solve(lab, solver, *arrays)
    assert not together.codes.any()
    for i in range(SYSTEMS):
        alone = solve(lab, solver, *[a[i : i + 1] for a in arrays])
        assert alone.steps[0] == together.steps[i]
        if lab.name in EXACT:
            np.testing.assert_array_equal(alone.value[0], together.value[i])
            assert alone.residual[0] == together.residual[i]
        else:
            np.testing.assert_allclose(alone.value[0], together.value[i], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("solver", SOLVERS)
def test_batch_axis_of_one_equals_no_batch_axis(lab: Lab, solver: str) -> None:
    arrays = systems(1, 0.8)
    for i in range(SYSTEMS):
        batched = solve(lab, solver, *[a[i : i + 1] for a in arrays])
        single = solve(lab, solver, *[a[i] for a in arrays], batch_ndim=0)
        assert single.steps == batched.steps[0]
        assert np.shape(single.codes) == ()
        np.testing.assert_allclose(single.value, batched.value[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e200])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("victim", [0, SYSTEMS - 1])
def test_a_broken_system_harms_no_other(lab: Lab, solver: str, bad: float, victim: int) -> None:
    """NaN, infinity, or numbers whose squares overflow, in the start of one system."""
    arrays = systems(2, 0.9)
    start = arrays[0].copy()
    start[victim] = bad
    healthy, broken = solve(lab, solver, *arrays), solve(lab, solver, start, *arrays[1:])
    others = np.arange(SYSTEMS) != victim
    assert broken.codes[victim] == Result.NONFINITE
    for got, expected in zip(broken, healthy, strict=True):
        np.testing.assert_array_equal(got[others], expected[others])


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_system_that_is_exact_harms_no_other(lab: Lab, solver: str) -> None:
    """A residual of exactly zero makes a singular matrix of its history, and only of its own."""
    start, rate, shift = systems(7, 0.9)
    rate[0] = 0.0
    together = solve(lab, solver, start, rate, shift)
    alone = solve(lab, solver, start[1:], rate[1:], shift[1:])
    # Newton's method has f constant from differences, and Broyden's may shorten its first step.
    assert together.steps[0] <= {"newton_krylov": 4, "broyden": 2}.get(solver, 1)
    assert together.residual[0] < 1e-15
    np.testing.assert_array_equal(together.steps[1:], alone.steps)
    np.testing.assert_allclose(together.value[1:], alone.value, rtol=1e-9, atol=1e-12)


@pytest.mark.modes("jit", "graph", "xla")
@pytest.mark.parametrize("solver", ["anderson", "broyden"])
def test_a_broken_system_harms_no_other_compiled(lab: Lab, mode: str, solver: str) -> None:
    arrays = systems(2, 0.9)
    start = arrays[0].copy()
    start[1] = np.nan

    def run(*tensors: Any) -> Any:
        z0, rate, shift = tensors
        sol = lab.fpi.fixed_point(
            lambda z: f(z, rate, shift),
            z0,
            solver=SOLVERS[solver],
            rtol=1e-10,
            batch_ndim=1,
            on_failure="ignore",
        )
        return sol.value, sol.result.codes, sol.stats.steps, sol.stats.residual

    compiled = lab.compiled(run, mode)
    healthy = Found(*lab.numpy(compiled(*map(lab.tensor, arrays))))
    broken = Found(*lab.numpy(compiled(*map(lab.tensor, (start, *arrays[1:])))))
    others = np.arange(SYSTEMS) != 1
    assert not healthy.codes.any()
    assert broken.codes.tolist() == [0, Result.NONFINITE, 0, 0]
    for got, expected in zip(broken, healthy, strict=True):
        np.testing.assert_array_equal(got[others], expected[others])


def test_nan_that_appears_in_one_system_keeps_its_best_iterate(lab: Lab) -> None:
    def g(z: Any) -> Any:
        new = 0.5 * z + lab.tensor(np.array([[0.2], [0.5]]))
        return lab.xp.where(new > 0.9, new * float("nan"), new)

    sol = lab.fpi.fixed_point(
        g, lab.tensor(np.zeros((2, N))), solver=lab.fpi.Picard(), rtol=1e-9, batch_ndim=1,
        on_failure="ignore",
    )  # fmt: skip
    assert lab.numpy(sol.result.codes).tolist() == [Result.CONVERGED, Result.NONFINITE]
    np.testing.assert_allclose(lab.numpy(sol.value), [[0.4] * N, [0.75] * N], rtol=1e-8)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_system_is_frozen_once_it_stopped(lab: Lab, solver: str) -> None:
    """f never sees a stopped system anywhere but at its own result."""
    if lab.name == "jax":
        pytest.skip("f is traced once; its later inputs cannot be looked at from Python")
    seen: list[np.ndarray] = []
    start, rate, shift = map(lab.tensor, systems(3, 0.9))

    def watched(z: Any) -> Any:
        seen.append(np.array(lab.numpy(z)))
        return f(z, rate, shift)

    sol = lab.fpi.fixed_point(
        watched, start, solver=SOLVERS[solver], rtol=1e-8, max_steps=300, batch_ndim=1
    )
    value, steps = lab.numpy(sol.value), lab.numpy(sol.stats.steps)
    assert len(set(steps.tolist())) > 1
    for i in range(SYSTEMS):
        for z in seen[steps[i] :]:
            np.testing.assert_array_equal(z[i], value[i])


@pytest.mark.parametrize("solver", SOLVERS)
def test_two_batch_axes_equal_one(lab: Lab, solver: str) -> None:
    arrays = systems(4, 0.9)
    flat = solve(lab, solver, *arrays)
    square = solve(lab, solver, *[a.reshape(2, 2, N) for a in arrays], batch_ndim=2)
    assert square.codes.shape == square.residual.shape == (2, 2)
    np.testing.assert_array_equal(square.steps.ravel(), flat.steps)
    np.testing.assert_allclose(square.value.reshape(SYSTEMS, N), flat.value, rtol=1e-12)


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_axis_may_be_a_batch_axis(lab: Lab, solver: str) -> None:
    """Entries as systems of their own: batch_ndim equal to the state's rank."""
    found = solve(lab, solver, *systems(5, 0.8), batch_ndim=2)
    assert found.codes.shape == (SYSTEMS, N)
    assert not found.codes.any()


def test_easy_systems_stop_early(lab: Lab) -> None:
    found = solve(lab, "picard", *systems(6, 0.9))
    assert found.steps[0] < found.steps[-1] / 4


def test_evaluations_are_those_of_the_slowest(lab: Lab) -> None:
    start, rate, shift = map(lab.tensor, systems(6, 0.9))
    sol = lab.fpi.fixed_point(lambda z: f(z, rate, shift), start, rtol=1e-8, batch_ndim=1)
    assert int(lab.numpy(sol.stats.evaluations)) == lab.numpy(sol.stats.steps).max() + 1
