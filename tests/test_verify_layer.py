"""The references of strategies and matrix against contour integrals, which share no formula."""

from collections.abc import Callable
from math import factorial
from typing import Any

import numpy as np
import pytest

from fpicore.verify.layer import INPUTS, LOSS, UNITS, WEIGHT, derivatives, fixed_point
from fpicore.verify.matrix import ROWS
from fpicore.verify.strategies import STRATEGIES, Answer

RANDOM = np.random.default_rng(30)
DIRECTIONS = RANDOM.standard_normal((3, UNITS))


def loss(z: Any) -> Any:
    return np.sum(LOSS * np.exp(z))


def contour(
    function: Callable[[np.ndarray], Any], x: np.ndarray, along: np.ndarray, order: int
) -> np.ndarray:
    """The derivative along a direction by Cauchy's formula: exact to rounding, no step size."""
    points, radius = 32, 0.1
    circle = radius * np.exp(2j * np.pi * np.arange(points) / points)
    values = np.array([function(x + t * along) for t in circle])
    weights = (circle**-order).reshape(-1, *[1] * (values.ndim - 1))
    return factorial(order) * (values * weights).mean(axis=0).real


def contracted(tensor: np.ndarray, along: np.ndarray, order: int) -> np.ndarray:
    for _ in range(order):
        tensor = tensor @ along
    return tensor


def test_fixed_point_solves_the_equation() -> None:
    for x in INPUTS:
        z = fixed_point(x)
        np.testing.assert_allclose(np.tanh(WEIGHT @ z + x), z, rtol=1e-14)


def test_layer_is_expansive() -> None:
    """Otherwise a truncated series would pass for the exact gradient."""
    for x in INPUTS:
        slope = 1 - fixed_point(x) ** 2
        assert np.abs(np.linalg.eigvals(slope[:, None] * WEIGHT)).max() > 1.2


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("along", DIRECTIONS, ids=range(len(DIRECTIONS)))
def test_derivatives(order: int, along: np.ndarray) -> None:
    for x in INPUTS:
        found = derivatives(x)
        state = contracted(found.state[order - 1], along, order)
        np.testing.assert_allclose(state, contour(fixed_point, x, along, order), rtol=1e-9)
        value = contracted(found.loss[order - 1], along, order)
        truth = contour(lambda x: loss(fixed_point(x)), x, along, order)
        np.testing.assert_allclose(value, truth, rtol=1e-9)


@pytest.mark.parametrize("order", [2, 3])
def test_higher_derivatives_are_symmetric(order: int) -> None:
    """With that, the forms along all directions determine them."""
    found = derivatives(INPUTS[0])
    for tensor in (found.state[order - 1], found.loss[order - 1]):
        last = tensor.ndim - 1
        for axis in range(tensor.ndim - order, last):
            np.testing.assert_allclose(np.swapaxes(tensor, axis, last), tensor, atol=1e-13)


def test_rows_differ_and_are_not_trivial() -> None:
    assert len({row.key for row in ROWS}) == len(ROWS)
    for row in ROWS:
        assert all(np.abs(array).max() > 1e-2 for array in row.truth), row.key


def formula(name: str) -> Answer:
    (found,) = [strategy.formula() for strategy in STRATEGIES if strategy.name == name]
    return found


def test_exact_strategies_give_the_derivative() -> None:
    truth = derivatives(INPUTS[0])
    for name in ("Implicit, Picard", "Implicit, fallback", "Implicit, reuse"):
        found = formula(name)
        np.testing.assert_allclose(found.value, truth.z, rtol=1e-14)
        np.testing.assert_allclose(found.gradients[1], truth.loss[0], rtol=1e-12)
        np.testing.assert_allclose(found.gradients[0], np.outer(truth.loss[0], truth.z), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "terms", "damping"), [("OneStep", 1, 1.0), ("Neumann", 6, 1.0), ("Phantom", 6, 0.3)]
)
def test_truncated_strategies_give_so_many_damped_steps(
    name: str, terms: int, damping: float
) -> None:
    """The gradient of damped steps that start at z*, which is held constant."""
    truth = fixed_point(INPUTS[0])

    def steps(inputs: np.ndarray) -> np.ndarray:
        z = truth.astype(complex)
        for _ in range(terms):
            z = (1 - damping) * z + damping * np.tanh(WEIGHT @ z + inputs)
        return z

    weights = LOSS * np.exp(truth)  # the loss is linearised at z*
    found = formula(name).gradients[1]
    for along in np.eye(UNITS):
        slope = contour(lambda x: np.sum(weights * steps(x)), INPUTS[0], along, 1)
        np.testing.assert_allclose(found @ along, slope, rtol=1e-9)


def test_unrolled_gives_the_derivative_of_the_iterate() -> None:
    def run(vector: np.ndarray) -> Any:
        weight, x = vector[: UNITS**2].reshape(UNITS, UNITS), vector[UNITS**2 :]
        z = np.zeros(UNITS, complex)
        for _ in range(8):
            z = 0.5 * z + 0.5 * np.tanh(weight @ z + x)
        return z

    found, point = formula("Unrolled"), np.concatenate([WEIGHT.ravel(), INPUTS[0]])
    np.testing.assert_allclose(run(point).real, found.value, rtol=1e-13)
    gradient = np.concatenate([found.gradients[0].ravel(), found.gradients[1]])
    for along in RANDOM.standard_normal((4, point.size)):
        slope = contour(lambda vector: loss(run(vector)), point, 0.1 * along, 1)
        np.testing.assert_allclose(gradient @ (0.1 * along), slope, rtol=1e-9)
