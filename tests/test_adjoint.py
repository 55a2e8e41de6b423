"""The implicit adjoint: relative, right above spectral radius 1, and never silent on failure."""

import warnings
from typing import Any

import numpy as np
import pytest

from fpicore import Anderson, Broyden, ConvergenceError, ConvergenceWarning, Picard, Result

from .labs import Lab
from .problems import SOLVERS, problem

pytestmark = pytest.mark.gradients


def expansive_loss(lab: Lab, forward: Any, **implicit: Any) -> Any:
    """θ ↦ z* of z = θ − 1.5 z, which is 0.4 θ."""

    def loss(theta: Any) -> Any:
        sol = lab.fpi.fixed_point(
            lambda z, t: t - 1.5 * z,
            lab.xp.zeros_like(theta),
            (theta,),
            solver=forward,
            adjoint=lab.fpi.Implicit(**implicit),
            rtol=1e-10,
        )
        return lab.xp.sum(sol.value)

    return loss


@pytest.mark.parametrize("forward", [Anderson(), Broyden()], ids=lambda s: s.name)
@pytest.mark.parametrize("adjoint", [None, Anderson(), Broyden()], ids=lambda s: s and s.name)
def test_right_above_spectral_radius_one(lab: Lab, forward: Any, adjoint: Any) -> None:
    loss = expansive_loss(lab, forward, solver=adjoint)
    (gradient,) = lab.gradient(loss, np.array([2.0, -1.0]))
    np.testing.assert_allclose(gradient, 0.4, rtol=1e-9)


@pytest.mark.modes("eager", "jit", "graph")
def test_divergence_is_reported(lab: Lab, mode: str) -> None:
    """Picard's adjoint diverges on this map: the callback hears of it and a warning says it."""
    told: list[Any] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loss = expansive_loss(
            lab,
            Anderson(),
            solver=Picard(),
            fallback=None,
            callback=lambda *outcome: told.append(outcome),
        )
        lab.gradient(loss, np.array(2.0), mode=mode)
        lab.wait()
    (results, stats), *rest = told
    assert not rest
    assert results.flat() != [Result.CONVERGED]
    assert float(stats.residual) > float(stats.tolerance)
    messages = [str(w.message) for w in caught if w.category is ConvergenceWarning]
    assert len(messages) == 1
    assert messages[0].startswith("the adjoint solve did not converge")


@pytest.mark.modes("eager", "jit")
def test_divergence_warns_without_a_callback(lab: Lab, mode: str) -> None:
    def differentiate() -> None:
        lab.gradient(
            expansive_loss(lab, Anderson(), solver=Picard(), fallback=None),
            np.array(2.0),
            mode=mode,
        )
        lab.wait()

    with pytest.warns(ConvergenceWarning, match="the adjoint solve did not converge"):
        differentiate()


@pytest.mark.modes("eager")
def test_ignored_failure_is_silent(lab: Lab, mode: str) -> None:
    loss = expansive_loss(lab, Anderson(), solver=Picard(), fallback=None, on_failure="ignore")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lab.gradient(loss, np.array(2.0), mode=mode)
        lab.wait()


def test_failure_raises_on_request(lab: Lab) -> None:
    loss = expansive_loss(lab, Anderson(), solver=Picard(), fallback=None, on_failure="raise")
    with pytest.raises(ConvergenceError, match="the adjoint solve did not converge"):
        lab.gradient(loss, np.array(2.0))


@pytest.mark.modes("eager", "jit", "graph")
def test_callback_hears_of_success(lab: Lab, mode: str) -> None:
    told: list[Any] = []
    loss = expansive_loss(lab, Anderson(), callback=lambda *outcome: told.append(outcome))
    lab.gradient(loss, np.array([2.0, 1.0]), mode=mode)
    lab.wait()
    ((results, stats),) = told
    assert results.flat() == [Result.CONVERGED]
    assert 0 < int(stats.steps) < 20
    assert float(stats.residual) <= float(stats.tolerance) <= 1e-10 * 1.01


@pytest.mark.parametrize("name", ["tanh", "batch"])
def test_scale_of_the_loss_does_not_matter(lab: Lab, name: str) -> None:
    """The tolerance of the adjoint is relative to the cotangent."""
    table = problem(name)
    f, start = lab.bind(table), lab.tensor(table.z0)
    weights = lab.tensor(table.cotangent)

    def loss(factor: Any, *args: Any) -> Any:
        sol = lab.fpi.fixed_point(
            f, start, args, rtol=1e-6, max_steps=500, batch_ndim=table.batch_ndim
        )
        return factor * lab.xp.sum(weights * sol.value)

    gradient = lab.compiled(lab.gradient_function(loss), lab.swift)

    def gradients(factor: float) -> Any:
        return lab.numpy(gradient(*map(lab.tensor, (np.array(factor), *table.args))))[1:]

    plain = gradients(1.0)
    for scale in (1e-7, 1e-30, 1e30):
        for a, b in zip(gradients(scale), plain, strict=True):
            assert np.linalg.norm(a / scale - b) <= 1e-9 * np.linalg.norm(b)


@pytest.mark.parametrize("scale", [1e-30, 1e30, 1e38])
def test_scale_of_the_loss_in_float32(lab: Lab, scale: float) -> None:
    def loss(theta: Any) -> Any:
        sol = lab.fpi.fixed_point(
            lambda z: 0.6 * lab.xp.sin(z) + theta, lab.xp.zeros_like(theta), rtol=1e-5
        )
        return scale * lab.xp.sum(sol.value)

    gradient = lab.compiled(lab.gradient_function(loss), "eager")
    (found,) = lab.numpy(tuple(gradient(lab.tensor(np.array([0.3, 1.0]), "float32"))))
    z = lab.numpy(_solution(lab, np.array([0.3, 1.0])))
    np.testing.assert_allclose(found / scale, 1.0 / (1.0 - 0.6 * np.cos(z)), rtol=1e-4)


def _solution(lab: Lab, theta: np.ndarray) -> Any:
    t = lab.tensor(theta)
    return lab.fpi.fixed_point(lambda z: 0.6 * lab.xp.sin(z) + t, t, rtol=1e-12).value


def test_gradient_meets_its_own_tolerance(lab: Lab) -> None:
    """A loose adjoint is as loose as it says, a tight one as tight."""

    def error(rtol: float) -> float:
        matrix = lab.tensor(0.9 * np.array([[0.6, 0.8], [-0.8, 0.6]]))

        def loss(theta: Any) -> Any:
            sol = lab.fpi.fixed_point(
                lambda z: lab.xp.matmul(matrix, z) + theta,
                lab.xp.zeros_like(theta),
                solver=Picard(),
                rtol=1e-10,
                max_steps=1000,
                adjoint=lab.fpi.Implicit(rtol=rtol),
            )
            return lab.xp.sum(sol.value * lab.tensor(np.array([1.0, 2.0])))

        (found,) = lab.gradient(loss, np.array([1.0, 1.0]))
        turn = 0.9 * np.array([[0.6, 0.8], [-0.8, 0.6]])
        exact = np.linalg.solve(np.eye(2) - turn.T, [1.0, 2.0])
        return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))

    assert 1e-4 < error(1e-2) < 1e-1
    assert error(1e-8) < 1e-7


def test_max_steps_of_the_adjoint(lab: Lab) -> None:
    told: list[Any] = []
    loss = expansive_loss(
        lab, Anderson(), solver=Anderson(), fallback=None, max_steps=1, on_failure="ignore",
        callback=lambda *outcome: told.append(outcome),
    )  # fmt: skip
    lab.gradient(loss, np.array([2.0, 1.0]))
    lab.wait()
    ((results, stats),) = told
    assert results.flat() == [Result.MAX_STEPS]
    assert int(stats.evaluations) == 2


def test_adjoint_is_per_system(lab: Lab) -> None:
    """The gradient of a system in a batch is that of the system alone.

    f has products and sums only, which are rounded alike whatever the size of the batch.
    """
    rates = np.array([[0.1], [0.5], [0.95]])

    def loss(rate: Any) -> Any:
        sol = lab.fpi.fixed_point(
            lambda z: rate * z * (1.0 - 0.2 * z * z) + 1.0,
            0.0 * rate,
            solver=SOLVERS["anderson"],
            rtol=1e-6,
            batch_ndim=1,
        )
        return lab.xp.sum(sol.value)

    (together,) = lab.gradient(loss, rates, mode=lab.swift)
    one = lab.compiled(lab.gradient_function(loss), lab.swift)
    for i in range(3):
        (alone,) = lab.numpy(tuple(one(lab.tensor(rates[i : i + 1]))))
        np.testing.assert_allclose(together[i], alone[0], rtol=1e-12)


def test_a_broken_system_harms_no_other_gradient(lab: Lab) -> None:
    """A system without a finite gradient leaves the gradients of the others as they are."""
    rates = np.array([[0.1], [0.5], [0.8]])

    def loss(rate: Any, weight: Any) -> Any:
        sol = lab.fpi.fixed_point(
            lambda z: rate * lab.xp.sin(z) + 1.0,
            0.0 * rate,
            rtol=1e-8,
            batch_ndim=1,
            adjoint=lab.fpi.Implicit(on_failure="ignore"),
        )
        return lab.xp.sum(weight * sol.value)

    healthy = lab.gradient(loss, rates, np.ones((3, 1)))[0]
    broken = lab.gradient(loss, rates, np.array([[1.0], [np.nan], [1.0]]))[0]
    np.testing.assert_array_equal(broken[[0, 2]], healthy[[0, 2]])
    assert np.isnan(broken[1]).all()
