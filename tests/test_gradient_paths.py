"""The ways a parameter may reach the answer: arguments, closures, aux, the start, other solves."""

from typing import Any

import numpy as np
import pytest

from .labs import Lab
from .problems import LEAN, SOLVERS

pytestmark = pytest.mark.gradients
THETA = np.array([0.7, -1.2])
"""z = θ − 1.5 z has z* = 0.4 θ."""


def solve(lab: Lab, f: Any, z0: Any, *args: Any, adjoint: Any = LEAN, **options: Any) -> Any:
    return lab.fpi.fixed_point(f, z0, args, rtol=1e-11, adjoint=adjoint, **options)


def test_closure(lab: Lab, mode: str) -> None:
    def loss(theta: Any) -> Any:
        sol = solve(lab, lambda z: theta - 1.5 * z, lab.xp.zeros_like(theta))
        return lab.xp.sum(sol.value**3)

    (found,) = lab.gradient(loss, THETA, mode=mode)
    np.testing.assert_allclose(found, 3 * 0.4**3 * THETA**2, rtol=1e-9)


def test_closure_over_a_computed_tensor_and_argument_at_once(lab: Lab, mode: str) -> None:
    def loss(theta: Any) -> Any:
        captured = lab.xp.sin(theta)
        sol = solve(lab, lambda z, t: captured * t - 1.5 * z, 0.0 * theta, theta)
        return lab.xp.sum(sol.value)

    (found,) = lab.gradient(loss, THETA, mode=mode)
    np.testing.assert_allclose(found, 0.4 * (np.sin(THETA) + THETA * np.cos(THETA)), rtol=1e-9)


def test_aux(lab: Lab, mode: str) -> None:
    """Gradients flow through aux, by z* and by θ."""

    def loss(theta: Any) -> Any:
        sol = solve(
            lab,
            lambda z, t: (t - 1.5 * z, {"seen": z * z * t}),
            0.0 * theta,
            theta,
            has_aux=True,
        )
        return lab.xp.sum(sol.aux["seen"]) + lab.xp.sum(sol.value)

    (found,) = lab.gradient(loss, THETA, mode=mode)
    np.testing.assert_allclose(found, 3 * 0.16 * THETA**2 + 0.4, rtol=1e-9)


def test_start_gets_a_zero_gradient(lab: Lab, mode: str) -> None:
    def loss(theta: Any, start: Any) -> Any:
        return lab.xp.sum(solve(lab, lambda z, t: t - 1.5 * z, start, theta).value)

    found, start = lab.gradient(loss, THETA, np.array([0.1, 0.2]), mode=mode)
    np.testing.assert_allclose(found, 0.4, rtol=1e-9)
    np.testing.assert_array_equal(start, 0.0)


def test_start_computed_from_the_parameter(lab: Lab) -> None:
    def loss(theta: Any) -> Any:
        return lab.xp.sum(solve(lab, lambda z, t: t - 1.5 * z, 3.0 * theta, theta).value)

    (found,) = lab.gradient(loss, THETA)
    np.testing.assert_allclose(found, 0.4, rtol=1e-9)


def test_start_that_is_the_parameter_itself(lab: Lab) -> None:
    def loss(theta: Any) -> Any:
        return lab.xp.sum(solve(lab, lambda z, t: t - 1.5 * z, theta, theta).value)

    (found,) = lab.gradient(loss, THETA)
    np.testing.assert_allclose(found, 0.4, rtol=1e-9)


def test_two_solves_before_one_backward_pass(lab: Lab, mode: str) -> None:
    """One solve feeds the next, and both feed the loss."""

    def loss(theta: Any) -> Any:
        first = solve(lab, lambda z, t: t - 1.5 * z, 0.0 * theta, theta).value
        second = solve(lab, lambda z, t: t * first - 0.5 * z, 0.0 * theta, theta).value
        return lab.xp.sum(first) + lab.xp.sum(second)  # 0.4 θ + 0.4 θ² / 1.5

    (found,) = lab.gradient(loss, THETA, mode=mode)
    np.testing.assert_allclose(found, 0.4 + 0.8 / 1.5 * THETA, rtol=1e-9)


@pytest.mark.modes("eager", "jit")
def test_solve_within_a_solve(lab: Lab, mode: str) -> None:
    """f itself solves: z = θ − ½ y, 0.25 = inner slope; y = z / 2 − ½ y has y* = z / 3."""

    def loss(theta: Any) -> Any:
        def outer(z: Any, t: Any) -> Any:
            inner = solve(lab, lambda y: 0.5 * z - 0.5 * y, 0.0 * z).value
            return t - 0.5 * inner

        return lab.xp.sum(solve(lab, outer, 0.0 * theta, theta).value)

    (found,) = lab.gradient(loss, THETA, mode=mode)
    np.testing.assert_allclose(found, 1 / (1 + 1 / 6), rtol=1e-8)


def test_nested_arguments(lab: Lab) -> None:
    def loss(parameters: Any) -> Any:
        def f(z: Any, p: Any) -> Any:
            return p["b"][0] - p["a"] * z

        sol = solve(lab, f, 0.0 * parameters["a"], parameters)
        return lab.xp.sum(sol.value)  # b / (1 + a)

    a, b = np.array([1.5, 0.5]), np.array([1.0, 2.0])
    (found,) = lab.gradient(loss, {"a": a, "b": [b]})
    np.testing.assert_allclose(found["a"], -b / (1 + a) ** 2, rtol=1e-9)
    np.testing.assert_allclose(found["b"][0], 1 / (1 + a), rtol=1e-9)


@pytest.mark.modes("jit", "graph", "xla")
@pytest.mark.parametrize("solver", ["anderson", "broyden"])
def test_exact_start_in_compiled_code(lab: Lab, mode: str, solver: str) -> None:
    """A residual of exactly zero leaves nothing to divide by, forward and backward."""

    def loss(theta: Any) -> Any:
        sol = solve(lab, lambda z: theta - 1.5 * z, 0.4 * theta, solver=SOLVERS[solver])
        return lab.xp.sum(sol.value)

    (found,) = lab.gradient(loss, np.array([5.0, -10.0]), mode=mode)
    np.testing.assert_allclose(found, 0.4, rtol=1e-9)


def test_zero_cotangent(lab: Lab, mode: str) -> None:
    def loss(theta: Any) -> Any:
        sol = solve(lab, lambda z, t: t - 1.5 * z, 0.0 * theta, theta, adjoint=None)
        return 0.0 * lab.xp.sum(sol.value)

    (found,) = lab.gradient(loss, THETA, mode=mode)
    np.testing.assert_array_equal(found, 0.0)


def test_a_leaf_that_depends_on_no_parameter(lab: Lab, mode: str) -> None:
    """Only the other leaf of the state sees θ: a = ½ b, b = θ − ½ a, so a = 0.4 θ, b = 0.8 θ."""

    def loss(theta: Any) -> Any:
        zero = 0.0 * theta
        f = lambda z, t: (0.5 * z[1], t - 0.5 * z[0])  # noqa: E731
        sol = solve(lab, f, (zero, zero), theta, adjoint=None)
        return lab.xp.sum(sol.value[0]) + 2.0 * lab.xp.sum(sol.value[1])

    (found,) = lab.gradient(loss, THETA, mode=mode)
    np.testing.assert_allclose(found, 2.0, rtol=1e-9)


def test_loss_of_one_leaf_alone(lab: Lab, mode: str) -> None:
    """The cotangent of the other leaf is absent, not zero."""

    def loss(theta: Any) -> Any:
        zero = 0.0 * theta
        sol = solve(lab, lambda z, t: (0.5 * z[1] + t, t - 0.5 * z[0]), (zero, zero), theta)
        return lab.xp.sum(sol.value[1])  # a = ½ b + θ, b = θ − ½ a = 0.4 θ

    (found,) = lab.gradient(loss, THETA, mode=mode)
    np.testing.assert_allclose(found, 0.4, rtol=1e-9)


def test_unused_answer(lab: Lab) -> None:
    def loss(theta: Any) -> Any:
        solve(lab, lambda z, t: t - 1.5 * z, 0.0 * theta, theta)
        return lab.xp.sum(theta * theta)

    (found,) = lab.gradient(loss, THETA)
    np.testing.assert_allclose(found, 2 * THETA)


def test_integer_argument(lab: Lab, mode: str) -> None:
    """Indices among the arguments are not differentiated and do no harm."""

    def loss(theta: Any) -> Any:
        count = lab.tensor(np.array(3, "int32"))

        def f(z: Any, t: Any, n: Any) -> Any:
            return t - 0.5 * lab.xp.astype(n, t.dtype) * z

        return lab.xp.sum(solve(lab, f, 0.0 * theta, theta, count).value)

    (found,) = lab.gradient(loss, THETA, mode=mode)
    np.testing.assert_allclose(found, 0.4, rtol=1e-9)


def test_same_function_with_another_closure(lab: Lab) -> None:
    """A function object that is called again with other captured values gives new answers."""
    box: dict[str, Any] = {}

    def f(z: Any) -> Any:
        return box["theta"] - 1.5 * z

    def loss(theta: Any) -> Any:
        box["theta"] = theta
        return lab.xp.sum(solve(lab, f, 0.0 * theta).value ** 2)

    for theta in (THETA, 3.0 * THETA):
        (found,) = lab.gradient(loss, theta)
        np.testing.assert_allclose(found, 0.32 * theta, rtol=1e-9)


def test_linearisation_costs_one_evaluation(lab: Lab) -> None:
    theta = lab.tensor(THETA)
    counted, count = lab.counted(lambda z, t: t - 0.5 * lab.xp.sin(z))
    evaluations: list[int] = []

    def loss(theta: Any) -> Any:
        sol = solve(lab, counted, 0.0 * theta, theta)
        evaluations.append(int(lab.numpy(sol.stats.evaluations)))
        return lab.xp.sum(sol.value)

    lab.gradient_function(loss)(theta)
    assert count() == evaluations[0] + 1
