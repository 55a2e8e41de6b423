"""Newton's method with GMRES inside, from evaluations of f alone."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from .. import _tree as tree
from .._ops import Number, Ops, unit_of
from .._options import check_count, check_interval
from .._solver import AbstractLinearSolver, AbstractStage, Point
from .._tree import Leaves
from .gmres import GMRES, State

_INF = float("inf")
_GOLDEN = 0.5 * (1.0 + 5.0**0.5)
_SUFFICIENT = 1e-4
"""Share of the decrease that the linear model predicts which a step must achieve."""
_SHORTEST = 1e-3
"""A step shortened below this is given up."""
_LARGEST = 0.9
"""A linear residual larger than this would hardly be a step."""
_NOISE = 8.0
"""A forcing term below this many roots of the unit would fit the noise of the differences."""


class _State(NamedTuple):
    base: Leaves
    """The Newton iterate."""
    residual: Leaves
    """r there."""
    size: Number
    """‖r‖ there; infinite before the first evaluation."""
    spacing: Number
    """ε: the length of a probe."""
    forcing: Number
    vector: Leaves
    """The Krylov vector that is probed."""
    cycle: State
    """That of GMRES."""
    trial: Number
    """Where the point under evaluation is a step on trial; elsewhere it is a probe."""
    plain: Number
    """Where that step is a plain one."""
    bound: Number
    """What ‖r‖ may be at most for the step to be taken."""
    gain: Number
    """1 − ‖r − A s‖/‖r‖ of the whole step s."""
    length: Number
    """Share λ of s on trial."""


@dataclass(frozen=True)
class NewtonKrylov(AbstractStage):
    """Newton's method on r(z) = f(z) − z: A s = r with A = I − ∂f/∂z by GMRES, z ← z + λs.

    Matrix-free and derivative-free: A q ≈ (r(z) − r(z + εq))/ε for each Krylov vector q, ‖q‖ = 1,
    with ε = √u (‖z‖ + ‖r‖) and u the unit of the state's dtype. A step of the loop is one
    evaluation of f, at a probe z + εq or at a step on trial. GMRES ends once ‖r − A s‖ ≤ η‖r‖,
    after ``restart`` vectors or where it gains nothing. Forcing term: η₀ = ``forcing``, then
    η = |‖r_new‖ − ‖r − A s‖| / ‖r‖, not below η_old^1.618 where that exceeds 0.1 (with
    η_old = 1 − λ(1 − η)), nor below what the tolerance asks for or differences resolve:
    Eisenstat and Walker, SIAM J. Sci. Comput. 17 (1996), 16, choice 1. Globalised by their
    backtracking on ‖r‖₂ (algorithm INB): λ is the minimiser of the parabola through the known
    values, 0.1 to 0.5 of the last, and a quarter of it where f is not finite. After a shortened
    step the plain one, z ← f(z), is tried, and taken if ‖r‖ does not grow: it moves a contraction
    across its kinks. Where the search or GMRES breaks down a plain step is taken, come what may.
    Knoll and Keyes, J. Comput. Phys. 193 (2004), 357, for the whole.

    For stiff, expansive and nearly singular smooth maps, where the others stagnate or diverge. On
    a map with many kinks, and where ‖r‖ has minima that are no roots, the search may get caught:
    Anderson is better there. On a Bellman operator it is policy iteration (Puterman and Brumelle,
    Math. Oper. Res. 4 (1979), 60). The norm of the line search is the Euclidean one, whatever the
    stopping rule's. Where squares of ‖r‖ leave the range of the numbers, all steps are plain.

    Attributes:
        restart: most Krylov vectors in a Newton step, ≥ 1; restart + 6 states are stored.
        forcing: η₀, 0 < forcing ≤ 0.9.

    Raises:
        InputError: an attribute is out of its range.
    """

    restart: int = 30
    forcing: float = 0.1
    name: ClassVar[str] = "newton_krylov"
    uniform: ClassVar[bool] = True
    tentative: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_count("restart", self.restart, 1)
        check_interval("forcing", self.forcing, 0.0, _LARGEST)

    def linear(self) -> AbstractLinearSolver:
        """GMRES."""
        return GMRES(self.restart)

    def init(self, ops: Ops, z: Leaves) -> _State:
        """The start is on trial, and will be taken."""
        vector, cycle = GMRES(self.restart).init(ops, z)
        zero = ops.numbers(z[0], 0.0)
        return _State(
            base=z,
            residual=z,
            size=ops.numbers(z[0], _INF),
            spacing=zero,
            forcing=ops.numbers(z[0], self.forcing),
            vector=vector,
            cycle=cycle,
            trial=zero < 1.0,
            plain=zero < 1.0,
            bound=ops.numbers(z[0], _INF),
            gain=zero,
            length=ops.numbers(z[0], 1.0),
        )

    def step(self, ops: Ops, point: Point, state: _State) -> tuple[Leaves, _State]:
        """Take, shorten or give up the step on trial, or take in the probe; then what is next."""
        xp = ops.xp
        size = xp.sqrt(tree.dot(ops, point.residual, point.residual))
        taken = state.trial & (size <= state.bound)
        refused = state.trial & xp.logical_not(taken)
        first = taken & (state.length < 1.0)
        searching = refused & xp.logical_not(state.plain)
        shortened = searching & (state.length > _SHORTEST)
        given_up = searching & xp.logical_not(shortened)
        opened = (taken & xp.logical_not(first)) | (refused & state.plain)

        ended, state = self._take_in(ops, point, state)
        share = _shortening(ops, size, state)
        state = self._move(ops, point, size, taken, state)
        if ops.traced or xp.any(opened):
            vector, cycle = GMRES(self.restart).begin(ops, opened, state.residual, state.cycle)
            vector = tree.select(ops, opened, vector, state.vector)
            state = state._replace(vector=vector, cycle=cycle)

        away, sound, gain = self._newton_step(ops, ended, state)
        if ops.traced or xp.any(shortened):
            back = tree.scale(ops, share, tree.subtract(point.z, state.base))
            away = tree.select(ops, shortened, back, away)
        plain = first | given_up | (ended & xp.logical_not(sound))
        if ops.traced or xp.any(plain):
            away = tree.select(ops, plain, state.residual, away)
        gain = xp.where(ended, gain, state.gain)
        length = xp.where(shortened, share * state.length, ops.scalar(1.0))
        enough = (1.0 - _SUFFICIENT * gain * length) * state.size
        anything = xp.where(first, state.size, ops.scalar(_INF))
        return tree.add(state.base, away), state._replace(
            trial=ended | shortened | plain,
            plain=plain,
            bound=xp.where(plain, anything, enough),
            gain=gain,
            length=length,
        )

    def renew(self, ops: Ops, mask: Number, point: Point, state: _State, count: Number) -> _State:
        """The point will be taken, and GMRES begins there."""
        xp = ops.xp
        size = xp.sqrt(tree.dot(ops, point.residual, point.residual))
        return state._replace(
            base=tree.select(ops, mask, point.z, state.base),
            residual=tree.select(ops, mask, point.residual, state.residual),
            size=xp.where(mask, size, state.size),
            forcing=xp.where(mask, self.forcing, state.forcing),
            vector=tree.select(ops, mask, point.residual, state.vector),
            cycle=state.cycle._replace(count=count),
            trial=state.trial | mask,
            plain=state.plain | mask,
            bound=xp.where(mask, _INF, state.bound),
            gain=xp.where(mask, 0.0, state.gain),
            length=xp.where(mask, 1.0, state.length),
        )

    def _take_in(self, ops: Ops, point: Point, state: _State) -> tuple[Number, _State]:
        """GMRES with the product that a probe gives; which systems have done with it."""
        xp, cycle = ops.xp, state.cycle
        probed = xp.logical_not(state.trial)
        if not ops.traced and not xp.any(probed):
            return probed, state._replace(cycle=cycle._replace(count=cycle.count + 1.0))
        change = tree.subtract(state.residual, point.residual)
        image = tree.scale(ops, xp.reciprocal(state.spacing), change)
        # Elsewhere anything finite will do: the next cycle begins with nothing in use.
        image = tree.select(ops, probed, image, state.vector)
        new = GMRES(self.restart).expand(ops, state.vector, image, cycle)
        left = xp.abs(new.state.size)
        more = left > state.forcing * xp.sum(new.state.right)  # not so where it is NaN
        ended = probed & xp.logical_not(more & xp.logical_not(new.full | new.stuck))
        vector = tree.select(ops, probed & xp.logical_not(ended), new.vector, state.vector)
        return ended, state._replace(vector=vector, cycle=new.state)

    def _move(self, ops: Ops, point: Point, size: Number, taken: Number, state: _State) -> _State:
        """The Newton iterate where a step was taken, and the forcing term there."""
        xp = ops.xp
        if not ops.traced and not xp.any(taken):
            return state
        unit = unit_of(point.z) ** 0.5
        inverse = xp.reciprocal(state.size)
        eta = xp.abs(size * inverse - (1.0 - state.gain * state.length))
        before = (1.0 - state.length * (1.0 - state.forcing)) ** _GOLDEN
        eta = xp.where((before > 0.1) & (before > eta), before, eta)
        known = xp.logical_not(state.plain) & xp.isfinite(eta)
        eta = xp.where(known, eta, state.forcing)
        wanted = 0.5 * point.tolerance * xp.reciprocal(point.error)
        for least in (wanted, ops.scalar(_NOISE * unit)):
            eta = xp.where(eta < least, least, eta)
        eta = xp.where(eta < _LARGEST, eta, ops.scalar(_LARGEST))
        spacing = unit * (xp.sqrt(tree.dot(ops, point.z, point.z)) + size)
        return state._replace(
            base=tree.select(ops, taken, point.z, state.base),
            residual=tree.select(ops, taken, point.residual, state.residual),
            size=xp.where(taken, size, state.size),
            spacing=xp.where(taken, spacing, state.spacing),
            forcing=xp.where(taken, eta, state.forcing),
        )

    def _newton_step(self, ops: Ops, ended: Number, state: _State) -> tuple[Leaves, Number, Number]:
        """s where GMRES has ended, else a probe; whether s is any good, and its gain."""
        xp = ops.xp
        probe = tree.scale(ops, state.spacing, state.vector)

        def solved() -> tuple[Leaves, Number]:
            s = GMRES(self.restart).correction(ops, state.cycle)
            square = tree.dot(ops, s, s)
            return tree.select(ops, ended, s, probe), xp.isfinite(square) & (square > 0.0)

        # No cond where traced: TensorFlow's graph optimiser loses the outputs of one whose leaves
        # differ in shape.
        needed = ops.traced or xp.any(ended)
        away, sound = solved() if needed else (probe, state.trial)
        left = xp.abs(state.cycle.size) * xp.reciprocal(xp.sum(state.cycle.right))
        return away, sound, 1.0 - left


def _shortening(ops: Ops, size: Number, state: _State) -> Number:
    """By how much to shorten the step on trial.

    φ(λ) = ‖r(z + λs)‖²/‖r(z)‖² has φ(0) = 1, and φ′(0) = −2(2g − g²) for a step of GMRES of
    gain g; with p half the slope along the step on trial, φ = 1 − 2pt + (φ(1) − 1 + 2p)t².
    """
    xp = ops.xp
    half = state.length * state.gain * (2.0 - state.gain)
    ratio = size * xp.reciprocal(state.size)
    share = half * xp.reciprocal(ratio * ratio - 1.0 + 2.0 * half)
    share = xp.where(share > 0.1, share, ops.scalar(0.1))
    share = xp.where(share < 0.5, share, ops.scalar(0.5))
    return xp.where(xp.isfinite(size), share, ops.scalar(0.25))
