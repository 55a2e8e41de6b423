"""adjoint_solve: the adjoint for a vector-Jacobian product that the caller supplies."""

from typing import Any

import numpy as np
import pytest

from fpicore import ConvergenceError, ConvergenceWarning, InputError, MapError

from .labs import Lab
from .problems import SOLVERS, symmetric

N = 5


def system(seed: int = 0, low: float = -0.8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Jᵀ, v and g = (I − Jᵀ)⁻¹ v."""
    random = np.random.default_rng(seed)
    transposed, v = symmetric(random, np.linspace(low, 0.9, N)), random.standard_normal(N)
    return transposed, v, np.linalg.solve(np.eye(N) - transposed, v)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("scale", [1.0, 1e-150, 1e150])
def test_answer(lab: Lab, fpi: Any, solver: str, scale: float) -> None:
    matrix, v, g = system()
    m = lab.tensor(matrix)
    sol = fpi.adjoint_solve(
        lambda g: lab.xp.matmul(m, g),
        lab.tensor(scale * v),
        solver=SOLVERS[solver],
        rtol=1e-11,
        max_steps=1000,
    )
    np.testing.assert_allclose(lab.numpy(sol.value) / scale, g, rtol=1e-8)
    assert float(lab.numpy(sol.stats.residual)) <= 1e-11
    assert float(lab.numpy(sol.stats.tolerance)) == pytest.approx(1e-11)


def test_expansive(lab: Lab, fpi: Any) -> None:
    matrix, v, g = system(low=-3.0)
    m = lab.tensor(matrix)
    sol = fpi.adjoint_solve(lambda g: lab.xp.matmul(m, g), lab.tensor(v), rtol=1e-10)
    np.testing.assert_allclose(lab.numpy(sol.value), g, rtol=1e-8)


def test_nested_and_batched(lab: Lab, fpi: Any) -> None:
    rate = lab.tensor(np.array([[0.1], [0.9]]))
    v = {"a": lab.tensor(np.ones((2, 3))), "b": lab.tensor(np.full((2, 1), 2.0))}
    sol = fpi.adjoint_solve(
        lambda g: {"a": rate * g["a"], "b": -rate * g["b"]},
        v,
        rtol=1e-10,
        batch_ndim=1,
    )
    value = lab.numpy(sol.value)
    np.testing.assert_allclose(value["a"], np.tile([[1 / 0.9], [10.0]], (1, 3)), rtol=1e-8)
    np.testing.assert_allclose(value["b"], [[2 / 1.1], [2 / 1.9]], rtol=1e-8)


def test_zero_right_hand_side(lab: Lab, fpi: Any) -> None:
    sol = fpi.adjoint_solve(lambda g: 0.5 * g, lab.tensor(np.zeros(N)))
    np.testing.assert_array_equal(lab.numpy(sol.value), 0.0)
    assert bool(lab.numpy(sol.converged))


def test_adjoint_options_win(lab: Lab, fpi: Any) -> None:
    with pytest.warns(ConvergenceWarning, match="adjoint_solve did not converge: MAX_STEPS"):
        sol = fpi.adjoint_solve(
            lambda g: 0.9 * g,
            lab.tensor(np.ones(N)),
            adjoint=fpi.Implicit(max_steps=1, rtol=1e-9, fallback=None),
        )
    assert int(lab.numpy(sol.stats.evaluations)) == 2


def test_failure_raises_on_request(lab: Lab, fpi: Any) -> None:
    with pytest.raises(ConvergenceError, match="adjoint_solve did not converge"):
        fpi.adjoint_solve(
            lambda g: 2.0 * g,
            lab.tensor(np.ones(N)),
            solver=fpi.Picard(),
            adjoint=fpi.Implicit(fallback=None),
            on_failure="raise",
        )


def test_bad_input(lab: Lab, fpi: Any) -> None:
    v = lab.tensor(np.ones(N))
    with pytest.raises(InputError, match="callable"):
        fpi.adjoint_solve(None, v)
    with pytest.raises(InputError, match="max_steps"):
        fpi.adjoint_solve(lambda g: g, v, max_steps=0)
    with pytest.raises(InputError, match="solver"):
        fpi.adjoint_solve(lambda g: g, v, solver="picard")
    with pytest.raises(MapError, match="expected leaf 0"):
        fpi.adjoint_solve(lambda g: g[:2], v)


def test_gradient_by_hand(lab: Lab, fpi: Any) -> None:
    """The recipe for a framework without derivatives: solve, adjoint solve, ∂f/∂θ."""
    theta, weights = np.array([0.3, -0.6, 0.9]), np.array([1.0, 2.0, -1.0])
    t = lab.tensor(theta)
    z = fpi.fixed_point(lambda z: t * lab.xp.sin(z) + 1.0, 0.0 * t, rtol=1e-12).value
    slope = t * lab.xp.cos(z)
    g = fpi.adjoint_solve(lambda g: slope * g, lab.tensor(weights), rtol=1e-12).value
    found = lab.numpy(g) * np.sin(lab.numpy(z))
    value = lab.numpy(z)
    exact = weights * np.sin(value) / (1 - theta * np.cos(value))
    np.testing.assert_allclose(found, exact, rtol=1e-10)
