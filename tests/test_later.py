"""What a backward pass evaluates again is the f that was solved, or it is an error."""

from typing import Any

import numpy as np
import pytest

from fpicore import Broyden, DerivativeError, Implicit, Picard, Result, Unrolled

from .labs import Lab
from .problems import LEAN

pytestmark = pytest.mark.gradients

RANDOM = np.random.default_rng(21)
WEIGHTS = 0.3 * RANDOM.standard_normal((2, 3, 3))
X = RANDOM.standard_normal(3)
SCALES = (1.0, -0.7)


def layers(lab: Lab, adjoint: Any) -> Any:
    """Two equilibrium layers in a loop whose names f looks up: W, h and the scale."""
    weights = lab.tensor(WEIGHTS)

    def stacked(x: Any) -> Any:
        h = x
        for k in range(2):
            w, scale, before = weights[k], SCALES[k], h
            h = lab.fpi.fixed_point(
                lambda z: lab.xp.tanh(scale * lab.xp.matmul(w, z) + before),  # noqa: B023
                lab.xp.zeros_like(x),
                solver=Picard(),
                adjoint=adjoint,
                rtol=1e-12,
                max_steps=60,
            ).value
        return lab.xp.sum(h**3)

    return stacked


def reference(x: np.ndarray) -> np.ndarray:
    """Its gradient by the implicit function theorem."""
    states, h = [], x
    for weight, scale in zip(WEIGHTS, SCALES, strict=True):
        z = np.zeros(3)
        for _ in range(500):
            z = np.tanh(scale * weight @ z + h)
        states.append((scale * weight, z))
        h = z
    g = 3.0 * h**2
    for weight, z in reversed(states):
        slope = 1.0 - z**2
        g = slope * np.linalg.solve(np.eye(3) - (slope[:, None] * weight).T, g)
    return g


@pytest.mark.modes("eager", "jit")
@pytest.mark.parametrize("adjoint", [LEAN, Unrolled(checkpoint=True)], ids=str)
def test_names_that_a_loop_binds_again(lab: Lab, mode: str, adjoint: Any) -> None:
    if lab.name == "jax" and mode == "eager" and isinstance(adjoint, Unrolled):
        pytest.skip("as compiled; un-jitted it takes seconds")
    tolerance = 1e-8 if isinstance(adjoint, Implicit) else 1e-5  # the derivative of an iterate lags
    (found,) = lab.gradient(layers(lab, adjoint), X, mode=mode)
    np.testing.assert_allclose(found, reference(X), rtol=tolerance)


@pytest.mark.modes("eager", "jit")
def test_names_that_a_loop_binds_again_to_the_second_order(lab: Lab, mode: str) -> None:
    direction = np.array([1.0, -2.0, 0.5])
    found = lab.hessian_product(layers(lab, LEAN), X, direction, mode)
    step = 1e-5 * direction
    np.testing.assert_allclose(
        found, (reference(X + step) - reference(X - step)) / 2e-5, rtol=1e-7, atol=1e-8
    )


def changing(lab: Lab, adjoint: Any) -> tuple[Any, Any]:
    """θ ↦ a loss of tanh(θ z) + data, and what writes to the data."""
    start = lab.tensor(np.array([0.2, 0.4]))
    data: Any = start
    if lab.name == "tensorflow":
        import tensorflow as tf

        data = tf.Variable(start)
    assign = data.assign if lab.name == "tensorflow" else data.copy_

    def loss(theta: Any) -> Any:
        f = lambda z: lab.xp.tanh(z * theta) + data  # noqa: E731
        return lab.xp.sum(lab.fpi.fixed_point(f, 0.0 * theta, adjoint=adjoint, rtol=1e-10).value)

    return loss, lambda: assign(lab.tensor(np.array([0.5, 0.1])))


@pytest.mark.only("torch", "tensorflow")
def test_data_written_to_before_segments_are_recomputed(lab: Lab) -> None:
    loss, write = changing(lab, Unrolled(checkpoint=True))

    def written(theta: Any) -> Any:
        value = loss(theta)
        write()
        return value

    with pytest.raises(DerivativeError, match="expected f to give in the backward pass"):
        lab.gradient(written, np.array([0.3, 0.5]))


@pytest.mark.only("torch", "tensorflow")
def test_data_written_to_between_two_derivatives(lab: Lab) -> None:
    loss, write = changing(lab, Implicit())

    def slope(theta: Any) -> Any:
        gradient = getattr(lab, f"_{lab.name}_gradient")(loss, again=True)(theta)[0]
        write()
        return lab.xp.sum(gradient**2)

    with pytest.raises(DerivativeError, match=r"expected f to (give|use)"):
        lab.gradient(slope, np.array([0.3, 0.5]))


def test_a_singular_adjoint_equation_is_not_solved(lab: Lab) -> None:
    """Broyden runs off along the null vector until v is lost in the rounding of Jᵀg + v."""
    told: list[Any] = []
    rates = lab.tensor(np.array([1.0, 0.5]))
    adjoint = Implicit(
        solver=Broyden(),
        fallback=None,
        on_failure="ignore",
        callback=lambda *outcome: told.append(outcome),
    )

    def loss(theta: Any) -> Any:
        sol = lab.fpi.fixed_point(
            lambda z: rates * z + theta, lab.xp.ones_like(theta), adjoint=adjoint, rtol=1e-10
        )
        return lab.xp.sum(sol.value)

    lab.gradient(loss, np.zeros(2), mode=lab.swift)
    lab.wait()
    ((results, stats),) = told
    assert results.flat() != [Result.CONVERGED]
    assert not float(stats.residual) <= float(stats.tolerance)


@pytest.mark.parametrize("batch_ndim", [0, 1])
def test_reuse_of_a_solver_that_took_no_step(lab: Lab, batch_ndim: int) -> None:
    start = lab.tensor(np.array([2.0, 4.0]))

    def loss(theta: Any) -> Any:
        sol = lab.fpi.fixed_point(
            lambda z: 0.5 * z + theta,
            start,
            adjoint=Implicit(reuse=True),
            rtol=1e-10,
            batch_ndim=batch_ndim,
        )
        return lab.xp.sum(sol.value)

    (found,) = lab.gradient(loss, np.array([1.0, 2.0]), mode=lab.swift)
    np.testing.assert_allclose(found, 2.0, rtol=1e-9)
