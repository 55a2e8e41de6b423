"""Derivatives for a fixed point that something else has found."""

import warnings
from typing import Any

import numpy as np
import pytest

from fpicore import ConvergenceError, ConvergenceWarning, InputError, OneStep, Result, Unrolled

from .labs import Lab

THETA = np.array([0.7, -1.2])
"""z = θ − 1.5 z has z* = 0.4 θ."""


def expansive(z: Any, theta: Any) -> Any:
    return theta - 1.5 * z


@pytest.mark.gradients
def test_gradient_at_the_given_point(lab: Lab, mode: str) -> None:
    def loss(theta: Any) -> Any:
        sol = lab.fpi.implicit(expansive, 0.4 * theta, (theta,), rtol=1e-12)
        return lab.xp.sum(sol.value**3)

    (found,) = lab.gradient(loss, THETA, mode=mode)
    np.testing.assert_allclose(found, 3 * 0.4**3 * THETA**2, rtol=1e-11)


@pytest.mark.gradients
def test_closure_and_aux_and_another_adjoint(lab: Lab) -> None:
    """z* is a constant to OneStep: d(θ − 1.5 z*)/dθ = 1, and aux sees z* move by that."""
    z_star = lab.tensor(0.4 * THETA)

    def loss(theta: Any) -> Any:
        sol = lab.fpi.implicit(
            lambda z: (expansive(z, theta), theta * z), z_star, adjoint=OneStep(), has_aux=True
        )
        return lab.xp.sum(sol.value) + lab.xp.sum(sol.aux)

    (found,) = lab.gradient(loss, THETA)
    np.testing.assert_allclose(found, 1.0 + 0.4 * THETA + THETA, rtol=1e-12)


def test_value_is_the_given_point_and_costs_one_evaluation(lab: Lab) -> None:
    z_star = 0.4 * THETA + 1e-9
    sol = lab.fpi.implicit(expansive, lab.tensor(z_star), (lab.tensor(THETA),))
    np.testing.assert_array_equal(lab.numpy(sol.value), z_star)
    assert sol.result.flat() == [Result.CONVERGED]
    assert (int(sol.stats.steps), int(sol.stats.evaluations)) == (0, 1)
    assert float(sol.stats.residual) == pytest.approx(2.5e-9 * np.sqrt(2.0))
    assert float(sol.stats.residual) <= float(sol.stats.tolerance)


@pytest.mark.parametrize("wrong", [1e-2, np.nan])
def test_a_point_that_is_none(lab: Lab, wrong: float) -> None:
    points = lab.tensor(np.array([[0.4], [0.4 + wrong]]))
    call = lambda **o: lab.fpi.implicit(  # noqa: E731
        expansive, points, (lab.tensor(np.ones((2, 1))),), batch_ndim=1, **o
    )
    verdict = Result.NONFINITE if np.isnan(wrong) else Result.INACCURATE
    with pytest.warns(ConvergenceWarning, match=f"{verdict.name} \\(1 of 2 systems\\)"):
        sol = call()
    assert sol.result.flat() == [Result.CONVERGED, verdict]
    with pytest.raises(ConvergenceError, match="first failing system: 1"):
        call(on_failure="raise")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(on_failure="ignore")


@pytest.mark.modes("graph", "jit")
@pytest.mark.only("jax", "tensorflow")
def test_in_traced_code_the_verdict_is_data(lab: Lab, mode: str) -> None:
    def codes(z: Any) -> Any:
        return lab.fpi.implicit(expansive, z, (z,)).result.codes

    assert int(lab.run(codes, np.ones(2), mode=mode)) == Result.INACCURATE


@pytest.mark.gradients
@pytest.mark.modes("eager")
def test_decorated_solver(lab: Lab, mode: str) -> None:
    """A solver that leaves the framework: its own derivative does not exist."""
    seen = []

    @lab.fpi.custom_fixed_point(lambda z, t, other: other["shift"] + t - 1.5 * z, rtol=1e-10)
    def solve(theta: Any, other: Any) -> Any:
        """In NumPy."""
        seen.append(theta)
        return lab.tensor(0.4 * (lab.numpy(other["shift"]) + lab.numpy(theta)))

    shift = {"shift": lab.tensor(np.ones(2))}
    if lab.name == "jax":  # under jax.grad the arguments are tracers, also behind stop_gradient
        value = lab.numpy(solve(lab.tensor(THETA), shift))
        np.testing.assert_allclose(value, 0.4 * (THETA + 1.0), rtol=1e-14)
        return
    (found,) = lab.gradient(lambda t: lab.xp.sum(solve(t, shift) ** 2), THETA, mode=mode)
    np.testing.assert_allclose(found, 2 * 0.16 * (THETA + 1.0), rtol=1e-9)
    assert solve.__name__ == "solve"
    assert solve.__doc__ == "In NumPy."
    assert not getattr(seen[0], "requires_grad", False)


def test_options_are_checked(lab: Lab) -> None:
    with pytest.raises(InputError, match=r"expected options among .*received {'max_steps'}"):
        lab.fpi.custom_fixed_point(expansive, max_steps=3)
    with pytest.raises(InputError, match="expected f to be callable"):
        lab.fpi.custom_fixed_point(3)
    z = lab.tensor(0.4 * THETA)
    with pytest.raises(InputError, match=r"Unrolled.*there is none here"):
        lab.fpi.implicit(expansive, z, (lab.tensor(THETA),), adjoint=Unrolled())
    with pytest.raises(InputError, match="expected on_failure"):
        lab.fpi.implicit(expansive, z, (lab.tensor(THETA),), on_failure="panic")
