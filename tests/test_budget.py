"""The budget of steps: as good as that many max_steps, and compiled for none of its values."""

from typing import Any

import numpy as np
import pytest

from fpicore import Anderson, Picard

from .labs import Lab
from .test_watch import MOST, SLOPES, START, lines, outcome


def test_a_budget_without_axes(lab: Lab) -> None:
    for budget in (lab.tensor(np.array([2])), lab.tensor(np.array(2)) > 1):
        with pytest.raises(lab.fpi.InputError, match="expected budget"):
            lines(lab, budget=budget)(lab.tensor(SLOPES), lab.tensor(START))


@pytest.mark.only("numpy", "torch", "tensorflow")
@pytest.mark.parametrize(
    ("solver", "most"), [(Picard(), 4), (Anderson(), 1)], ids=["picard", "anderson"]
)
def test_a_budget_is_as_good_as_that_many_max_steps(lab: Lab, solver: Any, most: int) -> None:
    found = []
    for options in ({"budget": most}, {"max_steps": most}):
        solve = lines(lab, solver=solver, rtol=1e-9, **options)
        run = lambda *given: outcome(solve(*given))  # noqa: B023,E731
        found.append(lab.run(run, SLOPES, START))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-12)
    assert found[0][1][2] == lab.fpi.Result.MAX_STEPS


def test_a_budget_of_one_system_far_from_its_solution(lab: Lab) -> None:
    """The steps that take the shortest way through the loop."""
    start = lab.tensor(np.zeros(1))
    sol = lab.fpi.fixed_point(
        lambda z: 0.9 * z + 1.0, start, solver=Picard(), budget=4, on_failure="ignore"
    )
    assert int(sol.stats.evaluations) == 5
    assert float(sol.stats.tolerance) == pytest.approx(1e-4 * sum(0.9**j for j in range(5)))


@pytest.mark.modes("jit", "graph", "xla")
@pytest.mark.only("jax", "tensorflow")
def test_another_budget_traces_nothing_anew(lab: Lab, mode: str) -> None:
    traces: list[int] = []

    def run(slopes: Any, z0: Any, budget: Any) -> Any:
        traces.append(1)
        f = lambda z, s: s[:, None] * z + 1.0  # noqa: E731
        sol = lab.fpi.fixed_point(
            f, z0, (slopes,), solver=Picard(), rtol=1e-9, batch_ndim=1, max_steps=MOST,
            on_failure="ignore", budget=budget,
        )  # fmt: skip
        return sol.stats.steps, sol.result.codes

    compiled = lab.compiled(run, mode)
    steps = []
    for budget in (3, 7, 40, -2):
        given = lab.tensor(SLOPES), lab.tensor(START), lab.tensor(np.array(budget, "int32"))
        found, codes = lab.numpy(compiled(*given))
        steps.append(int(found[0]))
        assert codes[0] == lab.fpi.Result.MAX_STEPS
    assert steps == [3, 7, MOST, 1]
    assert len(traces) == 1


@pytest.mark.framework("jax")
def test_unjitted_jax_compiles_nothing_for_another_budget_or_callback(lab: Lab) -> None:
    from fpicore_jax import _ops

    z0, slopes = lab.tensor(START), lab.tensor(SLOPES)
    lines(lab, budget=3, callback=lambda _: None)(slopes, z0)
    update: Any = _ops._update
    before = update._cache_size()
    for budget in (2, 5):
        lines(lab, budget=budget, callback=lambda _: None)(slopes, z0)
    assert update._cache_size() == before
