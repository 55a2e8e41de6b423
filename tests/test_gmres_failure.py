"""GMRES where it cannot converge: a status, a certified iterate, and nothing that is not finite."""

from typing import Any

import numpy as np
import pytest

from fpicore import GMRES, ConvergenceWarning, InputError, Result

from .labs import Lab
from .test_gmres import N, definite, outcome, solve, stagnating

pytestmark = pytest.mark.filterwarnings(
    "ignore:(overflow|invalid value) encountered:RuntimeWarning"
)


@pytest.mark.parametrize("budget", [1, 2, 3, 4, 5, 7])
def test_a_budget_ends_with_a_certified_iterate(lab: Lab, budget: int) -> None:
    """Whatever part of a cycle of three it ends in."""
    jacobian, v, _ = definite()
    sol = solve(lab, jacobian, v, 3, max_steps=budget)
    value, code, steps, residual = outcome(lab, sol)
    assert (code, steps) == (Result.MAX_STEPS, budget)
    assert int(lab.numpy(sol.stats.evaluations)) == budget + 1
    true = np.linalg.norm(v + jacobian @ value - value) / np.linalg.norm(v)
    assert residual == pytest.approx(true, rel=1e-9)
    assert residual < 1.0


def test_stagnation_ends_with_a_warning_and_the_best_iterate(lab: Lab) -> None:
    with pytest.warns(ConvergenceWarning, match="STAGNATED"):
        sol = solve(lab, *stagnating(), max_steps=10**6, on_failure="warn")
    value, code, steps, residual = outcome(lab, sol)
    assert code == Result.STAGNATED
    assert steps == 20
    assert residual == 1.0
    np.testing.assert_array_equal(value, 0.0)
    assert outcome(lab, solve(lab, *stagnating(), restart=30))[1] == Result.CONVERGED


SINGULAR = np.diag([1.0, 0.5, 0.5, 0.2, 0.1, 0.0])


def test_singular_but_consistent(lab: Lab) -> None:
    v = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    value, code, _, _ = outcome(lab, solve(lab, SINGULAR, v))
    assert code == Result.CONVERGED
    np.testing.assert_allclose(value - SINGULAR @ value, v, atol=1e-12)


@pytest.mark.parametrize(
    ("jacobian", "least"),
    [(SINGULAR, 1 / np.sqrt(6)), (np.eye(N), 1.0), (np.eye(N) - np.eye(N, k=1), 1 / np.sqrt(6))],
    ids=["symmetric", "zero", "nilpotent"],
)
def test_singular_and_inconsistent(lab: Lab, jacobian: np.ndarray, least: float) -> None:
    """The residual cannot vanish: its least norm is reported, with a status."""
    value, code, steps, residual = outcome(lab, solve(lab, jacobian, np.ones(N)))
    assert code == Result.STAGNATED
    assert steps <= 2 * N + 1  # a cycle, another that gains nothing, and their certificates
    assert residual == pytest.approx(least, rel=1e-6)
    assert np.abs(value).max() < 1e3


def test_zero_needs_no_product(lab: Lab) -> None:
    sol = solve(lab, 0.5 * np.eye(N), np.zeros(N))
    value, code, steps, residual = outcome(lab, sol)
    np.testing.assert_array_equal(value, 0.0)
    assert (code, steps, residual) == (Result.CONVERGED, 0, 0.0)
    assert int(lab.numpy(sol.stats.evaluations)) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_no_finite_answer_to_a_right_hand_side_that_is_not(lab: Lab, bad: float) -> None:
    v = np.ones(N)
    v[2] = bad
    value, code, _, _ = outcome(lab, solve(lab, 0.5 * np.eye(N), v))
    assert code == Result.NONFINITE
    assert not np.isfinite(value[2])


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_a_product_that_is_not_finite_leaves_a_finite_iterate(lab: Lab, bad: float) -> None:
    value, code, _, residual = outcome(lab, solve(lab, bad * np.ones((N, N)), np.ones(N)))
    assert code in (Result.NONFINITE, Result.STAGNATED)
    assert np.isfinite(value).all()
    assert residual <= 1.0


def test_forward_use_is_refused(lab: Lab, fpi: Any) -> None:
    with pytest.raises(InputError, match=r"linear ones; pass it as adjoint=Implicit\(solver=GMR"):
        fpi.fixed_point(lambda z: 0.5 * z, lab.tensor(np.ones(N)), solver=GMRES())
