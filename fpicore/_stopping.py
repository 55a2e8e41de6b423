"""Norms and the stopping rule: when is an iterate good enough, system by system."""

from collections.abc import Callable
from functools import partial, reduce
from operator import and_
from typing import NamedTuple

from . import _tree as tree
from ._errors import InputError
from ._ops import Number, Ops, Precision
from ._tree import Leaves

NORMS = ("l2", "rms", "max")

DEFAULT_RTOL = 1e-4

PATIENCE = 64
"""Steps without a better residual after which a system counts as stagnated; a quarter of
``max_steps`` if that is more. Long enough for the transient growth of non-normal maps and for
Anderson's non-monotone stretches, short against a large ``max_steps`` spent in a cycle or at
rounding level."""

MARGIN = 2.0
"""An error that exceeds a bound on its tolerance this many times is too large, whatever the
rounding in either of them."""

RESOLUTION = 4.0
"""A relative residual below this many units of the dtype cannot be reached reliably, because
f(z) - z is itself rounded at that level."""


class Tolerance(NamedTuple):
    """Convergence means ‖f(z) − z‖ ≤ atol + rtol·‖f(z)‖, per system."""

    rtol: float
    atol: float
    norm: str
    precision: Precision

    def threshold(self, ops: Ops, f: Leaves) -> Number:
        """Per system atol + rtol·‖f‖."""
        if self.rtol == 0.0:
            return ops.numbers(f[0], self.atol)
        return self._allowed(self.measure(ops, f))

    def measure(self, ops: Ops, x: Leaves) -> Number:
        """Per system the norm of x; right even where squares over- or underflow."""
        if self.norm == "l2":
            return euclidean(ops, x, self.precision)
        if self.norm == "max":
            return tree.peak(ops, x)
        return euclidean(ops, x, self.precision) / _root_of_size(ops, x)

    def sides(self, ops: Ops, residual: Leaves, f: Leaves, z: Leaves) -> tuple[Number, Number]:
        """Both sides of the test, ‖f − z‖ and its threshold, for traced code: in one branch."""
        if self.norm == "max" or self.rtol == 0.0:
            return self.measure(ops, residual), self.threshold(ops, f)
        vectors = (residual, partial(tree.subtract, f, z)), (f, lambda: f)
        error, size = _euclidean(ops, vectors, self.precision)
        if self.norm == "rms":
            root = _root_of_size(ops, f)
            error, size = error / root, size / root
        return error, self._allowed(size)

    def _allowed(self, size: Number) -> Number:
        relative = self.rtol * size
        return relative if self.atol == 0.0 else self.atol + relative


def euclidean(ops: Ops, x: Leaves, precision: Precision) -> Number:
    """Per system ‖x‖₂, rescaled by the peak only where the plain sum of squares is unsafe."""
    if ops.traced:
        return _euclidean(ops, ((x, lambda: x),), precision)[0]
    squares = ops.dot(x[0], x[0]) if len(x) == 1 else tree.dot(ops, x, x)
    if squares.__class__ is float and precision.tiny < squares < precision.huge:
        return squares**0.5  # one system on the host: spare it the machinery of masks
    safe = (precision.tiny < squares) & (squares < precision.huge)
    if ops.xp.all(safe):
        return ops.xp.sqrt(squares)
    return _rescaled(ops, x, squares, safe, precision)


def _euclidean(
    ops: Ops, vectors: tuple[tuple[Leaves, Callable[[], Leaves]], ...], precision: Precision
) -> tuple[Number, ...]:
    """The norms of several vectors of traced code, with one branch where any of them is unsafe.

    What a branch reads must lie in memory. So each vector comes with a way to make it of what
    there is anyway: a compiler may then sum the squares of one that it writes nowhere.
    """
    norms = tuple([ops.norm(x) for x, _ in vectors])
    if norms[0] is not None:
        return norms
    squares = [tree.dot(ops, x, x) for x, _ in vectors]
    roots = lambda: tuple([ops.xp.sqrt(s) for s in squares])  # noqa: E731
    if ops.roomy:
        return roots()
    safe = [(precision.tiny < s) & (s < precision.huge) for s in squares]

    def rescaled() -> tuple[Number, ...]:
        triples = zip(vectors, squares, safe, strict=True)
        return tuple([_rescaled(ops, make(), s, ok, precision) for (_, make), s, ok in triples])

    return ops.cond(reduce(and_, map(ops.xp.all, safe)), roots, rescaled)


def _rescaled(ops: Ops, x: Leaves, squares: Number, safe: Number, precision: Precision) -> Number:
    """By the peak. Systems that were safe keep their plain value: lest the batch be felt."""
    xp, top = ops.xp, tree.peak(ops, x)
    least = precision.smallest
    unit = xp.where((top > least) & (top < float("inf")), top, ops.scalar(least))
    # Below the normal numbers a reciprocal is zero to XLA, and so would be the norm.
    unit = xp.where(unit < precision.huge, unit, ops.scalar(precision.huge))
    shrunk = tree.scale(ops, 1.0 / unit, x)
    by_peak = unit * xp.sqrt(tree.dot(ops, shrunk, shrunk))
    by_peak = xp.where(top < float("inf"), by_peak, top)
    return xp.where(safe, xp.sqrt(squares), by_peak)


def clamp_rtol(rtol: float, precision: Precision) -> float:
    """The rtol that the dtype can honour."""
    return max(rtol, RESOLUTION * precision.eps)


def check_norm(norm: str) -> None:
    """Raise `InputError` unless ``norm`` is known."""
    if norm not in NORMS:
        raise InputError(f"expected norm to be one of {NORMS}, received {norm!r}")


def _root_of_size(ops: Ops, x: Leaves) -> float:
    total = 0
    for leaf in x:
        size = 1
        for extent in leaf.shape[ops.batch_ndim :]:
            size *= int(extent)
        total += size
    return float(total) ** 0.5
