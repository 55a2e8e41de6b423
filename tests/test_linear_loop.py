"""The loop of the linear solvers, against a solver that claims more than it does.

Richardson's iteration g ← g + step·r on I − J with J = ½: a step of 1 halves the residual. It
claims that nothing is left of it, so that the loop puts every iterate on trial.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from fpicore import AbstractLinearSolver, Expansion, Implicit, Result

from .labs import Lab

V = np.array([1.0, -2.0, 3.0])


@dataclass(frozen=True)
class Boaster(AbstractLinearSolver):
    """Its state is the residual that it was last told."""

    step: float = 1.0
    name: ClassVar[str] = "boaster"

    def init(self, ops: Any, residual: Any) -> Any:
        return residual, residual

    def expand(self, ops: Any, vector: Any, image: Any, state: Any) -> Expansion:
        never = ops.numbers(vector[0], 0.0) > 1.0
        return Expansion(vector, tuple(0.0 * x for x in state), never, never, state)

    def correction(self, ops: Any, state: Any) -> Any:
        return tuple(self.step * x for x in state)

    def begin(self, ops: Any, mask: Any, residual: Any, state: Any) -> Any:
        new = tuple(ops.select(mask, a, b) for a, b in zip(residual, state, strict=True))
        return new, new


def solve(lab: Lab, solver: Boaster, rate: Any = 0.5, v: Any = V, **options: Any) -> Any:
    slope = lab.tensor(np.asarray(rate))
    adjoint = Implicit(solver=solver, rtol=1e-3, fallback=None)
    return lab.fpi.adjoint_solve(
        lambda g: slope * g, lab.tensor(v), adjoint=adjoint, on_failure="ignore", **options
    )


def test_what_a_solver_claims_counts_for_nothing(lab: Lab) -> None:
    """Ten halvings, each certified, and each cycle from the residual that was measured."""
    sol = solve(lab, Boaster())
    np.testing.assert_allclose(lab.numpy(sol.value), 2.0 * V * (1.0 - 2.0**-10), rtol=1e-12)
    assert bool(lab.numpy(sol.converged))
    assert float(lab.numpy(sol.stats.residual)) == pytest.approx(2.0**-10)
    assert int(lab.numpy(sol.stats.evaluations)) == 20
    assert int(lab.numpy(sol.stats.steps)) == 19


@pytest.mark.parametrize("budget", [1, 2, 3, 4])
def test_no_product_that_could_not_be_certified(lab: Lab, budget: int) -> None:
    sol = solve(lab, Boaster(), max_steps=budget)
    trials = (budget + 1) // 2
    assert int(lab.numpy(sol.result.codes)) == Result.MAX_STEPS
    assert float(lab.numpy(sol.stats.residual)) == pytest.approx(2.0**-trials)
    assert int(lab.numpy(sol.stats.evaluations)) == 2 * trials <= budget + 1
    assert int(lab.numpy(sol.stats.steps)) == 2 * trials - 1


def test_an_iterate_that_is_worse_is_not_returned(lab: Lab) -> None:
    sol = solve(lab, Boaster(step=10.0))
    np.testing.assert_array_equal(lab.numpy(sol.value), 0.0)
    assert int(lab.numpy(sol.result.codes)) == Result.STAGNATED
    assert float(lab.numpy(sol.stats.residual)) == 1.0
    assert int(lab.numpy(sol.stats.evaluations)) == 2


def test_systems_end_by_themselves(lab: Lab) -> None:
    """Residuals shrink by the rate: 0, ½, −½, and one that grows."""
    rate, v = np.array([[0.0], [0.5], [-0.5], [1.5]]), np.ones((4, 3))
    sol = solve(lab, Boaster(), rate, v, batch_ndim=1)
    codes = [Result.CONVERGED] * 3 + [Result.STAGNATED]
    assert lab.numpy(sol.result.codes).tolist() == codes
    assert lab.numpy(sol.stats.steps).tolist() == [1, 19, 19, 1]
    np.testing.assert_allclose(lab.numpy(sol.stats.residual), [0.0, 2.0**-10, 2.0**-10, 1.0])
