"""Probe: how a framework takes one derivative; Case: what it is taken of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

from .._solver import AbstractSolver
from ..adjoints import Implicit
from .arrays import Array
from .layer import DIRECTION, INPUTS, LOSS, WEIGHT

_RTOL, _MAX_STEPS = 1e-12, 500


@dataclass(frozen=True, eq=False)
class Case:
    """The tanh layer on a framework's tensors. Every tensor that it hands out is a new one."""

    library: ModuleType
    """The backend package."""
    xp: Any
    """The framework's namespace in array-API style."""
    asarray: Callable[[Array], Any]
    solver: AbstractSolver
    levels: int | None
    """The order that the gradient strategy is asked for; None is every order."""
    way: str
    """How x reaches the map: "argument", "closure", or "both", one half of it by each."""

    @property
    def x(self) -> Any:
        """The input, (n,)."""
        return self.asarray(INPUTS[0])

    @property
    def batch(self) -> Any:
        """Inputs of several systems, (systems, n)."""
        return self.asarray(INPUTS)

    @property
    def direction(self) -> Any:
        """The direction of every product, (n,)."""
        return self.asarray(DIRECTION)

    @property
    def weight(self) -> Any:
        """The layer's weight, (n, n)."""
        return self.asarray(WEIGHT)

    def loss(self, x: Any) -> Any:
        """L as a function of x: a scalar."""
        return self.weigh(self.state(x))

    def state(self, x: Any, start: Any = None) -> Any:
        """z* as a function of x; leading axes of x index systems."""
        weight = self.weight
        shares = {"argument": (1.0, 0.0), "closure": (0.0, 1.0), "both": (0.5, 0.5)}
        passed, captured = shares[self.way]

        def f(z: Any, *args: Any) -> Any:
            parts = [passed * arg for arg in args] + ([captured * x] if captured else [])
            return self.layer(z, weight, sum(parts[1:], parts[0]))

        start = self.xp.zeros_like(x) if start is None else start
        return self.solve(f, start, (x,) if passed else ())

    def layer(self, z: Any, weight: Any, x: Any) -> Any:
        """The map itself."""
        return self.xp.tanh(self.xp.matmul(weight, z[..., None])[..., 0] + x)

    def solve(self, f: Callable[..., Any], start: Any, args: tuple[Any, ...] = ()) -> Any:
        """z* of a map on states (*batch, n), by the library."""
        return self.library.fixed_point(
            f,
            start,
            args,
            solver=self.solver,
            adjoint=Implicit(order=self.levels, on_failure="ignore"),
            rtol=_RTOL,
            max_steps=_MAX_STEPS,
            batch_ndim=len(start.shape) - 1,
            on_failure="ignore",
        ).value

    def weigh(self, z: Any) -> Any:
        """L as a function of z*."""
        return self.xp.sum(self.asarray(LOSS) * self.xp.exp(z))


class Probe(NamedTuple):
    """One derivative, as a framework spells it."""

    spelling: str
    """The framework's names, as a user would look them up."""
    compute: Callable[[Case], Any]
    """The derivative: an array, or several in a tuple."""


Key = tuple[int, str, str]
"""Order, mode and transform of a derivative."""
Probes = Mapping[Key, Probe]
