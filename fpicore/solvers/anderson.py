"""Anderson acceleration."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from .. import _tree as tree
from .._numbers import column, one_hot, set_entry, set_symmetric
from .._ops import Number, Ops
from .._options import check_count, check_interval
from .._solver import AbstractSolver, Point
from .._tree import Histories, Leaves


class _State(NamedTuple):
    values: Histories
    residuals: Histories
    gram: Number
    """Products of the residuals, the diagonal times 1 + λ; identity where a slot is empty."""
    filled: Number
    """1 where a slot holds a pair, else 0."""
    count: Number
    mixed: Number
    error: Number


@dataclass(frozen=True)
class Anderson(AbstractSolver):
    """Anderson acceleration, type II, over the last ``history + 1`` pairs (f_i, r_i = f_i − z_i).

    z ← Σ α_i (f_i − (1 − mixing)·r_i), where α minimises ‖Σ α_i r_i‖² + λ Σ α_i² ‖r_i‖² subject
    to Σ α_i = 1. With the Gram matrix G_ij = <r_i, r_j> scaled to a unit diagonal that is
    (G + λI) α ∝ 1, so the ridge λ is relative to each residual: it neither fades nor dominates
    as residuals shrink. One row of G is new in a step, so a step reads each history once. After
    a mixed step that increased the residual the next step is a plain one. Anderson (1965);
    Walker and Ni, SIAM J. Numer. Anal. 49 (2011), 1715.

    Attributes:
        history: residual differences used, ≥ 1.
        mixing: weight β of the residual in the mixed step, 0 < mixing ≤ 1.
        regularization: λ, relative; raised to 16 units of the state's precision.

    Raises:
        InputError: an attribute is out of its range.
    """

    history: int = 5
    mixing: float = 1.0
    regularization: float = 1e-10
    name: ClassVar[str] = "anderson"

    def __post_init__(self) -> None:
        check_count("history", self.history, 1)
        check_interval("mixing", self.mixing, 0.0, 1.0)
        check_interval("regularization", self.regularization, 0.0, 1.0)

    def init(self, ops: Ops, z: Leaves) -> _State:
        """Empty histories."""
        length = self.history + 1
        return _State(
            values=tree.history(ops, z, length),
            residuals=tree.history(ops, z, length),
            gram=ops.numbers(z[0], 0.0, (length, length)) + ops.xp.eye(length),
            filled=ops.numbers(z[0], 0.0, (length,)),
            count=ops.scalar(0.0),
            mixed=ops.numbers(z[0], 0.0) > 1.0,
            error=ops.numbers(z[0], float("inf")),
        )

    def step(self, ops: Ops, point: Point, state: _State) -> tuple[Leaves, _State]:
        """Mix the stored values; a plain step where mixing made things worse last time."""
        xp, length = ops.xp, self.history + 1
        ridge = max(self.regularization, 16.0 * ops.eps)
        slot = state.count % length
        values = tree.store(ops, state.values, slot, point.f)
        residuals = tree.store(ops, state.residuals, slot, point.residual)
        row = tree.project(ops, residuals, point.residual)
        gram = set_symmetric(ops, state.gram, slot, row, growth=1.0 + ridge)
        filled = set_entry(ops, state.filled, slot, 1.0)
        alpha = ops.solve(gram, filled)
        alpha = alpha / column(ops, xp.sum(alpha))
        sound = xp.isfinite(xp.sum(alpha))
        mixed = sound & xp.logical_not(state.mixed & (point.error > state.error))
        if ops.traced or not xp.all(mixed):
            plain = xp.indicator(one_hot(ops, slot, length))
            alpha = xp.where(column(ops, mixed), alpha, plain)
        z = tree.combine(ops, alpha, values, point.f)
        if self.mixing < 1.0:
            excess = tree.combine(ops, (1.0 - self.mixing) * alpha, residuals, point.f)
            z = tree.subtract(z, excess)
        return z, _State(values, residuals, gram, filled, state.count + 1, mixed, point.error)

    def inverse(self, ops: Ops, state: _State, v: Leaves, tangent: bool) -> Leaves:
        """v + F K Rᵀv, the inverse that type II implies, or its transpose v + R K Fᵀv.

        The columns of F and R are the stored values and residuals, and K maps b to the β that
        minimises ‖Rβ + r‖ with Rᵀr = b, subject to Σ β_i = 0.
        """
        near, far = state.residuals, state.values
        if not tangent:
            near, far = far, near
        x = ops.solve(state.gram, tree.project(ops, near, v) * state.filled)
        y = ops.solve(state.gram, state.filled)
        total = ops.xp.sum(y)
        total = ops.xp.where(total > 0.0, total, ops.scalar(1.0))  # zero while nothing is stored
        beta = column(ops, ops.xp.sum(x) / total) * y - x
        return tree.add(v, tree.combine(ops, beta, far, v))
