"""Arnoldi's iteration for the largest |eigenvalue|, in numbers that every framework has.

An orthonormal basis V of span{x, Ax, A²x, …} gives A V = V H + β v eᵀ with a small Hessenberg
matrix H, whose outermost eigenvalues are soon those of A. Saad, Numerical Methods for Large
Eigenvalue Problems (SIAM 2011), §6.2.

No framework compiles an eigensolver everywhere, and none is needed: the spectral radius of H is
lim ‖Hᴺ‖^(1/N) (Gelfand), and repeated squaring reaches N = 2ᵏ in k products, for complex and
opposite eigenvalues and for defective ones alike. Its by-product P ∝ Hᴺ has the dominant
eigenvectors for its range. That gives the residual, ‖A V x − μ V x‖ = β |x_last| for H x = μ x.
A low power gives the vector V H⁶⁴ e₁ to restart from when the basis is full: it still holds all
that is within a few per cent of the largest. Restarted from the dominant eigenvector alone, the
iteration settled on the second largest eigenvalue of 1 in 30 random matrices.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from . import _tree as tree
from ._numbers import column, one_hot
from ._ops import Number, Ops, Precision
from ._solution import Result
from ._stopping import RESOLUTION, euclidean
from ._tree import Histories, Leaves

CHECK = 5
"""Steps from one look at H to the next: squaring costs more than a step on a small state."""
_MOST_SQUARINGS = 48
LEAST_HISTORY = 8
"""With fewer vectors restarts settled on −0.89 beside 0.9: in 14 of 25 runs with 4, 1 with 5."""
_RESTART = 6
"""Squarings of the power to restart from."""


class Estimate(NamedTuple):
    """What is known of each system; one number per system each."""

    active: Number
    """Which systems still iterate."""
    value: Number
    """The radius at the latest look."""
    residual: Number
    """‖A x − μ x‖ for the unit vector x of that look; the norm of both for a pair."""
    tolerance: Number
    """What it had to be: rtol·value, or the rounding of A x if that is more."""
    steps: Number
    """Products until the system stopped."""
    codes: Number
    """`Result` of each system."""


class Carry(NamedTuple):
    """Everything that changes from one product to the next."""

    z: Leaves
    """The newest unit vector of the basis, or zero where the basis is invariant."""
    basis: Histories
    matrix: Number
    """H, batch + (history, history)."""
    slot: Number
    """Where z belongs in the basis."""
    step: Number
    """Products so far, one number for the whole batch."""
    estimate: Estimate


@dataclass(frozen=True)
class Arnoldi:
    """The iteration as a `Process`: hashable, so that traced code can be cached on it."""

    limit: int
    """Most products."""
    history: int
    """Vectors in the basis before it restarts."""
    rtol: float
    """A system has converged once its residual is at most rtol·value, or lost in rounding."""
    precision: Precision

    @property
    def squarings(self) -> int:
        """k such that 2ᵏ leaves ‖Hᴺ‖^(1/N) within a fraction of rtol of its limit."""
        return min(_MOST_SQUARINGS, math.ceil(math.log2(100.0 / self.rtol)))

    def start(self, ops: Ops, x: Leaves) -> Carry:
        """The carry before the first product, A x."""
        number = partial(ops.numbers, x[0])
        return Carry(
            z=_normalized(ops, x, euclidean(ops, x, self.precision)),
            basis=tree.history(ops, x, self.history),
            matrix=number(0.0, (self.history, self.history)),
            slot=ops.scalar(0.0),
            step=ops.scalar(0.0),
            estimate=Estimate(
                active=number(0.0) < 1.0,
                value=number(float("nan")),
                residual=number(float("inf")),
                tolerance=number(0.0),
                steps=number(float(self.limit)),
                codes=number(float(Result.MAX_STEPS)),
            ),
        )

    def active(self, ops: Ops, carry: Carry) -> Number:
        """Whether any system still iterates, within the budget."""
        return ops.xp.any(carry.estimate.active) & (carry.step < self.limit)

    def update(self, ops: Ops, carry: Carry, f: Leaves) -> Carry:
        """One more column of H from f = A z; look at H when it is time, restart when it is full."""
        xp, slot, step = ops.xp, carry.slot, carry.step + 1.0
        basis = tree.store(ops, carry.basis, slot, carry.z)
        h, rest = self._orthogonalize(ops, basis, slot, f)
        beta = euclidean(ops, rest, self.precision)
        noise = RESOLUTION * self.precision.eps * euclidean(ops, f, self.precision)
        column_of_h = xp.where(one_hot(ops, slot + 1.0, self.history), column(ops, beta), h)
        here = one_hot(ops, slot, self.history)
        matrix = xp.where(here[None, :], column_of_h[..., :, None], carry.matrix)
        grown = carry._replace(basis=basis, matrix=matrix, step=step)

        full = slot + 1.0 >= self.history
        regular = ((slot + 1.0) % CHECK == 0.0) | full | (step >= self.limit)
        # A system is looked at by its own state and the step alone, whatever its neighbours do.
        broken = beta <= noise
        due = carry.estimate.active & (broken | regular)
        estimate, weights = ops.cond(
            xp.any(due),
            lambda: self._look(ops, grown, due, beta, noise),
            lambda: (carry.estimate, xp.zeros_like(h)),
        )
        following = _normalized(ops, rest, xp.where(broken, 0.0, beta))
        z, matrix = ops.cond(
            full,
            lambda: (self._restart(ops, basis, weights, following), xp.zeros_like(matrix)),
            lambda: (following, matrix),
        )
        return Carry(z, basis, matrix, (slot + 1.0) % self.history, step, estimate)

    def _orthogonalize(
        self, ops: Ops, basis: Histories, slot: Number, f: Leaves
    ) -> tuple[Number, Leaves]:
        """The components of f along the basis, and the rest of f.

        Gram and Schmidt twice: once loses the orthogonality that the residual relies on.
        """
        # Slots that come later hold vectors from before the restart.
        used = ops.xp.arange(self.history) <= slot
        first = ops.xp.where(used, tree.project(ops, basis, f), 0.0)
        rest = tree.subtract(f, tree.combine(ops, first, basis, f))
        second = ops.xp.where(used, tree.project(ops, basis, rest), 0.0)
        return first + second, tree.subtract(rest, tree.combine(ops, second, basis, f))

    def _look(
        self, ops: Ops, carry: Carry, due: Number, beta: Number, noise: Number
    ) -> tuple[Estimate, Number]:
        """The estimate, renewed for the systems that are due, and where to restart from."""
        xp, old = ops.xp, carry.estimate
        # β stands below the last row in use; it belongs to the residual and not to H.
        used = xp.arange(self.history) <= carry.slot
        matrix = xp.where(used[:, None], carry.matrix, 0.0)
        radius, power, restart = spectral_radius(ops, matrix, self.squarings)
        here = xp.indicator(one_hot(ops, carry.slot, self.history))
        last = xp.matvec(xp.transpose(power), here + xp.zeros_like(power[..., 0]))
        size = xp.sqrt(xp.sum(xp.sum(power * power)))
        share = xp.sqrt(xp.sum(last * last)) / xp.where(size > 0.0, size, 1.0)
        # Where P vanishes H is nilpotent, and only an invariant basis proves anything.
        residual = beta * xp.where(size > 0.0, share, 1.0)
        tolerance = xp.maximum(self.rtol * radius, noise)
        met = residual <= tolerance
        stop = due & (met | xp.logical_not(xp.isfinite(radius + residual)))
        verdict = xp.where(met, float(Result.CONVERGED), float(Result.NONFINITE))
        return Estimate(
            active=old.active & xp.logical_not(stop),
            value=xp.where(due, radius, old.value),
            residual=xp.where(due, residual, old.residual),
            tolerance=xp.where(due, tolerance, old.tolerance),
            steps=xp.where(stop, carry.step, old.steps),
            codes=xp.where(stop, verdict, old.codes),
        ), restart[..., 0]

    def _restart(self, ops: Ops, basis: Histories, weights: Number, following: Leaves) -> Leaves:
        """The unit vector along V·weights; the next vector of the basis where that is zero."""
        size = ops.xp.sqrt(ops.xp.sum(weights * weights))
        dominant = _normalized(ops, tree.combine(ops, weights, basis, following), size)
        return tree.select(ops, size > 0.0, dominant, following)


def spectral_radius(ops: Ops, matrix: Number, squarings: int) -> tuple[Number, Number, Number]:
    """ρ(H) per system, P = Hᴺ for N = 2^squarings and H⁶⁴, their largest entries scaled to 1.

    ‖Hᴺ‖^(1/N) is the product of the scales s_k^(1/2ᵏ) that keep the powers in range. It differs
    from ρ(H) by a factor c^(1/N), where c is the condition of the dominant eigenvalue. An error
    made at squaring k enters with the weight 2⁻ᵏ, so that rounding does not add up.
    """
    radius, weight, low = 1.0, 1.0, matrix
    for k in range(squarings + 1):
        if k:
            matrix = _square(ops, matrix)
            weight = weight / 2.0
        scale = ops.xp.max(ops.xp.max(ops.xp.abs(matrix)))
        radius = radius * scale**weight
        safe = ops.xp.where(scale > 0.0, scale, 1.0)
        matrix = matrix / column(ops, column(ops, safe))
        low = matrix if k <= _RESTART else low
    return radius, matrix, low


def _square(ops: Ops, matrix: Number) -> Number:
    """H·H by products of H with the rows of Hᵀ, in full precision on every device."""
    xp = ops.xp
    return xp.transpose(xp.matvec(matrix[..., None, :, :], xp.transpose(matrix)))


def _normalized(ops: Ops, x: Leaves, size: Number) -> Leaves:
    """x over its size; zero where that is zero."""
    xp = ops.xp
    some = size > 0.0
    inverse = xp.reciprocal(xp.where(some, size, 1.0))
    return tree.scale(ops, xp.where(some, inverse, 0.0), x)
