"""Derivatives of maps on NumPy arrays, exact to rounding where the map allows it."""

import warnings
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from .arrays import Array

Function = Callable[[Array], Array]

_STEP = 1e-30
"""Imaginary step: its square is far below the rounding error of anything, so nothing cancels."""
_LADDER = 2.0 ** -np.arange(5, 17, 2)
"""Real steps, each a quarter of the one before, in units of the largest entry."""


class Derivative(Protocol):
    """A way to differentiate a function along a direction."""

    name: str
    evaluations: int
    """Calls of the function for one derivative."""
    accuracy: float
    """The relative error to expect of the derivatives taken so far."""

    def __call__(self, function: Function, x: Array, direction: Array) -> Array:
        """d/dt function(x + t·direction) at t = 0."""
        ...


class ComplexStep:
    """Im function(x + i·h·direction) / h: exact to rounding, for complex-analytic functions."""

    name = "complex step"
    evaluations = 1
    accuracy = 1e-15

    def __call__(self, function: Function, x: Array, direction: Array) -> Array:
        """The derivative along a direction; whatever the function raises on complex input."""
        with warnings.catch_warnings():
            # NumPy warns where a cast drops the imaginary part; `choose` finds it by value.
            warnings.simplefilter("ignore")
            return np.imag(function(x + 1j * _STEP * direction)) / _STEP


class CentralDifferences:
    """Central differences on a ladder of steps, extrapolated twice (Ridders' tableau).

    Each entry takes the extrapolation that differs least from its neighbours. That difference is
    its error estimate; the largest one, relative to the largest derivative, is ``accuracy``.
    """

    name = "central differences"
    evaluations = 2 * len(_LADDER)

    def __init__(self) -> None:
        """Start with the accuracy of rounding."""
        self.accuracy = 1e-15
        self._largest = 0.0
        self._error = 0.0

    def __call__(self, function: Function, x: Array, direction: Array) -> Array:
        """The derivative along a direction."""
        scale = max(1.0, float(np.max(np.abs(x), initial=0.0)))
        rows = [
            (function(x + h * direction) - function(x - h * direction)) / (2 * h)
            for h in scale * _LADDER
        ]
        first = np.stack(rows)
        second = (16 * first[1:] - first[:-1]) / 15
        third = (256 * second[1:] - second[:-1]) / 255
        errors = np.maximum(np.abs(third - second[1:]), np.abs(third - second[:-1]))
        best = np.argmin(errors, axis=0, keepdims=True)
        derivative = np.take_along_axis(third, best, axis=0)[0]
        self._note(derivative, np.take_along_axis(errors, best, axis=0))
        return derivative

    def _note(self, derivative: Array, errors: Array) -> None:
        self._largest = max(self._largest, float(np.max(np.abs(derivative), initial=0.0)))
        self._error = max(self._error, float(np.max(errors, initial=0.0)))
        if self._largest > 0:
            self.accuracy = max(1e-15, self._error / self._largest)


def analytic(function: Function, x: Array) -> bool:
    """Whether the complex step is right for this function at x.

    It is not if the function raises on complex input, or if along a random direction it disagrees
    with central differences, as with ``abs``, a norm or a cast to real.
    """
    direction = np.random.default_rng(0).standard_normal(x.shape)
    try:
        step = ComplexStep()(function, x, direction)
    except Exception:  # a map may fail on complex input in any way it likes
        return False
    plain = CentralDifferences()(function, x, direction)
    size = max(float(np.max(np.abs(plain), initial=0.0)), 1e-30)
    return bool(np.max(np.abs(step - plain), initial=0.0) <= 1e-6 * size)


def jacobian(derivative: Derivative, function: Function, x: Array) -> Array:
    """∂function/∂x per system, (systems, n, n), for a function of (systems, n) to (systems, n).

    One derivative per unknown: the systems are perturbed together, as none influences another.
    """
    columns = []
    for unknown in range(x.shape[1]):
        direction = np.zeros(x.shape)
        direction[:, unknown] = 1.0
        columns.append(derivative(function, x, direction))
    return np.stack(columns, axis=2)


def gradient(
    derivative: Derivative, function: Callable[[list[Array]], Array], parameters: Sequence[Array]
) -> tuple[Array, ...]:
    """∂function/∂parameter of a scalar function, for every entry of every parameter."""
    gradients = []
    for index, parameter in enumerate(parameters):
        others = list(parameters)

        def of_one(x: Array, index: int = index, others: list[Array] = others) -> Array:
            others[index] = x
            return function(others)

        found = np.zeros(parameter.shape)
        direction = np.zeros(parameter.shape)
        for entry in np.ndindex(parameter.shape):
            direction[entry] = 1.0
            found[entry] = derivative(of_one, parameter, direction)
            direction[entry] = 0.0
        gradients.append(found)
    return tuple(gradients)
