"""Anderson acceleration."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from .. import _tree as tree
from .._errors import InputError
from .._numbers import column, filtered, independent, one_hot, set_entry, set_symmetric
from .._ops import Number, Ops
from .._options import check_count, check_interval
from .._solver import AbstractStage, Point
from .._tree import Histories, Leaves

_INF = float("inf")


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


class _Secants(NamedTuple):
    """What type I remembers: steps s_j = z_{j+1} − z_j and changes y_j = r_{j+1} − r_j."""

    steps: Histories
    changes: Histories
    products: Number
    """SᵀY."""
    lengths: Number
    """1/‖s_j‖; 0 where a slot is empty."""
    rates: Number
    """1/‖y_j‖; 0 likewise."""
    z: Leaves
    residual: Leaves
    count: Number
    mixed: Number
    error: Number


@dataclass(frozen=True)
class Anderson(AbstractStage):
    """Anderson acceleration, type II, over the last ``history + 1`` pairs (f_i, r_i = f_i − z_i).

    z ← Σ α_i (f_i − (1 − mixing)·r_i), where α minimises ‖Σ α_i r_i‖² + λ Σ α_i² ‖r_i‖² subject
    to Σ α_i = 1. With the Gram matrix G_ij = <r_i, r_j> scaled to a unit diagonal that is
    (G + λI) α ∝ 1, so the ridge λ is relative to each residual: it neither fades nor dominates
    as residuals shrink. One row of G is new in a step, so a step reads each history once. After
    a mixed step that increased the residual the next step is a plain one. Anderson (1965);
    Walker and Ni, SIAM J. Numer. Anal. 49 (2011), 1715.

    Type I: z ← z + β r − (S + β Y) γ with SᵀY γ = Sᵀr, for the last ``history`` steps S and changes
    Y of the residual, β = mixing: r without its part along S, not the least r. The columns are
    scaled to unit length and γ has the ridge λ: (BᵀB + λI) γ = Bᵀ(Sᵀr). Fang and Saad, Numer.
    Linear Algebra Appl. 16 (2009), 197, the multisecant method that contains good Broyden. On
    contractions with a symmetric Jacobian it may need half of type II's evaluations; on expansive
    maps it often fails. It stores two more states and reads the history five times a step.

    With a period p the steps 1 … p − 1 of every p are plain (damped by ``mixing``) and only fill
    the history. On slow contractions p = 2 needs half to two thirds of the evaluations, on
    expansive maps more. Pratapa, Suryanarayana, Pask, J. Comput. Phys. 306 (2016), 43.

    With ``filtering`` = σ a step leaves out what tells it little: of the differences of successive
    residuals, the newest first, each whose distance from the span of those kept is below σ times
    its length. They come from G alone, by an LDLᵀ, and are there again for the next step. Of type I
    likewise the columns of B, each with its pair. Pollock and Rebholz, SIAM J. Sci. Comput. 45
    (2023), A1571 (angle filtering). For contractions and a long history: those of the 279 solves of
    the first 31 problems of benchmarks/solvers that converge need 0.81 times the evaluations with
    σ = 0.01 of 20 (0.94 of 5, geometric means), but 82 fail in place of 38 (84 of 45), mostly
    expansive maps.

    Attributes:
        history: residual differences used, ≥ 1.
        mixing: weight β of the residual in the mixed step, 0 < mixing ≤ 1.
        regularization: λ, relative; raised to 16 units of the state's precision.
        kind: 2 or 1, the type.
        period: p ≥ 1; every step is mixed if it is 1.
        filtering: σ, the sine of the least angle, 0 < σ ≤ 1; None keeps all.

    Raises:
        InputError: an attribute is out of its range.
    """

    history: int = 5
    mixing: float = 1.0
    regularization: float = 1e-10
    kind: int = 2
    period: int = 1
    filtering: float | None = None
    name: ClassVar[str] = "anderson"
    uniform: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_count("history", self.history, 1)
        check_interval("mixing", self.mixing, 0.0, 1.0)
        check_interval("regularization", self.regularization, 0.0, 1.0)
        if check_count("kind", self.kind, 1) > 2:
            raise InputError(f"expected kind to be 1 or 2, received kind={self.kind!r}")
        check_count("period", self.period, 1)
        if self.filtering is not None:
            check_interval("filtering", self.filtering, 0.0, 1.0)

    def init(self, ops: Ops, z: Leaves) -> "_State | _Secants":
        """Empty histories."""
        if self.kind == 1:
            return self._no_secants(ops, z)
        length = self.history + 1
        return _State(
            values=tree.history(ops, z, length),
            residuals=tree.history(ops, z, length),
            gram=ops.numbers(z[0], 0.0, (length, length)) + ops.xp.eye(length),
            filled=ops.numbers(z[0], 0.0, (length,)),
            count=ops.scalar(0.0),
            mixed=ops.numbers(z[0], 0.0) > 1.0,
            error=ops.numbers(z[0], _INF),
        )

    def residual(self, ops: Ops, f: Leaves, z: Leaves, state: Any) -> Leaves:
        """In its slot."""
        if self.kind == 1:
            return tree.subtract(f, z)
        slot = state.count % (self.history + 1)
        return tree.difference(ops, state.residuals, slot, f, z)

    def step(self, ops: Ops, point: Point, state: Any) -> tuple[Leaves, Any]:
        """Mix the stored values; a plain step where mixing made things worse last time."""
        if self.kind == 1:
            return self._secant_step(ops, point, state)
        xp, length, ridge = ops.xp, self.history + 1, self._ridge(ops)
        slot = state.count % length
        values = tree.store(ops, state.values, slot, point.f)
        residuals = tree.store(ops, state.residuals, slot, point.residual)
        filled = set_entry(ops, state.filled, slot, 1.0)
        row = filled * tree.project(ops, residuals, point.residual)
        gram = set_symmetric(ops, state.gram, slot, row, growth=1.0 + ridge)
        alpha = self._weights(ops, gram, filled, slot)
        alpha = alpha / column(ops, xp.sum(alpha))
        sound = xp.isfinite(xp.sum(alpha))
        mixed = sound & xp.logical_not(state.mixed & (point.error > state.error))
        if self.period > 1:
            mixed = mixed & ((state.count + 1.0) % self.period == 0.0)
        if ops.traced or not xp.all(mixed):
            plain = xp.indicator(one_hot(ops, slot, length))
            alpha = xp.where(column(ops, mixed), alpha, plain)
        z = tree.combine(ops, alpha, values, point.f)
        if self.mixing < 1.0:
            z = tree.subtract(z, tree.combine(ops, (1.0 - self.mixing) * alpha, residuals, point.f))
        return z, _State(values, residuals, gram, filled, state.count + 1, mixed, point.error)

    def _ridge(self, ops: Ops) -> float:
        return max(self.regularization, 16.0 * ops.eps)

    def _weights(self, ops: Ops, gram: Number, filled: Number, slot: Number) -> Number:
        """α to a factor."""
        if self.filtering is None:
            return ops.solve(gram, filled)
        return filtered(ops, gram, filled, slot, self.filtering, self._ridge(ops))

    def renew(self, ops: Ops, mask: Number, point: Point, state: Any, count: Number) -> Any:
        """Slots that count as empty; the next step is plain."""
        xp, row = ops.xp, column(ops, mask)
        mixed, error = state.mixed & xp.logical_not(mask), xp.where(mask, _INF, state.error)
        state = state._replace(count=count, mixed=mixed, error=error)
        if self.kind == 1:
            zero = xp.zeros_like(state.rates)
            return state._replace(
                lengths=xp.where(row, zero, state.lengths),
                rates=xp.where(row, zero, state.rates),
                z=tree.select(ops, mask, point.z, state.z),
                residual=tree.select(ops, mask, point.residual, state.residual),
            )
        empty = xp.zeros_like(state.gram) + xp.eye(self.history + 1)  # written to later
        return state._replace(
            gram=xp.where(column(ops, row), empty, state.gram),
            filled=xp.where(row, xp.zeros_like(state.filled), state.filled),
        )

    def inverse(self, ops: Ops, state: Any, v: Leaves, tangent: bool) -> Leaves:
        """v + F K Rᵀv, the inverse that type II implies, or its transpose v + R K Fᵀv.

        The columns of F and R are the stored values and residuals, and K maps b to the β that
        minimises ‖Rβ + r‖ with Rᵀr = b, subject to Σ β_i = 0. Of type I v − (S + Y)(SᵀY)⁻¹Sᵀv, or
        its transpose.
        """
        if self.kind == 1:
            return self._secant_inverse(ops, state, v, tangent)
        near, far = state.residuals, state.values
        if not tangent:
            near, far = far, near
        x = ops.solve(state.gram, tree.project(ops, near, v) * state.filled)
        y = ops.solve(state.gram, state.filled)
        total = ops.xp.sum(y)
        total = ops.xp.where(total > 0.0, total, ops.scalar(1.0))  # zero while nothing is stored
        beta = column(ops, ops.xp.sum(x) / total) * y - x
        return tree.add(v, tree.combine(ops, beta, far, v))

    def _no_secants(self, ops: Ops, z: Leaves) -> _Secants:
        """The first pair, of the start with itself, has no weight."""
        vector = ops.numbers(z[0], 0.0, (self.history,))
        return _Secants(
            steps=tree.history(ops, z, self.history),
            changes=tree.history(ops, z, self.history),
            products=ops.numbers(z[0], 0.0, (self.history, self.history)),
            lengths=vector,
            rates=vector,
            z=z,
            residual=z,
            count=ops.scalar(0.0),
            mixed=ops.numbers(z[0], 0.0) > 1.0,
            error=ops.numbers(z[0], _INF),
        )

    def _secant_step(self, ops: Ops, point: Point, state: _Secants) -> tuple[Leaves, _Secants]:
        """Type I."""
        xp, r = ops.xp, point.residual
        state = self._with_pair(ops, point, state)
        used = self._kept(ops, state)
        right = used.lengths * tree.project(ops, state.steps, r)
        gamma = used.rates * self._solve(ops, used, right)
        worse = state.mixed & (point.error > state.error)
        mixed = xp.isfinite(xp.sum(gamma)) & xp.logical_not(worse)
        mixed = mixed & (state.count > 1.0) & (state.count % self.period == 0.0)
        gamma = xp.where(column(ops, mixed), gamma, xp.zeros_like(gamma))
        plain = tree.add(point.z, r)
        if self.mixing < 1.0:
            plain = tree.add(point.z, tuple([self.mixing * x for x in r]))
        along = tree.combine(ops, gamma, state.steps, r)
        across = tree.combine(ops, self.mixing * gamma, state.changes, r)
        z = tree.subtract(tree.subtract(plain, along), across)
        return z, state._replace(mixed=mixed, error=point.error)

    def _with_pair(self, ops: Ops, point: Point, state: _Secants) -> _Secants:
        """The memory with the newest step and change."""
        xp, slot = ops.xp, state.count % self.history
        here = one_hot(ops, slot, self.history)
        s, y = tree.subtract(point.z, state.z), tree.subtract(point.residual, state.residual)
        steps = tree.store(ops, state.steps, slot, s)
        changes = tree.store(ops, state.changes, slot, y)
        row, below = tree.project(ops, changes, s), tree.project(ops, steps, y)
        across = xp.where(here[None, :], below[..., :, None], state.products)
        known = xp.where(state.count > 0.0, ops.scalar(1.0), ops.scalar(0.0))

        def scaled(old: Number, x: Leaves) -> Number:
            size = xp.sqrt(tree.dot(ops, x, x))
            inverse = xp.where(size > 0.0, known * xp.reciprocal(size), ops.scalar(0.0))
            return xp.where(here, column(ops, inverse), old)

        return state._replace(
            steps=steps,
            changes=changes,
            products=xp.where(here[:, None], row[..., None, :], across),
            lengths=scaled(state.lengths, s),
            rates=scaled(state.rates, y),
            z=point.z,
            residual=point.residual,
            count=state.count + 1.0,
        )

    def _across(self, ops: Ops, state: _Secants) -> Number:
        """Bᵀ."""
        b = state.lengths[..., :, None] * state.products * state.rates[..., None, :]
        return ops.xp.transpose(b)

    def _kept(self, ops: Ops, state: _Secants) -> _Secants:
        """The memory without the pairs that filtering leaves out."""
        if self.filtering is None:
            return state
        across, newest = self._across(ops, state), (state.count - 1.0) % self.history
        gram = ops.xp.matvec(across[..., None, :, :], across)
        kept = independent(ops, gram, newest, self.filtering)
        return state._replace(lengths=kept * state.lengths, rates=kept * state.rates)

    def _solve(self, ops: Ops, state: _Secants, right: Number, transposed: bool = False) -> Number:
        """(BᵀB + λI)⁻¹Bᵀ·right, or its transpose times right, for B = SᵀY scaled."""
        xp, ridge = ops.xp, self._ridge(ops)
        across = self._across(ops, state)
        b = xp.transpose(across)
        empty = xp.where(state.rates > 0.0, ops.scalar(ridge), ops.scalar(1.0))
        normal = xp.matvec(across[..., None, :, :], across)
        normal = normal + xp.eye(self.history) * empty[..., None]
        if transposed:
            return xp.matvec(b, ops.solve(normal, right))
        return ops.solve(normal, xp.matvec(across, right))

    def _secant_inverse(self, ops: Ops, state: _Secants, v: Leaves, tangent: bool) -> Leaves:
        if tangent:
            right = state.lengths * tree.project(ops, state.steps, v)
            gamma = state.rates * self._solve(ops, state, right)
            both = tree.combine(ops, gamma, state.steps, v)
            return tree.subtract(tree.subtract(v, both), tree.combine(ops, gamma, state.changes, v))
        found = tree.project(ops, state.steps, v) + tree.project(ops, state.changes, v)
        gamma = state.lengths * self._solve(ops, state, state.rates * found, transposed=True)
        return tree.subtract(v, tree.combine(ops, gamma, state.steps, v))
