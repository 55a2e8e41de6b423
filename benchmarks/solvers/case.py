"""Case: a map in array-API style, where to start, where it is from, and its answer."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
RTOLS = (1e-3, 1e-6, 1e-9)


@dataclass(frozen=True, eq=False)
class Case:
    """z = map(xp, z, *args), in any framework whose namespace is xp."""

    name: str
    map: Callable[..., Any]
    source: str
    starts: tuple[Array, ...]
    args: tuple[Array, ...] = ()
    batch_ndim: int = 0
    """Leading axes that index independent systems; a solver without batches sees one system."""
    atol: float = 0.0
    """In units of rtol: what counts as zero where f(z) tends to 0, as for roots at the origin."""
    answer: Array | None = None
    """z*, where it is known in closed form."""
    unique: bool = True
    """Whether there is one fixed point near all starts."""

    @property
    def f(self) -> Callable[[Array], Array]:
        """The map in NumPy, a function of z alone."""
        return lambda z: self.map(np, z, *self.args)

    def bound(self, xp: Any, args: Any) -> Callable[[Any], Any]:
        """The map on tensors of a framework."""
        return lambda z: partial(self.map, xp)(z, *args)

    def certified(self, z: Array, f: Array, rtol: float) -> bool:
        """‖f − z‖ ≤ rtol (atol + ‖f‖) in every system, by NumPy alone."""
        shape = (*z.shape[: self.batch_ndim], -1)
        with np.errstate(all="ignore"):
            error = np.linalg.norm((f - z).reshape(shape), axis=-1)
            size = np.linalg.norm(f.reshape(shape), axis=-1)
        return bool(
            np.all(error <= rtol * (self.atol + size) * (1 + 1e-12))
            and np.isfinite(size).all()  # or a diverging iterate, whose squares overflow, passes
        )


def refined(case: Case, z: Array) -> Array:
    """z* to rounding, by Newton's method with a dense Jacobian of central differences."""
    f, shape = case.f, z.shape
    best, least = z, np.inf
    for _ in range(60):
        r = (f(z) - z).ravel()
        size = float(np.linalg.norm(r))
        if not size < least:
            break
        best, least = z, size
        step = 6e-6 * (1.0 + np.abs(z).max())
        columns = [
            (f(z + d) - f(z - d)).ravel() / (2 * step)
            for d in step * np.eye(z.size).reshape(-1, *shape)
        ]
        jacobian = np.eye(z.size) - np.stack(columns, axis=1)
        z = z + np.linalg.lstsq(jacobian, r, rcond=None)[0].reshape(shape)
    return best
