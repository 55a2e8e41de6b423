"""A map and a loss as functions of packed float64 arrays, with dense derivatives."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .arrays import Array, Layout, Tree, convert, leaves, rebuild, weighted_sum
from .derivatives import (
    CentralDifferences,
    ComplexStep,
    Derivative,
    analytic,
    gradient,
    jacobian,
)
from .problem import Problem


@dataclass(frozen=True, eq=False)
class Functions:
    """A map and a loss that take and return NumPy trees."""

    map: Callable[..., Tree]
    """``f(z, *args, *data)``."""
    loss: Callable[..., Any] | None
    """``loss(z, *args, *data)``; None is Σ cotangent·z."""
    source: str
    """Whose implementation it is, such as "numpy"."""
    may_be_complex: bool
    """Whether complex arrays may be tried."""


class Dense:
    """The problem z = f(z, *args, *data) in NumPy: states packed as (systems, unknowns)."""

    def __init__(
        self,
        problem: Problem,
        functions: Functions,
        args: tuple[Any, ...],
        data: tuple[Any, ...],
    ) -> None:
        """Take args and data in float64; derivatives are taken by differences until `choose`."""
        self.batch_ndim = problem.batch_ndim
        self.layout = Layout(problem.z0, problem.batch_ndim)
        self.functions = functions
        self.parameters = [_double(leaf) for leaf in leaves(args)]
        self.derivative: Derivative = CentralDifferences()
        self._weights = problem.cotangent
        self._args, self._data = args, convert(_double, data)

    def map(self, x: Array, parameters: Sequence[Array] | None = None) -> Array:
        """F(x), for other parameters if given."""
        args = rebuild(self._args, self.parameters if parameters is None else parameters)
        return self.layout.pack(self.functions.map(self.layout.unpack(x), *args, *self._data))

    def loss(self, x: Array, parameters: Sequence[Array] | None = None) -> Array:
        """L(x), for other parameters if given; shape ()."""
        args = rebuild(self._args, self.parameters if parameters is None else parameters)
        state = self.layout.unpack(x)
        if self.functions.loss is None:
            return np.asarray(weighted_sum(np, self._weights, state))
        return np.asarray(self.functions.loss(state, *args, *self._data)).reshape(())

    def choose(self, x: Array) -> None:
        """Differentiate by the complex step if map and loss are analytic near x."""
        sizes = np.cumsum([x.size, *[p.size for p in self.parameters]])[:-1]
        everything = np.concatenate([x.ravel(), *[p.ravel() for p in self.parameters]])

        def joint(vector: Array) -> Array:
            state, *flat = np.split(vector, sizes)
            state = state.reshape(x.shape)
            parts = [f.reshape(p.shape) for f, p in zip(flat, self.parameters, strict=True)]
            return np.append(self.map(state, parts), self.loss(state, parts))

        exact = self.functions.may_be_complex and analytic(joint, everything)
        self.derivative = ComplexStep() if exact else CentralDifferences()

    def jacobian(self, x: Array) -> Array:
        """∂F/∂x per system, (systems, n, n)."""
        return jacobian(self.derivative, self.map, x)

    def loss_gradient(self, x: Array) -> Array:
        """∂L/∂x, (systems, n)."""
        return gradient(self.derivative, lambda parts: self.loss(parts[0]), [x])[0]

    def gradients(self, x: Array, adjoint: Array) -> tuple[Array, ...]:
        """∂/∂parameter of L(x) + adjoint·F(x) at fixed x and adjoint."""

        def total(parts: list[Array]) -> Array:
            return self.loss(x, parts) + np.sum(adjoint * self.map(x, parts))

        return gradient(self.derivative, total, self.parameters)


def _double(leaf: Any) -> Array:
    array = np.asarray(leaf)
    return array.astype(np.float64) if array.dtype.kind == "f" else array
