"""Broyden's method with limited memory."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from .. import _tree as tree
from .._numbers import column, one_hot, outer, set_symmetric
from .._ops import Number, Ops
from .._options import check_count
from .._solver import AbstractSolver, Point
from .._tree import Histories, Leaves


class _State(NamedTuple):
    steps: Histories
    gram: Number
    """Products of the slots with each other."""
    transfer: Number
    """T with c = T·(s_jᵀr)_j; a slot that holds no step of the chain has a zero row."""
    last: Number
    """Slot of the newest step."""
    length: Number
    """Steps in the chain: the pairs that it will have at the next residual."""
    residual: Leaves


_SMALLEST_PIVOT = 1e-12
"""A denominator below this, where 1 is normal, is rounding, and the step would be too."""


@dataclass(frozen=True)
class Broyden(AbstractSolver):
    """Broyden's good method on r(z) = f(z) − z with the inverse Jacobian H = −I at the start.

    Each step s_j = −H_j r_j updates H_{j+1} = (I + b_j s_jᵀ/σ_j) H_j, σ_j = ‖s_j‖², where b_j
    turns out to be the next step s_{j+1}. Hence s = (r + Σ_{j<k} c_j b_j)/(1 − c_k) with
    c_j = (s_jᵀr + Σ_{i<j} c_i s_jᵀb_i)/σ_j: only the steps are stored, and only their Gram matrix
    enters the recurrence, which is kept as a matrix that gains a row a step. A step reads the
    memory twice, whatever its length. When the memory is full, it is emptied and H restarts at
    −I, updated by the newest pair (s, y) alone: there b = −(s + y)·σ/(sᵀy) is known and stored
    like a step. Dropping the oldest pair instead would lose the secant equations that the later
    pairs were built on. Broyden, Math. Comp. 19 (1965), 577; Kelley, Iterative Methods for
    Linear and Nonlinear Equations (SIAM 1995), §7.3.

    Attributes:
        history: most pairs in use, ≥ 1.

    Raises:
        InputError: history is not a positive integer.
    """

    history: int = 20
    name: ClassVar[str] = "broyden"

    def __post_init__(self) -> None:
        check_count("history", self.history, 1)

    @property
    def _slots(self) -> int:
        return self.history + 2  # the chain, its b after a restart, and the slot to write next

    def init(self, ops: Ops, z: Leaves) -> _State:
        """An empty memory."""
        return _State(
            steps=tree.history(ops, z, self._slots),
            gram=ops.numbers(z[0], 0.0, (self._slots, self._slots)),
            transfer=ops.numbers(z[0], 0.0, (self._slots, self._slots)),
            last=ops.scalar(self._slots - 1.0),
            length=ops.scalar(0.0),
            residual=z,
        )

    def step(self, ops: Ops, point: Point, state: _State) -> tuple[Leaves, _State]:
        """The quasi-Newton step; a plain one, and an empty memory, where it breaks down."""
        xp, r = ops.xp, point.residual
        state = self._restart_if_full(ops, state, r)
        newest = xp.indicator(one_hot(ops, state.last, self._slots))
        products = tree.project(ops, state.steps, r)
        c = xp.matvec(state.transfer, products)
        pivot = 1.0 - xp.sum(c * newest)
        # The last c has no b yet: it is in the pivot.
        weights = xp.roll(c * (1.0 - newest), 1)
        finite = xp.isfinite(xp.sum(weights) * xp.reciprocal(pivot))
        sound = finite & (xp.abs(pivot) > _SMALLEST_PIVOT)
        pivot = xp.where(sound, pivot, 1.0)
        kept = column(ops, sound)
        weights = xp.where(kept, weights / column(ops, pivot), xp.zeros_like(weights))
        plain = tree.scale(ops, 1.0 / pivot, r)
        s = tree.add(plain, tree.combine(ops, weights, state.steps, r))
        products = products / column(ops, pivot) + xp.matvec(state.gram, weights)
        return tree.add(point.z, s), self._append(ops, state, s, products, kept, r)

    def inverse(self, ops: Ops, state: _State, v: Leaves, tangent: bool) -> Leaves:
        """−Hv = v + Σ_j b_j c_j with c = T Sᵀv, or its transpose v + S Tᵀ Bᵀv.

        The newest step has no b yet and is left out.
        """
        xp = ops.xp
        known = 1.0 - xp.indicator(one_hot(ops, state.last, self._slots))
        products = tree.project(ops, state.steps, v)
        if tangent:
            weights = xp.roll(xp.matvec(state.transfer, products) * known, 1)
        else:
            weights = xp.matvec(xp.transpose(state.transfer), xp.roll(products, -1) * known)
        return tree.add(v, tree.combine(ops, weights, state.steps, v))

    def _append(
        self, ops: Ops, state: _State, s: Leaves, products: Number, kept: Number, r: Leaves
    ) -> _State:
        """The memory with s, whose products with the slots are known; emptied where not kept."""
        xp = ops.xp
        slot = (state.last + 1.0) % self._slots
        here = xp.indicator(one_hot(ops, slot, self._slots))
        sigma = column(ops, tree.dot(ops, s, s))
        row = xp.where(kept, products, xp.zeros_like(products)) * (1.0 - here) + sigma * here
        kept = column(ops, kept)
        transfer = xp.where(kept, state.transfer, xp.zeros_like(state.transfer))
        coupling = xp.matvec(xp.transpose(transfer), xp.roll(row, -1) * (1.0 - here))
        added = (coupling + here) / sigma
        return _State(
            steps=tree.store(ops, state.steps, slot, s),
            gram=set_symmetric(ops, state.gram, slot, row),
            transfer=xp.where(here[:, None] > 0.0, added[..., None, :], transfer),
            last=slot,
            length=state.length + 1.0,
            residual=r,
        )

    def _restart_if_full(self, ops: Ops, state: _State, r: Leaves) -> _State:
        """Reduce a full memory to its newest pair; b takes the slot after the newest step."""
        slot = (state.last + 1.0) % self._slots
        full = state.length > self.history
        if not ops.traced and not full:
            return state
        unchanged = lambda: (r, state.gram, state.transfer, state.last, state.length)  # noqa: E731
        b, gram, transfer, last, length = ops.cond(
            full, lambda: self._newest_pair(ops, state, slot, r), unchanged
        )
        # Where nothing restarts, r is written to a slot that the next step overwrites.
        steps = tree.store(ops, state.steps, slot, b)
        return _State(steps, gram, transfer, last, length, r)

    def _newest_pair(
        self, ops: Ops, state: _State, slot: Number, r: Leaves
    ) -> tuple[Leaves, Number, Number, Number, Number]:
        """b, and the matrices of a chain of one step."""
        xp = ops.xp
        newest = xp.indicator(one_hot(ops, state.last, self._slots))
        beside = xp.indicator(one_hot(ops, slot, self._slots))
        zero = xp.zeros_like(state.gram)
        s = tree.combine(ops, zero[..., 0] + newest, state.steps, r)
        y = tree.subtract(r, state.residual)
        sigma, curvature = tree.dot(ops, s, s), tree.dot(ops, s, y)
        # Products that left the range of the numbers must not reach the memory as b.
        factor = -sigma * xp.reciprocal(curvature)
        sound = xp.isfinite(factor)
        b = tree.scale(ops, xp.where(sound, factor, ops.scalar(0.0)), tree.add(s, y))
        gram = zero + _block(ops, sigma, outer(newest, newest))
        gram = gram + _block(ops, tree.dot(ops, s, b), outer(newest, beside))
        gram = gram + _block(ops, tree.dot(ops, s, b), outer(beside, newest))
        gram = gram + _block(ops, tree.dot(ops, b, b), outer(beside, beside))
        inverse = xp.where(sound, xp.reciprocal(sigma), ops.scalar(0.0))
        transfer = zero + _block(ops, inverse, outer(newest, newest))
        return b, gram, transfer, slot, ops.scalar(1.0)


def _block(ops: Ops, s: Number, matrix: Number) -> Number:
    return column(ops, column(ops, s)) * matrix
