"""Second derivatives: right with any order asked for, refused beyond it in PyTorch."""

from typing import Any

import numpy as np
import pytest

from fpicore import Anderson, Broyden, DerivativeError, Implicit, Picard

from .labs import Lab

pytestmark = pytest.mark.gradients

N = 3
RANDOM = np.random.default_rng(11)
MATRIX = 0.5 * RANDOM.standard_normal((N, N))
THETA, WEIGHTS, DIRECTION = RANDOM.standard_normal((3, N))


def reference() -> tuple[np.ndarray, np.ndarray]:
    """Gradient and Hessian of w·z*, z = A tanh z + θ, in closed form."""
    z = np.zeros(N)
    for _ in range(50):
        t = np.tanh(z)
        jacobian = MATRIX * (1 - t**2)
        z = z + np.linalg.solve(np.eye(N) - jacobian, MATRIX @ t + THETA - z)
    t = np.tanh(z)
    slope = np.linalg.inv(np.eye(N) - MATRIX * (1 - t**2))
    g = slope.T @ WEIGHTS
    curvature = (MATRIX.T @ g) * (-2 * t * (1 - t**2))
    return g, slope.T @ np.diag(curvature) @ slope


def loss_of(lab: Lab, adjoint: Any, solver: Any = None) -> Any:
    def loss(theta: Any) -> Any:
        matrix, weights = lab.tensor(MATRIX), lab.tensor(WEIGHTS)
        sol = lab.fpi.fixed_point(
            lambda z, t: lab.xp.matmul(matrix, lab.xp.tanh(z)) + t,
            lab.xp.zeros_like(theta),
            (theta,),
            solver=solver,
            adjoint=adjoint,
            rtol=1e-12,
            max_steps=1000,
        )
        return lab.xp.sum(weights * sol.value)

    return loss


def test_reference_hessian_is_the_slope_of_its_gradient() -> None:
    global THETA
    _, hessian = reference()
    kept, slopes = THETA, []
    for sign in (1, -1):
        THETA = kept + sign * 1e-6 * DIRECTION
        slopes.append(reference()[0])
    THETA = kept
    np.testing.assert_allclose(hessian @ DIRECTION, (slopes[0] - slopes[1]) / 2e-6, rtol=1e-6)


@pytest.mark.modes("eager", "jit")
def test_hessian_product(lab: Lab, mode: str) -> None:
    solver = Anderson() if mode == "eager" else Picard()  # less to compile
    found = lab.hessian_product(loss_of(lab, Implicit(order=2), solver), THETA, DIRECTION, mode)
    np.testing.assert_allclose(found, reference()[1] @ DIRECTION, rtol=1e-8)


@pytest.mark.parametrize("solver", [Picard(), Broyden()], ids=lambda s: s.name)
def test_hessian_product_by_every_solver(lab: Lab, solver: Any) -> None:
    loss = loss_of(lab, Implicit(order=2), solver)
    found = lab.hessian_product(loss, THETA, DIRECTION, lab.swift)
    np.testing.assert_allclose(found, reference()[1] @ DIRECTION, rtol=1e-8)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_order_leaves_the_gradient_alone(lab: Lab, order: int) -> None:
    (found,) = lab.gradient(loss_of(lab, Implicit(order=order)), THETA)
    np.testing.assert_allclose(found, reference()[0], rtol=1e-9)


@pytest.mark.modes("eager", "graph")
def test_first_order_refuses_the_second_derivative(lab: Lab, mode: str) -> None:
    if lab.name != "torch":
        pytest.skip("JAX and TensorFlow give every order")
    loss = loss_of(lab, Implicit(order=1), Picard())
    with pytest.raises(DerivativeError, match=r"at most 1 derivative.*Implicit\(order=2\)"):
        lab.hessian_product(loss, THETA, DIRECTION, mode)


@pytest.mark.parametrize("power", [1, 2])
def test_first_order_refuses_for_linear_and_nonlinear_losses(lab: Lab, power: int) -> None:
    """Where the missing term is the only dependence, an unguarded derivative would be zero."""
    if lab.name != "torch":
        pytest.skip("JAX and TensorFlow give every order")
    inner = loss_of(lab, Implicit(order=1))
    with pytest.raises(DerivativeError):
        lab.hessian_product(lambda theta: inner(theta) ** power, THETA, DIRECTION)


def test_second_derivative_in_another_input(lab: Lab) -> None:
    """∂²/∂a∂θ of z* = θ/(1 + a), asked for by way of a loss that is linear in z*."""

    def mixed(order: int) -> np.ndarray:
        def slope(a: Any) -> Any:
            def loss(theta: Any) -> Any:
                sol = lab.fpi.fixed_point(
                    lambda z: theta - a * z, 0.0 * theta, rtol=1e-12,
                    adjoint=Implicit(order=order),
                )  # fmt: skip
                return lab.xp.sum(sol.value)

            inner = getattr(lab, f"_{lab.name}_gradient")(loss, again=True)
            return lab.xp.sum(inner(lab.tensor(THETA))[0])

        return lab.gradient(slope, np.full(N, 0.5))[0]

    np.testing.assert_allclose(mixed(2), -1 / 1.5**2, rtol=1e-9)
    if lab.name == "torch":
        with pytest.raises(DerivativeError):
            mixed(1)


def test_expansive_second_derivative(lab: Lab) -> None:
    """The logistic map at θ = 3.3 has slope −1.3 and z* = 1 − 1/θ."""

    def loss(theta: Any) -> Any:
        sol = lab.fpi.fixed_point(
            lambda z: theta * z * (1.0 - z),
            lab.tensor(np.array([0.6])),
            adjoint=Implicit(order=2),
            rtol=1e-13,
        )
        return lab.xp.sum(sol.value)

    found = lab.hessian_product(loss, np.array([3.3]), np.ones(1))
    np.testing.assert_allclose(found, -2 / 3.3**3, rtol=1e-8)


@pytest.mark.modes("eager", "jit")
def test_second_derivative_of_a_nested_state(lab: Lab, mode: str) -> None:
    """a = θ b, b = 1 + a/2: b = 1/(1 − θ/2), so d²b/dθ² = 0.5/(1 − θ/2)³."""

    def loss(theta: Any) -> Any:
        zero = 0.0 * theta
        sol = lab.fpi.fixed_point(
            lambda z, t: {"a": t * z["b"], "b": 1.0 + 0.5 * z["a"] + 0.0 * t},
            {"a": zero, "b": zero},
            (theta,),
            adjoint=Implicit(order=2),
            rtol=1e-13,
        )
        return lab.xp.sum(sol.value["b"])

    theta = np.array([0.3, -0.8])
    found = lab.hessian_product(loss, theta, np.ones(2), mode)
    np.testing.assert_allclose(found, 0.5 / (1 - theta / 2) ** 3, rtol=1e-8)
