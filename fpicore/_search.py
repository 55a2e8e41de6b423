"""A line search without derivatives along quasi-Newton steps, one trial an evaluation."""

from typing import NamedTuple

from . import _tree as tree
from ._numbers import column
from ._ops import Number, Ops
from ._secants import Updates, no_updates, quasi_newton, updated
from ._secants import renewed as emptied
from ._solver import Point
from ._tree import Leaves

_INF = float("inf")
_SUFFICIENT = 1e-4
"""σ: ‖r‖ must fall by σλ²‖r‖, but for the allowance."""
_ALLOWED = 10.0
"""η₀: step k may let ‖r‖ grow by η₀/(k + 1)² of itself."""
_SHORT = 0.3
"""A step of this share is taken, come what may."""
_SHORTEST = 1e-3
"""Unless f is not finite there: at this share it is given up."""


class Search(NamedTuple):
    """The memory, whose pairs begin at the iterate that is searched from."""

    memory: Updates
    size: Number
    """‖r‖ there; infinite where whatever is finite shall be taken."""
    length: Number
    """Share λ of the step that is on trial."""
    taken: Number
    """k: steps taken so far."""


def no_search(ops: Ops, z: Leaves, history: int) -> Search:
    """The start is on trial, and will be taken."""
    number, memory = ops.numbers, no_updates(ops, z, history)
    return Search(memory, number(z[0], _INF), number(z[0], 1.0), number(z[0], 0.0))


def searched(ops: Ops, point: Point, state: Search, good: bool) -> tuple[Leaves, Search]:
    """Take in the pair that the trial gives; then a step from it, or a shorter one to it."""
    xp, one = ops.xp, ops.scalar(1.0)
    finite = point.error < _INF
    memory = _taken_in(ops, point, finite, state.memory, good)
    allowed = 1.0 + _ALLOWED / (1.0 + state.taken) ** 2 - _SUFFICIENT * state.length**2
    enough = (point.error <= allowed * state.size) | (state.length <= _SHORT)
    taken = finite & enough
    given_up = xp.logical_not(taken) & (state.length <= _SHORTEST)
    emptied = xp.where(column(ops, given_up), xp.zeros_like(memory.weights), memory.weights)
    memory = memory._replace(
        weights=emptied,
        z=tree.select(ops, taken, point.z, memory.z),
        residual=tree.select(ops, taken, point.residual, memory.residual),
    )
    step, memory = quasi_newton(ops, memory, memory.residual)
    shortened = _shortening(ops, point.error, state) * state.length
    length = xp.where(taken | given_up, one, shortened)
    size = xp.where(given_up, _INF, xp.where(taken, point.error, state.size))
    state = Search(memory, size, length, state.taken + xp.where(taken, one, ops.scalar(0.0)))
    return tree.add(memory.z, tree.scale(ops, length, step)), state


def renewed(ops: Ops, mask: Number, point: Point, state: Search, count: Number) -> Search:
    """H = −I, and the point will be taken."""
    xp = ops.xp
    memory = emptied(ops, mask, point, state.memory, count, scaled=False)
    size, taken = xp.where(mask, _INF, state.size), xp.where(mask, 0.0, state.taken)
    return state._replace(memory=memory, size=size, taken=taken)


def _taken_in(ops: Ops, point: Point, finite: Number, memory: Updates, good: bool) -> Updates:
    """The memory with the pair from its point to the trial; one without weight if not finite."""
    s = tree.subtract(point.z, memory.z)
    y = tree.subtract(point.residual, memory.residual)
    if ops.traced or not ops.xp.all(finite):
        nothing = tree.scale(ops, ops.numbers(point.z[0], 0.0), memory.residual)
        y = tree.select(ops, finite, y, nothing)
    return updated(ops, memory, s, y, good)


def _shortening(ops: Ops, size: Number, state: Search) -> Number:
    """By how much to shorten: to the minimiser of a parabola, or a quarter if not finite.

    φ(λ) = ‖r(z + λd)‖²/‖r(z)‖² has φ(0) = 1 and φ′(0) = −2 if d is Newton's step.
    """
    xp = ops.xp
    ratio = size * xp.reciprocal(state.size)
    share = state.length * xp.reciprocal(ratio * ratio - 1.0 + 2.0 * state.length)
    share = xp.where(share > 0.1, share, ops.scalar(0.1))
    share = xp.where(share < 0.5, share, ops.scalar(0.5))
    return xp.where(size < _INF, share, ops.scalar(0.25))
