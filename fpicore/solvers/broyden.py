"""Broyden's method with limited memory."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from .. import _tree as tree
from .._numbers import column, one_hot, set_symmetric
from .._ops import Number, Ops
from .._options import check_count
from .._solver import AbstractSolver, Point
from .._tree import Histories, Leaves


class _State(NamedTuple):
    steps: Histories
    gram: Number
    count: Number
    first: Number


@dataclass(frozen=True)
class Broyden(AbstractSolver):
    """Broyden's good method on r(z) = f(z) − z, restarted when its memory is full.

    The inverse Jacobian starts at −I, so that the first step is the plain step. With the steps
    s_j and σ_j = ‖s_j‖² it is −Π_j (I + s_{j+1} s_jᵀ/σ_j), hence the next step is
    s = p / (1 − s_kᵀp/σ_k), p = r + Σ_{j<k} c_j s_{j+1}, where c solves the unit lower triangular
    system c_j = (s_jᵀr + Σ_{i<j} c_i s_jᵀs_{i+1})/σ_j. Only the steps are stored, and only their
    Gram matrix enters: a step reads the memory twice, whatever its length. Broyden (1965);
    Kelley, Iterative Methods for Linear and Nonlinear Equations (SIAM 1995), §7.3.

    When the memory is full it is emptied. Dropping the oldest pair instead loses the secant
    equations that the later pairs were built on.

    Attributes:
        history: pairs stored before a restart, ≥ 1.

    Raises:
        InputError: history is not a positive integer.
    """

    history: int = 20
    name: ClassVar[str] = "broyden"

    def __post_init__(self) -> None:
        check_count("history", self.history, 1)

    def init(self, ops: Ops, z: Leaves) -> _State:
        """An empty memory."""
        return _State(
            steps=tree.history(ops, z, self.history),
            gram=ops.numbers(z[0], 0.0, (self.history, self.history)),
            count=ops.scalar(0.0),
            first=ops.numbers(z[0], 0.0),
        )

    def step(self, ops: Ops, point: Point, state: _State) -> tuple[Leaves, _State]:
        """The quasi-Newton step; a plain one, and an empty memory, where it breaks down."""
        xp, count = ops.xp, state.count
        onto = tree.project(ops, state.steps, point.residual)
        weights, pivot = self._coefficients(ops, state, onto)
        sound = xp.isfinite(xp.sum(weights) / pivot) & (xp.abs(pivot) > 1e-12)
        pivot = xp.where(sound, pivot, 1.0)
        weights = xp.where(column(ops, sound), weights, 0.0) / column(ops, pivot)
        plain = tree.scale(ops, 1.0 / pivot, point.residual)
        s = tree.add(plain, tree.combine(ops, weights, state.steps, point.f))

        products = onto / column(ops, pivot) + xp.matvec(state.gram, weights)
        slot = xp.minimum(count, self.history - 1.0)
        newest = one_hot(ops, slot, self.history)
        row = xp.where(newest, column(ops, tree.dot(ops, s, s)), products)
        full = count >= self.history
        memory = _State(
            steps=tree.store(ops, state.steps, slot, s),
            gram=set_symmetric(ops, state.gram, slot, row),
            count=xp.where(full, 0.0, count + 1.0),
            first=xp.where(full, 0.0, xp.where(sound, state.first, count)),
        )
        return tree.add(point.z, s), memory

    def _coefficients(self, ops: Ops, state: _State, onto: Number) -> tuple[Number, Number]:
        """Weights of the stored steps in p, and the denominator 1 − s_kᵀp/σ_k, per system."""
        xp, slots = ops.xp, ops.xp.arange(self.history)
        held = (slots >= column(ops, state.first)) & (slots < state.count)
        sigma = xp.where(held, xp.diagonal(state.gram), 1.0)
        # Entry (j, i) is s_jᵀs_{i+1}/σ_j for i < j, both held.
        ahead = xp.shift_left(state.gram) / sigma[..., :, None]
        coupled = held[..., :, None] & held[..., None, :] & (slots[:, None] > slots[None, :])
        matrix = xp.eye(self.history) - xp.where(coupled, ahead, 0.0)
        c = ops.solve(matrix, xp.where(held, onto / sigma, 0.0))
        last = xp.sum(xp.where(slots == state.count - 1.0, c, 0.0))
        weights = xp.where(slots < state.count, xp.shift_right(c), 0.0)
        return weights, 1.0 - last
