"""Reversible: the exact gradient of the recurrence that ran, from recomputed iterates."""

import warnings
from typing import Any

import numpy as np
import pytest

import fpicore_numpy
from fpicore import ConvergenceWarning, DerivativeError, InputError, Result, Reversible

from .labs import Lab

_RANDOM = np.random.default_rng(12)
WEIGHT = 0.7 * np.linalg.qr(_RANDOM.standard_normal((4, 4)))[0]
THETA, START, COTANGENT = _RANDOM.standard_normal((3, 2, 4))
START[1] *= 5.0


def recurrence(damping: float, steps: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Iterate, and its gradients for θ and z0, by forward sensitivities, system by system."""
    values, by_theta, by_start = np.zeros((3, 2, 4))
    for i, count in enumerate(steps):
        z, d, e = START[i], np.zeros((4, 4)), np.eye(4)
        before = (z, d, e)
        for _ in range(count):
            f = np.tanh(WEIGHT @ z + THETA[i])
            jacobian = (1 - f**2)[:, None] * WEIGHT
            new = (f, jacobian @ d + np.diag(1 - f**2), jacobian @ e)
            after = tuple((1 - damping) * b + damping * n for b, n in zip(before, new, strict=True))
            before, (z, d, e) = (z, d, e), after
        values[i], by_theta[i], by_start[i] = z, COTANGENT[i] @ d, COTANGENT[i] @ e
    return values, by_theta, by_start


def solve(lab: Lab, theta: Any, start: Any, adjoint: Any, **options: Any) -> Any:
    """A batch of two systems whose map closes over θ."""
    weight = lab.tensor(WEIGHT.T)
    return lab.fpi.fixed_point(
        lambda z: lab.xp.tanh(lab.xp.matmul(z, weight) + theta),
        start,
        adjoint=adjoint,
        batch_ndim=1,
        **options,
    )


def loss(lab: Lab, adjoint: Any, **options: Any) -> Any:
    v = lab.tensor(COTANGENT)
    return lambda theta, start: lab.xp.sum(v * solve(lab, theta, start, adjoint, **options).value)


@pytest.mark.gradients
@pytest.mark.parametrize("damping", [0.3, 0.6])
def test_cut_short(lab: Lab, mode: str, damping: float) -> None:
    of = loss(lab, Reversible(damping), rtol=1e-12, max_steps=6, on_failure="ignore")
    found = lab.gradient(of, THETA, START, mode=mode)
    _, by_theta, by_start = recurrence(damping, [6, 6])
    np.testing.assert_allclose(found[0], by_theta, rtol=1e-12)
    np.testing.assert_allclose(found[1], by_start, rtol=1e-12, atol=1e-14)


@pytest.mark.gradients
def test_systems_stop_by_themselves(lab: Lab) -> None:
    """Each system undoes as many steps as it took; the callback hears what that cost."""
    told: list[Any] = []
    adjoint = Reversible(0.4, callback=lambda *outcome: told.append(outcome))
    options: Any = {"rtol": 1e-2, "max_steps": 200}
    sol = solve(lab, lab.tensor(THETA), lab.tensor(START), adjoint, **options)
    steps = [int(n) for n in lab.numpy(sol.stats.steps)]
    assert steps[0] != steps[1]
    value, by_theta, by_start = recurrence(0.4, steps)
    np.testing.assert_allclose(lab.numpy(sol.value), value, rtol=1e-12)
    found = lab.gradient(loss(lab, adjoint, **options), THETA, START, mode=lab.swift)
    np.testing.assert_allclose(found[0], by_theta, rtol=1e-8)
    np.testing.assert_allclose(found[1], by_start, rtol=1e-3, atol=1e-8)
    lab.wait()
    results, stats = told[-1]
    assert results.flat() == [Result.CONVERGED] * 2
    assert int(stats.evaluations) == max(steps)
    assert lab.numpy(stats.steps).tolist() == steps


@pytest.mark.gradients
def test_a_start_that_is_not_found_again_is_reported(lab: Lab) -> None:
    """With β = 0.9 a step loses a digit, and float64 has sixteen."""
    of = loss(lab, Reversible(0.9), rtol=1e-12)

    def differentiate() -> None:
        lab.gradient(of, THETA, START, mode=lab.swift)
        lab.wait()

    with pytest.warns(ConvergenceWarning, match=r"the reversed iteration .*INACCURATE"):
        differentiate()
    quiet = loss(lab, Reversible(0.9, on_failure="ignore"), rtol=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lab.gradient(quiet, THETA, START, mode=lab.swift)
        lab.wait()


@pytest.mark.gradients
def test_the_start_is_compared_where_squares_underflow(lab: Lab) -> None:
    """A state of size 1e-25 in float32, where squares are 0, and seven steps of a digit each."""
    told: list[Any] = []
    adjoint = Reversible(0.9, on_failure="ignore", callback=lambda results, _: told.append(results))
    small = [(1e-25 * x).astype(np.float32) for x in (WEIGHT.T * 1e25, THETA, START)]
    v = lab.tensor(COTANGENT.astype(np.float32))
    weight = lab.tensor(small[0])

    def of(theta: Any, start: Any) -> Any:
        sol = lab.fpi.fixed_point(
            lambda z: lab.xp.matmul(z, weight) + theta,
            start,
            adjoint=adjoint,
            batch_ndim=1,
            rtol=1e-6,
            max_steps=7,
            on_failure="ignore",
        )
        return lab.xp.sum(v * sol.value)

    lab.gradient(of, *small[1:], mode=lab.swift)
    lab.wait()
    assert told[-1].flat() == [Result.INACCURATE] * 2


def test_value_is_the_fixed_point(lab: Lab, mode: str) -> None:
    def value(theta: Any, start: Any) -> Any:
        sol = solve(lab, theta, start, Reversible(0.5), rtol=1e-10, max_steps=200)
        return sol.value, sol.result.codes

    z, codes = lab.run(value, THETA, START, mode=mode)
    exact = fpicore_numpy.fixed_point(
        lambda z: np.tanh(z @ WEIGHT.T + THETA), START, rtol=1e-13
    ).value
    np.testing.assert_allclose(z, exact, rtol=1e-9)
    assert codes.tolist() == [0, 0]


def test_divergence_keeps_a_finite_value(lab: Lab) -> None:
    sol = lab.fpi.fixed_point(
        lambda z: 10.0 * z * z + 1.0,
        lab.tensor(np.ones(2)),
        adjoint=Reversible(),
        on_failure="ignore",
    )
    assert sol.result.flat() == [Result.NONFINITE]
    assert np.isfinite(lab.numpy(sol.value)).all()


@pytest.mark.parametrize("damping", [0.0, 1.0, -0.1])
def test_options(damping: float) -> None:
    with pytest.raises(InputError, match="damping"):
        Reversible(damping)


def test_the_callback_is_checked() -> None:
    with pytest.raises(InputError, match="callback"):
        Reversible(callback=1)  # pyright: ignore[reportArgumentType]


@pytest.mark.gradients
def test_a_second_derivative_is_refused(lab: Lab) -> None:
    inner = loss(lab, Reversible(0.3), rtol=1e-12, max_steps=4, on_failure="ignore")
    start = lab.tensor(START)
    refusals = (DerivativeError, ValueError) if lab.name == "jax" else DerivativeError
    with pytest.raises(refusals, match=r"at most 1 derivative|one derivative|Reverse-mode"):
        lab.hessian_product(lambda theta: inner(theta, start), THETA, THETA, lab.swift)
