"""Numbers on the host: the part of `Ops` that eager frameworks share.

Per-system numbers are NumPy float64 arrays, or plain Python floats when there is no batch axis:
a step does a few dozen operations on them, and Python's cost a tenth of a tensor framework's.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from ._ops import Branch, Leaf, Number, Process


def _constant(make: Callable[[int], Number]) -> Callable[[int], Number]:
    """An array that is made once, and that nobody can write to: every solve shares it."""

    @lru_cache
    def made(length: int) -> Number:
        array = make(length)
        array.flags.writeable = False
        return array

    return made


class HostNamespace:
    """NumPy with a fast path for Python scalars, where NumPy's own overhead would dominate."""

    arange = staticmethod(_constant(np.arange))
    eye = staticmethod(_constant(np.eye))
    zeros_like = staticmethod(np.zeros_like)

    @staticmethod
    def where(mask: Number, a: Number, b: Number) -> Number:
        if isinstance(mask, np.ndarray):
            return np.where(mask, a, b)
        return a if mask else b

    @staticmethod
    def any(mask: Number) -> bool:
        # Counting is three times as fast as NumPy's own reductions of a short mask.
        return mask if mask is True or mask is False else bool(np.count_nonzero(mask))

    @staticmethod
    def all(mask: Number) -> bool:
        return mask if mask is True or mask is False else bool(np.count_nonzero(mask) == mask.size)

    @staticmethod
    def count(mask: Number) -> int:
        return int(np.count_nonzero(mask))

    @staticmethod
    def positions(mask: Number) -> Number:
        return np.flatnonzero(mask)

    @staticmethod
    def logical_not(mask: Number) -> Number:
        return ~mask if isinstance(mask, np.ndarray) else not mask

    @staticmethod
    def indicator(mask: Number) -> Number:
        return mask.astype(np.float64)

    @staticmethod
    def isfinite(x: Number) -> Number:
        return np.isfinite(x) if isinstance(x, np.ndarray) else math.isfinite(x)

    @staticmethod
    def sqrt(x: Number) -> Number:
        if isinstance(x, np.ndarray):
            return np.sqrt(x)
        return x**0.5 if x >= 0.0 else math.nan

    @staticmethod
    def reciprocal(x: Number) -> Number:
        return 1.0 / x if isinstance(x, np.ndarray) or x != 0.0 else math.inf

    @staticmethod
    def maximum(a: Number, b: Number) -> Number:
        if isinstance(a, np.ndarray):
            return np.maximum(a, b)
        return math.nan if a != a or b != b else max(a, b)

    @staticmethod
    def abs(x: Number) -> Number:
        return abs(x)

    @staticmethod
    def sum(x: Number) -> Number:
        # A short vector is added faster by Python.
        return sum(x.tolist()) if x.ndim == 1 else np.add.reduce(x, -1)

    @staticmethod
    def max(x: Number) -> Number:
        return np.maximum.reduce(x, -1)

    @staticmethod
    def transpose(x: Number) -> Number:
        return x.swapaxes(-1, -2)

    @staticmethod
    def matvec(matrix: Number, x: Number) -> Number:
        return matrix @ x if matrix.ndim == 2 else (matrix @ x[..., None])[..., 0]

    @staticmethod
    def roll(x: Number, places: int) -> Number:
        return np.concatenate([x[..., -places:], x[..., :-places]], axis=-1)


class HostNumbers:
    """Numbers, small solves and control flow of an eager framework; leaves are the adapter's."""

    traced = False
    roomy = False
    xp = HostNamespace

    def __init__(self, batch_ndim: int, eps: float) -> None:
        """Keep the number of batch axes and the unit of the state's precision."""
        self.batch_ndim = batch_ndim
        self.eps = eps

    def norm(self, x: tuple[Leaf, ...]) -> Number | None:
        """None: Python looks at the squares."""
        return None

    def numbers(self, leaf: Leaf, fill: float, shape: tuple[int, ...] = ()) -> Number:
        """A filled array of the batch shape plus ``shape``; a float if that is empty."""
        full = (*leaf.shape[: self.batch_ndim], *shape) if self.batch_ndim else shape
        if not full:
            return fill
        return np.full(full, fill) if fill else np.zeros(full)

    def scalar(self, value: Any) -> Any:
        """The value itself."""
        return value

    def tell(self, receive: Callable[..., Any], numbers: tuple[Number, ...]) -> None:
        """At once."""
        receive(*numbers)

    def solve(self, matrix: Number, right: Number) -> Number:
        """LU with partial pivoting; NaN where a matrix is exactly singular."""
        if _solve is not None:
            with np.errstate(all="ignore"):
                return _solve(matrix, right)
        try:
            right = np.broadcast_to(right, matrix.shape[:-1])
            return np.linalg.solve(matrix, right[..., None])[..., 0]
        except np.linalg.LinAlgError:
            return _solve_one_by_one(matrix, right)

    def take(self, tree: Any, systems: Number) -> Any:
        """Arrays of the systems at these positions; the adapter adds its own tensors."""
        if isinstance(tree, tuple):
            parts = [self.take(part, systems) for part in tree]
            kind: Any = type(tree)
            return kind(*parts) if hasattr(kind, "_fields") else tuple(parts)
        if not isinstance(tree, np.ndarray) or tree.ndim < self.batch_ndim:
            return tree
        return self._regrouped(self._systems_of(tree)[systems])

    def put(self, whole: Any, systems: Number, part: Any) -> Any:
        """A copy of ``whole`` with ``part`` at these positions."""
        if isinstance(whole, tuple):
            pairs = zip(whole, part, strict=True)
            return tuple([self.put(old, systems, new) for old, new in pairs])
        copy = np.array(whole, order="C")  # so that the batch axes as one are a view
        self._systems_of(copy)[systems] = self._systems_of(part)
        return copy

    def opened(self, tree: Any) -> Any:
        """As it is, but for the histories within; the adapter adds its own."""
        if not isinstance(tree, tuple):
            return tree
        parts = [self.opened(part) for part in tree]
        kind: Any = type(tree)
        return kind(*parts) if hasattr(kind, "_fields") else tuple(parts)

    def _systems_of(self, x: Any) -> Any:
        """x with its batch axes as one."""
        return x.reshape(-1, *x.shape[self.batch_ndim :])

    def _regrouped(self, x: Any) -> Any:
        """x with as many batch axes as f knows, all but the first of length 1."""
        return x.reshape(x.shape[0], *(1,) * (self.batch_ndim - 1), *x.shape[1:])

    def cut(self, tree: Any, keep: Number | None = None) -> Any:
        """As it is: no derivative passes through the host."""
        return tree

    def cond(self, predicate: bool, true: Branch, false: Branch, wait: bool = False) -> Any:
        """Python's if."""
        return true() if predicate else false()

    def loop(self, f: Callable[[Any], Any], process: Process, carry: Any) -> Any:
        """Python's while."""
        ops: Any = self  # the adapter adds the leaves
        update, active = process.update, process.active
        with np.errstate(all="ignore"):
            while active(ops, carry):
                carry = update(ops, carry, f(carry.z))
        return carry

    def report(self, number: Number, integer: bool = False) -> Any:
        """Python scalars without a batch, else a NumPy array."""
        if number.__class__ is float:
            return int(number) if integer else number
        if isinstance(number, np.ndarray):
            return number.astype(np.int32) if integer else number
        return int(number) if integer else float(number)


_solve: Callable[[Number, Number], Number] | None = None
try:  # what np.linalg.solve calls, without its checks: four microseconds of six for one system
    from numpy.linalg import _umath_linalg as _gufuncs

    _solve = getattr(_gufuncs, "solve1", None)
except ImportError:  # private, so it may go
    pass


def _solve_one_by_one(matrix: Number, right: Number) -> Number:
    right = np.broadcast_to(right, matrix.shape[:-1])
    out = np.full(right.shape, np.nan)
    for index in np.ndindex(right.shape[:-1]):
        try:
            out[index] = np.linalg.solve(matrix[index], right[index])
        except np.linalg.LinAlgError:
            continue  # this system's solver falls back; the others are untouched
    return out
