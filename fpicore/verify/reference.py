"""The dense float64 reference: Newton's method and direct solves in NumPy, no library code.

z* solves f(z) = z by Newton's method with a dense Jacobian J = ∂f/∂z for each system. The adjoint
g solves (I − Jᵀ) g = ∂L/∂z directly, and the gradient is the derivative of L(z*, θ) + g·f(z*, θ)
with respect to every entry of θ at fixed z* and g. Derivatives are taken by the complex step,
exact to rounding; by extrapolated central differences where the map is not complex-analytic.
"""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._errors import InputError
from .arrays import Array, Layout, Tree, leaf_error, leaves, system_error
from .dense import Dense, Functions
from .derivatives import CentralDifferences, ComplexStep
from .problem import Problem

_NEWTON_STEPS = 100
_HALVINGS = 40
_SETTLED = 1e-12
"""Newton must bring ‖f(z) − z‖ / ‖f(z)‖ of every system to this."""

_USUAL_JACOBIANS = 8
"""Jacobians that Newton's method and the adjoint usually take."""
_PATIENCE = 120.0
"""Seconds that a reference may take."""
_PROBE = 1e-6
"""Relative residual for which the gradient's sensitivity is measured."""


class NoReferenceError(Exception):
    """The reference cannot be built; the message says why."""


@dataclass(frozen=True, eq=False)
class Reference:
    """The answer that every framework's is compared with."""

    value: Tree
    loss: float
    loss_scale: float
    """max(|L|, Σ |∂L/∂z|·|z|): the size of the terms of a loss that may nearly cancel."""
    gradients: tuple[Array, ...]
    condition: float
    """The largest ‖(I − J)⁻¹‖₂ of a system: a residual r leaves an error of up to this times r."""
    gradient_condition: float
    """Relative change of the gradient per unit of relative residual, forward and adjoint."""
    radius: float
    """The largest spectral radius of a system's Jacobian."""
    method: str
    """How derivatives were taken."""
    accuracy: float
    """Relative error of those derivatives."""
    source: str
    """Whose implementation of the map was differentiated."""


def solve_reference(
    problem: Problem, functions: Functions, args: tuple[Any, ...], data: tuple[Any, ...]
) -> Reference:
    """Value, loss and gradients of a problem for given args and data.

    Raises:
        NoReferenceError: Newton's method fails, or I − J is singular, or it would take too long.
        InputError: the systems of a batch influence each other.
    """
    dense = Dense(problem, functions, args, data)
    x = dense.layout.pack(problem.z0)
    dense.choose(x)
    _check_cost(dense, x)
    started = dense.derivative.name
    x = _newton(dense, x)
    dense.choose(x)
    if (started, dense.derivative.name) == (ComplexStep.name, CentralDifferences.name):
        x = _newton(dense, x)  # analytic at the start, not at the end
    _check_independence(dense, x)
    return _differentiate(dense, x)


def exactness(problem: Problem, reference: Reference) -> float | None:
    """How far the reference is from the answer a problem states, relative; None if it does not."""
    if problem.exact is None:
        return None
    error = system_error(Layout(problem.z0, problem.batch_ndim), reference.value, problem.exact)
    if problem.exact_gradients is not None:
        stated = [np.asarray(leaf) for leaf in leaves(problem.exact_gradients)]
        error = max(error, leaf_error(reference.gradients, stated))
    return error


def _check_cost(dense: Dense, x: Array) -> None:
    """Estimate the time of the reference before it is spent."""
    dense.map(x)  # the first evaluation may compile
    started = time.perf_counter()
    dense.map(x)
    once = time.perf_counter() - started
    parameters = sum(leaf.size for leaf in dense.parameters)
    derivatives = _USUAL_JACOBIANS * x.shape[1] + 2 * (x.size + parameters)
    seconds = once * derivatives * dense.derivative.evaluations
    if seconds > _PATIENCE:
        raise NoReferenceError(
            f"it would take about {seconds:.0f} s: {derivatives} derivatives by "
            f"{dense.derivative.name} at {once:.1e} s an evaluation of the map; give a smaller "
            "instance of the problem"
        )


def _newton(dense: Dense, x: Array) -> Array:
    """Newton's method on f(x) − x, each system with its own step length."""
    residual = dense.map(x) - x
    for _ in range(_NEWTON_STEPS):
        step = _solve(np.eye(x.shape[1]) - dense.jacobian(x), residual)
        x_next, residual = _line_search(dense, x, residual, step)
        if np.array_equal(x_next, x):
            break
        x = x_next
    error = np.linalg.norm(residual, axis=1)
    size = np.linalg.norm(x + residual, axis=1)
    if not np.all(error <= _SETTLED * np.where(size > 0, size, 1.0)):
        raise NoReferenceError(
            "Newton's method from z0 did not reach a fixed point: the largest residual is "
            f"{error.max():.1e}; choose z0 closer to one"
        )
    return x


def _line_search(dense: Dense, x: Array, residual: Array, step: Array) -> tuple[Array, Array]:
    """Halve the steps of those systems whose residual does not decrease; 0 where none does."""
    error = np.linalg.norm(residual, axis=1)
    length = np.ones(len(x))
    better, trial, moved = np.zeros(len(x), bool), x, residual
    for _ in range(_HALVINGS):
        with np.errstate(all="ignore"):  # a step that overflows is halved like any other
            trial = x + length[:, None] * step
            moved = dense.map(trial) - trial
            better = np.linalg.norm(moved, axis=1) < error
        if better.all():
            break
        length = np.where(better, length, length / 2)
    keep = better[:, None]
    return np.where(keep, trial, x), np.where(keep, moved, residual)


def _solve(matrices: Array, right: Array) -> Array:
    try:
        return np.linalg.solve(matrices, right[..., None])[..., 0]
    except np.linalg.LinAlgError as error:
        raise NoReferenceError(
            "I − ∂f/∂z is singular: the fixed point is not isolated, or its derivative not defined"
        ) from error


def _check_independence(dense: Dense, x: Array) -> None:
    """Perturb the systems together and by different amounts; each must see its own amount only."""
    random = np.random.default_rng(1)
    direction, amounts = random.standard_normal(x.shape), random.uniform(0.5, 2.0, (len(x), 1))
    together = dense.derivative(dense.map, x, direction) * amounts
    apart = dense.derivative(dense.map, x, direction * amounts)
    size = max(float(np.abs(together).max()), 1e-30)
    if np.abs(together - apart).max() > 1e-6 * size:
        raise InputError(
            f"expected the systems along the first {dense.batch_ndim} axes (batch_ndim) to be "
            "independent, received a map in which they influence each other; give a smaller one"
        )


def _differentiate(dense: Dense, x: Array) -> Reference:
    """The adjoint and the gradients at the fixed point."""
    jacobians = dense.jacobian(x)
    matrices = np.eye(x.shape[1]) - jacobians
    weights = dense.loss_gradient(x)
    loss = float(dense.loss(x))
    adjoint = _solve(np.swapaxes(matrices, 1, 2), weights)
    gradients = dense.gradients(x, adjoint)
    return Reference(
        value=dense.layout.unpack(x),
        loss=loss,
        loss_scale=max(abs(loss), float(np.sum(np.abs(weights * x)))),
        gradients=gradients,
        condition=float((1.0 / np.linalg.svd(matrices, compute_uv=False)).max()),
        gradient_condition=_gradient_condition(dense, x, matrices, weights, gradients),
        radius=float(np.abs(np.linalg.eigvals(jacobians)).max()),
        method=dense.derivative.name,
        accuracy=dense.derivative.accuracy,
        source=dense.functions.source,
    )


def _gradient_condition(
    dense: Dense, x: Array, matrices: Array, weights: Array, gradients: tuple[Array, ...]
) -> float:
    """The gradient's relative change per unit of relative residual, in z* and in the adjoint.

    Measured for a residual with every component about as large as it can be: standard normal
    numbers, and on top the singular vector along which (I − J)⁻¹ amplifies most.
    """
    left, _, right = np.linalg.svd(matrices)
    random = np.random.default_rng(2)

    def residual(worst: Array, size: Array) -> Array:
        noise = random.standard_normal(x.shape)
        along = np.sum(noise * worst, axis=1, keepdims=True)
        scale = _PROBE * np.linalg.norm(size, axis=1, keepdims=True)
        return scale * (noise + np.copysign(1.0, along) * worst)

    moved = x + _solve(matrices, residual(left[:, :, -1], x))
    error = residual(right[:, -1, :], weights)
    moved_matrices = np.eye(x.shape[1]) - dense.jacobian(moved)
    right_side = dense.loss_gradient(moved) + error
    adjoint = _solve(np.swapaxes(moved_matrices, 1, 2), right_side)
    return leaf_error(dense.gradients(moved, adjoint), gradients) / _PROBE
