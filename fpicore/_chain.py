"""The good Broyden inverse Jacobian as a chain of steps: −H_{j+1} = (I + b_j s_jᵀ/σ_j)(−H_j)."""

from dataclasses import dataclass
from typing import NamedTuple

from . import _tree as tree
from ._numbers import column, one_hot, outer, set_symmetric
from ._ops import Number, Ops
from ._secants import SMALLEST_PIVOT, first_scale, pair_scale
from ._solver import Point
from ._tree import Histories, Leaves


class State(NamedTuple):
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
    scale: Number
    """γ: H restarts at −γI."""
    age: Number
    """Steps since the memory was emptied, not beyond 2; where it is 1, γ is taken from the step."""


@dataclass(frozen=True)
class Chain:
    """At most ``history`` pairs, from −H = γI; γ is 1 unless it is ``scaled``."""

    history: int
    scaled: bool

    @property
    def _slots(self) -> int:
        return self.history + 2  # the chain, its b after a restart, and the slot to write next

    def init(self, ops: Ops, z: Leaves) -> State:
        """An empty memory."""
        return State(
            steps=tree.history(ops, z, self._slots),
            gram=ops.numbers(z[0], 0.0, (self._slots, self._slots)),
            transfer=ops.numbers(z[0], 0.0, (self._slots, self._slots)),
            last=ops.scalar(self._slots - 1.0),
            length=ops.scalar(0.0),
            residual=z,
            scale=ops.numbers(z[0], 1.0),
            age=ops.numbers(z[0], 0.0),
        )

    def step(self, ops: Ops, point: Point, state: State) -> tuple[Leaves, State]:
        """−H r, and the memory with it; γr, and an empty memory, where that breaks down."""
        xp, r = ops.xp, point.residual
        state = self._begun(ops, point, state) if self.scaled else state
        state = self._restart_if_full(ops, state, point)
        newest = xp.indicator(one_hot(ops, state.last, self._slots))
        products = column(ops, state.scale) * tree.project(ops, state.steps, r)
        c = xp.matvec(state.transfer, products)
        pivot = 1.0 - xp.sum(c * newest)
        # The last c has no b yet: it is in the pivot.
        weights = xp.roll(c * (1.0 - newest), 1)
        finite = xp.isfinite(xp.sum(weights) * xp.reciprocal(pivot))
        sound = finite & (xp.abs(pivot) > SMALLEST_PIVOT)
        pivot = xp.where(sound, pivot, 1.0)
        kept = column(ops, sound)
        weights = xp.where(kept, weights / column(ops, pivot), xp.zeros_like(weights))
        plain = tree.scale(ops, state.scale / pivot, r)
        s = tree.add(plain, tree.combine(ops, weights, state.steps, r))
        products = products / column(ops, pivot) + xp.matvec(state.gram, weights)
        return s, self._append(ops, state, s, products, kept, r)

    def renew(self, ops: Ops, mask: Number, point: Point, state: State, count: Number) -> State:
        """H = −γI; no pair has its first half in what was before."""
        where, block = ops.xp.where, column(ops, column(ops, mask))
        last, length = self.clock(ops, count)
        state = state._replace(
            transfer=where(block, ops.xp.zeros_like(state.transfer), state.transfer),
            last=last,
            length=length,
            residual=tree.select(ops, mask, point.residual, state.residual),
        )
        if not self.scaled:
            return state
        scale = where(mask, first_scale(ops, point), state.scale)
        return state._replace(scale=scale, age=where(mask, 0.0, state.age))

    def clock(self, ops: Ops, count: Number) -> tuple[Number, Number]:
        """``last`` and ``length`` after so many steps: a restart takes one more slot."""
        where, beyond = ops.xp.where, count - (2.0 if self.scaled else self.history + 2.0)
        phase = beyond % self.history
        again = where(beyond >= 0.0, (beyond - phase) / self.history + 1.0, ops.scalar(0.0))
        length = where(beyond >= 0.0, phase + 2.0, count)
        return (count + again - 1.0) % self._slots, length

    def inverse(self, ops: Ops, state: State, v: Leaves, tangent: bool) -> Leaves:
        """−Hv = γ(v + Σ_j b_j c_j) with c = T Sᵀv, or its transpose γ(v + S Tᵀ Bᵀv).

        The newest step has no b yet and is left out.
        """
        xp = ops.xp
        known = 1.0 - xp.indicator(one_hot(ops, state.last, self._slots))
        products = tree.project(ops, state.steps, v)
        if tangent:
            weights = xp.roll(xp.matvec(state.transfer, products) * known, 1)
        else:
            weights = xp.matvec(xp.transpose(state.transfer), xp.roll(products, -1) * known)
        return tree.scale(ops, state.scale, tree.add(v, tree.combine(ops, weights, state.steps, v)))

    def _append(
        self, ops: Ops, state: State, s: Leaves, products: Number, kept: Number, r: Leaves
    ) -> State:
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
        return state._replace(
            steps=tree.store(ops, state.steps, slot, s),
            gram=set_symmetric(ops, state.gram, slot, row),
            transfer=xp.where(here[:, None] > 0.0, added[..., None, :], transfer),
            last=slot,
            length=state.length + 1.0,
            residual=r,
        )

    def _begun(self, ops: Ops, point: Point, state: State) -> State:
        """γ of a first step, and of what it has shown where no restart will tell."""
        xp, first = ops.xp, state.length < 1.0
        shown = (state.age > 0.0) & (state.age < 2.0)
        age = xp.where(state.age < 2.0, state.age + 1.0, state.age)
        state = state._replace(age=age)
        if not ops.traced and not first and not xp.any(shown):
            return state
        s, y = self._newest(ops, state, point)
        scale = xp.where(shown, pair_scale(ops, s, y, state.scale), state.scale)
        scale = xp.where(first, first_scale(ops, point), scale)
        shown = column(ops, column(ops, shown))
        transfer = xp.where(shown, xp.zeros_like(state.transfer), state.transfer)
        return state._replace(scale=scale, transfer=transfer)

    def _newest(self, ops: Ops, state: State, point: Point) -> tuple[Leaves, Leaves]:
        """The newest pair."""
        newest = ops.xp.indicator(one_hot(ops, state.last, self._slots))
        weights = ops.xp.zeros_like(state.gram)[..., 0] + newest
        s = tree.combine(ops, weights, state.steps, point.residual)
        return s, tree.subtract(point.residual, state.residual)

    def _restart_if_full(self, ops: Ops, state: State, point: Point) -> State:
        """Reduce a full memory to its newest pair; b takes the slot after the newest step."""
        slot, r = (state.last + 1.0) % self._slots, point.residual
        full = state.length > self.history
        if self.scaled:  # the first pair likewise
            full = full | (state.length == 1.0)
        if not ops.traced and not full:
            return state
        same = (r, state.gram, state.transfer, state.last, state.length, state.scale)
        b, gram, transfer, last, length, scale = ops.cond(
            full, lambda: self._newest_pair(ops, state, slot, point), lambda: same
        )
        # Where nothing restarts, r is written to a slot that the next step overwrites.
        return state._replace(
            steps=tree.store(ops, state.steps, slot, b),
            gram=gram,
            transfer=transfer,
            last=last,
            length=length,
            scale=scale,
        )

    def _newest_pair(
        self, ops: Ops, state: State, slot: Number, point: Point
    ) -> tuple[Leaves, Number, Number, Number, Number, Number]:
        """b, the matrices of a chain of one step, and γ."""
        xp = ops.xp
        newest = xp.indicator(one_hot(ops, state.last, self._slots))
        beside = xp.indicator(one_hot(ops, slot, self._slots))
        zero = xp.zeros_like(state.gram)
        s, y = self._newest(ops, state, point)
        scale = pair_scale(ops, s, y, state.scale) if self.scaled else state.scale
        sigma, curvature = tree.dot(ops, s, s), scale * tree.dot(ops, s, y)
        # Products that left the range of the numbers must not reach the memory as b.
        factor = -sigma * xp.reciprocal(curvature)
        sound = xp.isfinite(factor)
        b = tree.add(s, tree.scale(ops, scale, y))
        b = tree.scale(ops, xp.where(sound, factor, ops.scalar(0.0)), b)
        gram = zero + _block(ops, sigma, outer(newest, newest))
        gram = gram + _block(ops, tree.dot(ops, s, b), outer(newest, beside))
        gram = gram + _block(ops, tree.dot(ops, s, b), outer(beside, newest))
        gram = gram + _block(ops, tree.dot(ops, b, b), outer(beside, beside))
        inverse = xp.where(sound, xp.reciprocal(sigma), ops.scalar(0.0))
        transfer = zero + _block(ops, inverse, outer(newest, newest))
        return b, gram, transfer, slot, ops.scalar(1.0), scale


def _block(ops: Ops, s: Number, matrix: Number) -> Number:
    return column(ops, column(ops, s)) * matrix
