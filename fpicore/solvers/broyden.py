"""Broyden's method with limited memory."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from .. import _tree as tree
from .._errors import InputError
from .._numbers import column, one_hot, outer, set_symmetric
from .._ops import Number, Ops
from .._options import check_count
from .._search import Search, no_search, renewed, searched
from .._secants import SMALLEST_PIVOT, Updates, inverse, no_updates, quasi_newton, updated
from .._solver import AbstractStage, Point
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


_KINDS = ("good", "bad")


@dataclass(frozen=True)
class Broyden(AbstractStage):
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

    The bad method has the least change of H that maps y_j = r_{j+1} − r_j to s_j:
    H_{j+1} = H_j + (s_j − H_j y_j) y_jᵀ/‖y_j‖², kept as the sums s_j − H_j y_j and y_j, and emptied
    when it is full. It stores twice as much. On contractions it often needs fewer evaluations, as
    type II of Anderson's method does, on expansive maps it fails more often. Broyden (1965), the
    second method; Kvaalen, BIT 31 (1991), 369.

    With ``line_search`` the step is −λHr. z + s is taken if ‖r‖ there is at most
    (1 + η_k − σλ²)‖r‖, η_k = 10/(k + 1)² after k steps taken, σ = 10⁻⁴. Where it is not, its pair
    updates H all the same, and a shorter step from z is next, with the new H; λ is the minimiser of
    a parabola, 0.1 to 0.5 of the last, and a quarter of it where f is not finite, from where the
    search goes back. λ ≤ 0.3 is taken come what may, unless f is not finite down to λ ≤ 10⁻³: then
    the next step is plain, with an empty memory. The memory is that of the bad method for both
    kinds, of the good one with H_jᵀs_j in place of y_j. ‖·‖ is the norm of the stopping rule. For
    maps on which the steps are too long: of the 279 solves of benchmarks/solvers the good method
    fails on 25 with it and on 50 without, the bad one on 66 and 73; where both converge it needs
    9 % more evaluations in the median, and on a few many times as many. Li and Fukushima, Optim.
    Methods Softw. 13 (2000), 181, whose rule has the square of the step in place of λ²‖r‖.

    Attributes:
        history: most pairs in use, ≥ 1.
        kind: "good" or "bad".
        line_search: whether steps that let ‖r‖ grow too much are shortened.

    Raises:
        InputError: history is not a positive integer, the kind is unknown, or line_search neither
            True nor False.
    """

    history: int = 20
    kind: str = "good"
    line_search: bool = False
    name: ClassVar[str] = "broyden"

    def __post_init__(self) -> None:
        check_count("history", self.history, 1)
        if self.kind not in _KINDS:
            raise InputError(f"expected kind to be one of {_KINDS}, received kind={self.kind!r}")
        if not isinstance(self.line_search, bool):
            raise InputError(
                f"expected line_search to be True or False, received {self.line_search!r}"
            )

    @property
    def tentative(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether steps may be taken back."""
        return self.line_search

    @property
    def _slots(self) -> int:
        return self.history + 2  # the chain, its b after a restart, and the slot to write next

    def init(self, ops: Ops, z: Leaves) -> "_State | Updates | Search":
        """An empty memory."""
        if self.line_search:
            return no_search(ops, z, self.history)
        if self.kind == "bad":
            return no_updates(ops, z, self.history)
        return _State(
            steps=tree.history(ops, z, self._slots),
            gram=ops.numbers(z[0], 0.0, (self._slots, self._slots)),
            transfer=ops.numbers(z[0], 0.0, (self._slots, self._slots)),
            last=ops.scalar(self._slots - 1.0),
            length=ops.scalar(0.0),
            residual=z,
        )

    def step(self, ops: Ops, point: Point, state: Any) -> tuple[Leaves, Any]:
        """The quasi-Newton step; a plain one, and an empty memory, where it breaks down."""
        if self.line_search:
            return searched(ops, point, state, self.kind == "good")
        if self.kind == "bad":
            return self._bad_step(ops, point, state)
        xp, r = ops.xp, point.residual
        state = self._restart_if_full(ops, state, r)
        newest = xp.indicator(one_hot(ops, state.last, self._slots))
        products = tree.project(ops, state.steps, r)
        c = xp.matvec(state.transfer, products)
        pivot = 1.0 - xp.sum(c * newest)
        # The last c has no b yet: it is in the pivot.
        weights = xp.roll(c * (1.0 - newest), 1)
        finite = xp.isfinite(xp.sum(weights) * xp.reciprocal(pivot))
        sound = finite & (xp.abs(pivot) > SMALLEST_PIVOT)
        pivot = xp.where(sound, pivot, 1.0)
        kept = column(ops, sound)
        weights = xp.where(kept, weights / column(ops, pivot), xp.zeros_like(weights))
        plain = tree.scale(ops, 1.0 / pivot, r)
        s = tree.add(plain, tree.combine(ops, weights, state.steps, r))
        products = products / column(ops, pivot) + xp.matvec(state.gram, weights)
        return tree.add(point.z, s), self._append(ops, state, s, products, kept, r)

    def renew(self, ops: Ops, mask: Number, point: Point, state: Any, count: Number) -> Any:
        """H = −I; no pair has its first half in what was before."""
        if self.line_search:
            return renewed(ops, mask, point, state, count)
        xp, row = ops.xp, column(ops, mask)
        residual = tree.select(ops, mask, point.residual, state.residual)
        state = state._replace(residual=residual)
        if self.kind == "bad":
            return state._replace(
                weights=xp.where(row, xp.zeros_like(state.weights), state.weights),
                z=tree.select(ops, mask, point.z, state.z),
                count=count,
            )
        last, length = self._clock(ops, count)
        zero = xp.zeros_like(state.transfer)
        transfer = xp.where(column(ops, row), zero, state.transfer)
        return state._replace(transfer=transfer, last=last, length=length)

    def _clock(self, ops: Ops, count: Number) -> tuple[Number, Number]:
        """``last`` and ``length`` after so many steps: a restart takes one more slot."""
        where, beyond = ops.xp.where, count - (self.history + 2.0)
        phase = beyond % self.history
        again = where(beyond >= 0.0, (beyond - phase) / self.history + 1.0, ops.scalar(0.0))
        length = where(beyond >= 0.0, phase + 2.0, count)
        return (count + again - 1.0) % self._slots, length

    def inverse(self, ops: Ops, state: Any, v: Leaves, tangent: bool) -> Leaves:
        """−Hv = v + Σ_j b_j c_j with c = T Sᵀv, or its transpose v + S Tᵀ Bᵀv.

        The newest step has no b yet and is left out. The bad method has its H as it stands.
        """
        xp = ops.xp
        if self.line_search:
            state = state.memory
        if self.line_search or self.kind == "bad":
            return inverse(ops, state, v, tangent)
        known = 1.0 - xp.indicator(one_hot(ops, state.last, self._slots))
        products = tree.project(ops, state.steps, v)
        if tangent:
            weights = xp.roll(xp.matvec(state.transfer, products) * known, 1)
        else:
            weights = xp.matvec(xp.transpose(state.transfer), xp.roll(products, -1) * known)
        return tree.add(v, tree.combine(ops, weights, state.steps, v))

    def _bad_step(self, ops: Ops, point: Point, state: Updates) -> tuple[Leaves, Updates]:
        """z − H r, after the update of H."""
        r = point.residual
        s, y = tree.subtract(point.z, state.z), tree.subtract(r, state.residual)
        state = updated(ops, state, s, y)._replace(z=point.z, residual=r)
        step, state = quasi_newton(ops, state, r)
        return tree.add(point.z, step), state

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
