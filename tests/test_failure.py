"""What becomes of a solve that cannot succeed: status, best iterate, warning or error."""

import warnings
from typing import Any

import numpy as np
import pytest

from fpicore import ConvergenceError, ConvergenceWarning, Result
from fpicore._stopping import PATIENCE

from .labs import Lab
from .problems import SOLVERS

N = 4
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")


def codes(lab: Lab, sol: Any) -> list[int]:
    return np.ravel(lab.numpy(sol.result.codes)).tolist()


def expand(z: Any) -> Any:
    return 10.0 * z + 1.0


@pytest.mark.parametrize("max_steps", [100, 1000])
def test_divergence_in_float32_is_nonfinite_with_a_finite_best_value(
    lab: Lab, fpi: Any, max_steps: int
) -> None:
    """The squared norm overflows long before z does; neither may look converged."""
    sol = fpi.fixed_point(
        expand,
        lab.tensor(np.full(3, 0.5), "float32"),
        solver=fpi.Picard(),
        max_steps=max_steps,
        on_failure="ignore",
    )
    assert codes(lab, sol) == [Result.NONFINITE]
    assert not np.any(lab.numpy(sol.converged))
    np.testing.assert_array_equal(lab.numpy(sol.value), np.full(3, 0.5, "float32"))
    assert float(lab.numpy(sol.stats.residual)) == pytest.approx(5.5 * np.sqrt(3), rel=1e-6)
    # 0.5·10^k overflows float32 at k = 39: z is infinite one step after f(z).
    assert 37 <= int(lab.numpy(sol.stats.steps)) <= 40


@pytest.mark.modes("eager", "jit", "graph", "xla")
def test_divergence_is_never_taken_for_convergence(lab: Lab, fpi: Any, mode: str) -> None:
    """Where the last finite norm is so large that its reciprocal is not a normal number."""

    def solve(z: Any) -> Any:
        sol = fpi.fixed_point(
            expand, z, solver=fpi.Picard(), max_steps=100, batch_ndim=1, on_failure="ignore"
        )
        return sol.value, sol.result.codes

    starts = np.geomspace(1.0, 10.0, 12)[:, None] * np.ones(3)
    value, found = lab.numpy(lab.compiled(solve, mode)(lab.tensor(starts, "float32")))
    assert found.tolist() == [Result.NONFINITE] * len(starts)
    np.testing.assert_array_equal(value, starts.astype("float32"))


@pytest.mark.modes("jit", "graph", "xla")
def test_divergence_is_data_in_compiled_code(lab: Lab, fpi: Any, mode: str) -> None:
    def solve(z: Any) -> Any:
        sol = fpi.fixed_point(expand, z, solver=fpi.Picard(), max_steps=100)
        return sol.value, sol.result.codes, sol.stats.steps

    found = lab.compiled(solve, mode)(lab.tensor(np.full(3, 0.5), "float32"))
    value, code, steps = lab.numpy(found)
    np.testing.assert_array_equal(value, np.full(3, 0.5, "float32"))
    assert int(code) == Result.NONFINITE
    assert 37 <= int(steps) <= 40


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("solver", SOLVERS)
def test_nonfinite_map(lab: Lab, fpi: Any, solver: str, bad: float) -> None:
    sol = fpi.fixed_point(
        lambda z: z * bad,
        lab.tensor(np.ones(N)),
        solver=SOLVERS[solver],
        on_failure="ignore",
    )
    assert codes(lab, sol) == [Result.NONFINITE]
    np.testing.assert_array_equal(lab.numpy(sol.value), np.ones(N))


def test_best_iterate_is_returned_when_a_later_one_is_nan(lab: Lab, fpi: Any) -> None:
    """f is a contraction until its values pass 0.9, and NaN from there on."""

    def f(z: Any) -> Any:
        new = 0.5 * z + 0.5
        return lab.xp.where(new > 0.9, new * float("nan"), new)

    sol = fpi.fixed_point(
        f, lab.tensor(np.zeros(N)), solver=fpi.Picard(), rtol=1e-6, on_failure="ignore"
    )
    assert codes(lab, sol) == [Result.NONFINITE]
    np.testing.assert_allclose(lab.numpy(sol.value), 0.75)
    assert float(lab.numpy(sol.stats.residual)) == pytest.approx(0.125 * 2.0)


def test_best_iterate_is_returned_not_the_last(lab: Lab, fpi: Any) -> None:
    """f = −1.5 z + 1 runs away from its fixed point 0.4: the start is the best there is."""
    sol = fpi.fixed_point(
        lambda z: -1.5 * z + 1.0,
        lab.tensor(np.full(N, 0.41)),
        solver=fpi.Picard(),
        max_steps=7,
        on_failure="ignore",
    )
    np.testing.assert_array_equal(lab.numpy(sol.value), np.full(N, 0.41))
    assert float(lab.numpy(sol.stats.residual)) == pytest.approx(0.025 * 2.0)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("max_steps", [1, 2])
def test_few_steps(lab: Lab, fpi: Any, solver: str, max_steps: int) -> None:
    """One step is the plain step, but for Newton's method a probe; all certify what they return."""
    calls: list[Any] = []

    def f(z: Any) -> Any:
        calls.append(z)
        return 0.5 * z + 1.0

    sol = fpi.fixed_point(
        f,
        lab.tensor(np.zeros(N)),
        solver=SOLVERS[solver],
        max_steps=max_steps,
        rtol=1e-12,
        on_failure="ignore",
    )
    assert int(lab.numpy(sol.stats.evaluations)) == max_steps + 1
    value = lab.numpy(sol.value)
    if solver == "newton_krylov":  # the problem is linear, and one direction is enough
        assert codes(lab, sol) == [Result.MAX_STEPS if max_steps == 1 else Result.CONVERGED]
    elif max_steps == 1 or solver == "picard":
        expected = 2.0 - 2.0 * 0.5**max_steps
        np.testing.assert_allclose(value, expected, rtol=1e-15)
        assert codes(lab, sol) == [Result.MAX_STEPS]
    else:  # along the all-ones direction the second step is exact
        np.testing.assert_allclose(value, 2.0, rtol=1e-9)
    residual = np.linalg.norm(0.5 * value + 1.0 - value)
    assert float(lab.numpy(sol.stats.residual)) == pytest.approx(residual, rel=1e-9, abs=1e-15)


def test_one_step_returns_the_start_when_it_is_better(lab: Lab, fpi: Any) -> None:
    sol = fpi.fixed_point(
        lambda z: -3.0 * z,
        lab.tensor(np.ones(N)),
        solver=fpi.Picard(),
        max_steps=1,
        on_failure="ignore",
    )
    np.testing.assert_array_equal(lab.numpy(sol.value), np.ones(N))
    assert float(lab.numpy(sol.stats.residual)) == pytest.approx(8.0)


def test_cycle_stagnates(lab: Lab, fpi: Any) -> None:
    """z ← −z never settles; damping breaks the cycle."""

    def solve(damping: float) -> Any:
        return fpi.fixed_point(
            lambda z: -z,
            lab.tensor(np.ones(N)),
            solver=fpi.Picard(damping=damping),
            atol=1e-9,
            max_steps=200,
            on_failure="ignore",
        )

    stuck = solve(1.0)
    assert codes(lab, stuck) == [Result.STAGNATED]
    assert PATIENCE <= int(lab.numpy(stuck.stats.steps)) <= PATIENCE + 4
    assert codes(lab, solve(0.75)) == [Result.CONVERGED]


@pytest.mark.parametrize("batch_ndim", [0, 1])
@pytest.mark.parametrize("history", [1, 2, 20])
@pytest.mark.parametrize("kind", ["Anderson", "Broyden"])
def test_a_map_without_a_fixed_point_ends_without_an_exception(
    lab: Lab, fpi: Any, kind: str, history: int, batch_ndim: int
) -> None:
    """f = z + 1: every residual is the same, so that no difference of them is left to divide by."""
    sol = fpi.fixed_point(
        lambda z: z + 1.0,
        lab.tensor(np.zeros((1, N))),
        solver=getattr(fpi, kind)(history=history),
        max_steps=30,
        batch_ndim=batch_ndim,
        on_failure="ignore",
    )
    assert codes(lab, sol)[0] in (Result.MAX_STEPS, Result.STAGNATED, Result.NONFINITE)
    assert np.isfinite(lab.numpy(sol.value)).all()
    assert np.ravel(lab.numpy(sol.stats.residual))[0] == pytest.approx(2.0)


def test_warning_is_the_default(lab: Lab, fpi: Any) -> None:
    with pytest.warns(ConvergenceWarning, match=r"MAX_STEPS.*Raise max_steps") as caught:
        fpi.fixed_point(lambda z: 0.9 * z + 1.0, lab.tensor(np.zeros(N)), max_steps=1)
    assert caught[0].filename == __file__


def test_raise(lab: Lab, fpi: Any) -> None:
    with pytest.raises(ConvergenceError, match=r"did not converge.*[Rr]esidual"):
        fpi.fixed_point(
            lambda z: 0.9 * z + 1.0, lab.tensor(np.zeros(N)), max_steps=1, on_failure="raise"
        )


def test_ignore_is_silent(lab: Lab, fpi: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sol = fpi.fixed_point(
            lambda z: 0.9 * z + 1.0, lab.tensor(np.zeros(N)), max_steps=1, on_failure="ignore"
        )
    assert codes(lab, sol) == [Result.MAX_STEPS]


def test_message_names_the_failing_system(lab: Lab, fpi: Any) -> None:
    rates = lab.tensor(np.array([[0.0], [0.5], [1e9]]))
    with pytest.raises(ConvergenceError, match=r"first failing system: 2.*NONFINITE \(1 of 3") as e:
        fpi.fixed_point(
            lambda z: rates * z + 1.0,
            lab.tensor(np.zeros((3, 2)) + 0.1),
            solver=fpi.Picard(),
            batch_ndim=1,
            max_steps=500,
            on_failure="raise",
        )
    assert "CONVERGED (2 of 3" in str(e.value)


def test_status_says_what_to_do(lab: Lab, fpi: Any) -> None:
    sol = fpi.fixed_point(expand, lab.tensor(np.ones(2)), max_steps=1, on_failure="ignore")
    assert str(sol.result).startswith("MAX_STEPS: ")
    for result in Result:
        assert len(result.message) > 20


@pytest.mark.modes("jit", "graph")
def test_traced_code_cannot_raise(lab: Lab, fpi: Any, mode: str) -> None:
    def solve(z: Any) -> Any:
        return fpi.fixed_point(lambda z: 0.5 * z, z, on_failure="raise").value

    with pytest.raises(fpi.InputError, match=r"expected on_failure.*traced.*received"):
        lab.compiled(solve, mode)(lab.tensor(np.ones(2)))
