"""Restarted GMRES, a linear solver."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from .. import _tree as tree
from .._numbers import column, one_hot, outer
from .._ops import Number, Ops
from .._options import check_count
from .._solver import AbstractLinearSolver, Expansion
from .._tree import Histories, Leaves


class State(NamedTuple):
    """The memory of a cycle."""

    basis: Histories
    """Orthonormal q_i, in slots that all systems share."""
    count: Number
    """Products so far, one number for the whole batch; the next vector goes to its slot."""
    used: Number
    """1 for the slots that belong to the system's cycle."""
    hessenberg: Number
    """H̄, with A q_j = Σ_i H̄_ij q_i; rows and columns are slots."""
    inverse: Number
    """H̄⁺, of the same shape."""
    tail: Number
    """Unit vector t in the span of the q_i, orthogonal to every A q_j."""
    right: Number
    """β e₁, the residual that the cycle began with."""
    size: Number
    """γ: the residual is γ t."""
    residual: Leaves


_NOISE = 16.0
"""What is left of an image after projection is rounding below this many units of it."""

_SINGULAR = 256.0
"""A column whose diagonal in R is below this many units of it would add rounding, magnified, to
the iterate: more than its share of the residual."""


@dataclass(frozen=True)
class GMRES(AbstractLinearSolver):
    """GMRES(restart): the g of the Krylov space that minimises ‖v − A g‖₂, A = I − Jᵀ.

    The Arnoldi process A Q_k = Q_{k+1} H̄_k by classical Gram–Schmidt, twice, so that a step reads
    the basis four times and no vector by itself. A Givens rotation (c, s) of τ = tᵀh and
    η = h_{k+1,k} makes each new column h orthogonal to the tail t: with u = c t + s e_{k+1} the
    pseudoinverse is H̄⁺ ← H̄⁺ + (e_k − H̄⁺h) uᵀ/√(τ² + η²), t ← c e_{k+1} − s t, and the residual
    γ t follows with γ ← −s γ: no product is spent on it. g = g₀ + Q H̄⁺ β e₁ is formed at the end
    of a cycle only, its coefficients refined once by H̄. Saad and Schultz, SIAM J. Sci. Stat.
    Comput. 7 (1986), 856, GMRES(m); Giraud et al., Numer. Math. 101 (2005), 87, for why twice
    is enough.

    It solves linear equations: pass it as ``adjoint=Implicit(solver=GMRES())``. The inner product
    is the real one, so a complex state of n entries is 2n real ones, and A need be linear over
    the reals only.

    Attributes:
        restart: most products in a cycle, ≥ 1; restart + 1 vectors are stored.

    Raises:
        InputError: restart is not a positive integer.
    """

    restart: int = 20
    name: ClassVar[str] = "gmres"
    uniform: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_count("restart", self.restart, 1)

    @property
    def _slots(self) -> int:
        return self.restart + 1

    def init(self, ops: Ops, residual: Leaves) -> tuple[Leaves, State]:
        """An empty basis, and the residual as its first vector."""
        vector = ops.numbers(residual[0], 0.0, (self._slots,))
        matrix = ops.numbers(residual[0], 0.0, (self._slots, self._slots))
        empty = State(
            basis=tree.history(ops, residual, self._slots),
            count=ops.scalar(0.0),
            used=vector,
            hessenberg=matrix,
            inverse=matrix,
            tail=vector,
            right=vector,
            size=ops.numbers(residual[0], 0.0),
            residual=residual,
        )
        return self.begin(ops, ops.numbers(residual[0], 0.0) < 1.0, residual, empty)

    def begin(self, ops: Ops, mask: Number, residual: Leaves, state: State) -> tuple[Leaves, State]:
        """q₁ = r/‖r‖, in the slot of the next product."""
        xp = ops.xp
        size = xp.sqrt(tree.dot(ops, residual, residual))
        first = xp.indicator(one_hot(ops, state.count % self._slots, self._slots))
        row = column(ops, mask)
        block = column(ops, row)
        new = state._replace(
            used=xp.where(row, xp.zeros_like(state.used), state.used),
            hessenberg=xp.where(block, xp.zeros_like(state.hessenberg), state.hessenberg),
            inverse=xp.where(block, xp.zeros_like(state.inverse), state.inverse),
            tail=xp.where(row, xp.zeros_like(state.tail) + first, state.tail),
            right=xp.where(row, column(ops, size) * first, state.right),
            size=xp.where(mask, size, state.size),
            residual=tree.select(ops, mask, residual, state.residual),
        )
        positive = xp.where(size > 0.0, size, ops.scalar(1.0))
        return tree.scale(ops, xp.reciprocal(positive), residual), new

    def expand(self, ops: Ops, vector: Leaves, image: Leaves, state: State) -> Expansion:
        """One Arnoldi step and one rotation."""
        xp, zero = ops.xp, ops.scalar(0.0)
        slot = state.count % self._slots
        here = xp.indicator(one_hot(ops, slot, self._slots))
        basis = tree.store(ops, state.basis, slot, vector)
        used = state.used + here
        h, rest = self._orthogonalise(ops, basis, used, image)
        below = xp.sqrt(tree.dot(ops, rest, rest))
        rounding = ops.eps * xp.sqrt(xp.sum(h * h) + below * below)
        invariant = xp.logical_not(below > _NOISE * rounding)
        below = xp.where(invariant, zero, below)
        q = tree.scale(ops, xp.where(invariant, zero, xp.reciprocal(below)), rest)
        state = state._replace(basis=basis, count=state.count + 1.0, used=used)
        state = self._rotate(ops, state, here, h, below, _SINGULAR * rounding, q)
        full = xp.sum(used) >= self.restart
        stalled = xp.logical_not(xp.abs(state.size) < xp.sum(state.right))
        return Expansion(q, state.residual, full, invariant | (full & stalled), state)

    def _rotate(
        self,
        ops: Ops,
        state: State,
        here: Number,
        h: Number,
        below: Number,
        least: Number,
        q: Leaves,
    ) -> State:
        """The least-squares problem with one more column: h, and ``below`` in the row of q.

        The column is left out where its diagonal in R is below ``least``.
        """
        xp = ops.xp
        there = xp.indicator(one_hot(ops, state.count % self._slots, self._slots))
        tau = xp.sum(state.tail * h)
        radius = xp.sqrt(tau * tau + below * below)
        # Without a radius A is singular on the space.
        sound = radius > least
        inverse = xp.where(sound, xp.reciprocal(radius), ops.scalar(0.0))
        c, s = tau * inverse, xp.where(sound, below * inverse, ops.scalar(1.0))
        cosine, sine = column(ops, c), column(ops, s)
        u = cosine * state.tail + sine * there
        new = (here - xp.matvec(state.inverse, h)) * column(ops, inverse)
        kept = tree.scale(ops, s * s, state.residual)
        return state._replace(
            hessenberg=state.hessenberg + outer(h + column(ops, below) * there, here),
            inverse=state.inverse + outer(new, u),
            tail=cosine * there - sine * state.tail,
            size=-s * state.size,
            residual=tree.add(kept, tree.scale(ops, -s * c * state.size, q)),
        )

    def correction(self, ops: Ops, state: State) -> Leaves:
        """Q y, where y minimises ‖β e₁ − H̄ y‖."""
        matvec = ops.xp.matvec
        y = matvec(state.inverse, state.right)
        # The pseudoinverse has the error of an explicit inverse; refined, that of a solve.
        y = y + matvec(state.inverse, state.right - matvec(state.hessenberg, y))
        return tree.combine(ops, y, state.basis, state.residual)

    def _orthogonalise(
        self, ops: Ops, basis: Histories, used: Number, image: Leaves
    ) -> tuple[Number, Leaves]:
        """Coefficients of the image in the basis, and what is left of it."""
        h = used * tree.project(ops, basis, image)
        rest = tree.subtract(image, tree.combine(ops, h, basis, image))
        again = used * tree.project(ops, basis, rest)
        return h + again, tree.subtract(rest, tree.combine(ops, again, basis, rest))
