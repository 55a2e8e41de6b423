"""Inverse Jacobians by rank-one updates that hold the newest secant: −H = γI − Σ ω_j u_j w_jᵀ."""

from typing import NamedTuple

from . import _tree as tree
from ._numbers import column, entry, set_entry
from ._ops import Number, Ops, unit_of
from ._solver import Point
from ._tree import Histories, Leaves

SMALLEST_PIVOT = 1e-12
"""A denominator below this, where 1 is normal, is rounding, and the step would be too."""
_STEEP = 0.5
"""A pair that asks for less than this share of a plain step has met a steep slope."""
_REACH = 0.5
"""The share of ‖z‖ that a first step may have."""


class Updates(NamedTuple):
    """The memory, and the point that the next pair begins at."""

    updates: Histories
    """u_j = s_j − H_j y_j."""
    changes: Histories
    """w_j: y_j of the bad method, H_jᵀs_j of the good one."""
    weights: Number
    """ω_j = 1/(w_jᵀy_j); 0 where a slot is not in use."""
    scale: Number
    """γ."""
    count: Number
    z: Leaves
    residual: Leaves


def no_updates(ops: Ops, z: Leaves, history: int) -> Updates:
    """H = −I."""
    return Updates(
        updates=tree.history(ops, z, history),
        changes=tree.history(ops, z, history),
        weights=ops.numbers(z[0], 0.0, (history,)),
        scale=ops.numbers(z[0], 1.0),
        count=ops.scalar(0.0),
        z=z,
        residual=z,
    )


def first_scale(ops: Ops, point: Point) -> Number:
    """γ of a first step γr that is no longer than half of z; 1 where z is zero.

    A step that f would not feel is no use: then too it is 1, and where squares overflow.
    """
    xp, z, r = ops.xp, point.z, point.residual
    ratio = tree.dot(ops, z, z) * xp.reciprocal(tree.dot(ops, r, r))
    share = _REACH * _root(ops, ratio)
    felt = (ratio > 0.0) & (share > unit_of(z) ** 0.5)
    return xp.where((share < 1.0) & felt, share, ops.scalar(1.0))


def pair_scale(ops: Ops, s: Leaves, y: Leaves, scale: Number) -> Number:
    """γ of a step s and the change y of the residual: that for which ‖s + γy‖ is least.

    ‖s‖/‖y‖ where that is not positive, 1 unless the slope is steep, and ``scale`` without a pair.
    """
    xp, one = ops.xp, ops.scalar(1.0)
    along, size = -tree.dot(ops, s, y), tree.dot(ops, y, y)
    rate = xp.reciprocal(xp.where(size > 0.0, size, one))
    share = xp.where(along > 0.0, along * rate, _root(ops, tree.dot(ops, s, s) * rate))
    steep = (share < _STEEP) & (share > 0.0)
    known = (size > 0.0) & xp.isfinite(share)
    return xp.where(known, xp.where(steep, share, one), scale)


def _root(ops: Ops, x: Number) -> Number:
    """√x, or 1 where x is 0 or not finite, as a derivative of √x would not be finite there."""
    sound = (x > 0.0) & (x < float("inf"))
    return ops.xp.sqrt(ops.xp.where(sound, x, ops.scalar(1.0)))


def updated(ops: Ops, memory: Updates, s: Leaves, y: Leaves, good: bool = False) -> Updates:
    """The memory with a pair, without weight where the update breaks down; emptied when full."""
    slot, memory = _room(ops, memory)
    c = memory.weights * tree.project(ops, memory.changes, y)
    u = tree.subtract(tree.add(s, y), tree.combine(ops, c, memory.updates, y))
    w = y
    if good:
        c = memory.weights * tree.project(ops, memory.updates, s)
        w = tree.subtract(tree.combine(ops, c, memory.changes, s), s)
    denominator = tree.dot(ops, w, y)
    weight = ops.xp.reciprocal(denominator)
    sound = ops.xp.isfinite(tree.dot(ops, u, u)) & ops.xp.isfinite(weight) & (memory.count > 0.0)
    if good:
        sound = sound & (ops.xp.abs(denominator) > SMALLEST_PIVOT * tree.dot(ops, s, s))
    memory = memory._replace(changes=tree.store(ops, memory.changes, slot, w))
    return _stored(ops, memory, slot, tree.select(ops, sound, u, s), sound, weight)


def moved(ops: Ops, memory: Updates, point: Point, scaled: bool) -> tuple[Leaves, Updates]:
    """The bad method: −H r where the last such step has led to, and the memory with its pair.

    −H y = −H r − s there, so that u = −H r with the H that was: the memory is read once.
    """
    xp, r = ops.xp, point.residual
    slot, memory = _room(ops, memory)
    y = tree.difference(ops, memory.changes, slot, r, memory.residual)
    # What is read must have been written before, or XLA copies the memory.
    changes = tree.store(ops, memory.changes, slot, y)
    products, kept, zero = tree.project(ops, changes, r), memory.weights, ops.scalar(0.0)
    c = xp.where(kept > 0.0, kept * products, zero)
    finite = xp.isfinite(xp.sum(c))
    if ops.traced or not xp.all(finite):
        finite, nothing = column(ops, finite), xp.zeros_like(c)
        c, kept = xp.where(finite, c, nothing), xp.where(finite, kept, nothing)
    empty = xp.logical_not(xp.max(kept) > 0.0)
    memory = memory._replace(changes=changes, weights=kept)
    if scaled and (ops.traced or xp.any(empty)):
        memory = memory._replace(scale=_scale(ops, memory, point, y, empty))
    base = tree.subtract(_times(ops, memory, r), tree.combine(ops, c, memory.updates, r))
    u = base
    if ops.traced or xp.any(empty):  # H has changed since the last step, or that was another's
        s = tree.subtract(point.z, memory.z)
        u = tree.select(ops, empty, tree.add(s, _times(ops, memory, y)), base)
    weight = xp.reciprocal(tree.dot(ops, y, y))
    along = weight * entry(ops, products, slot)
    sound = xp.isfinite(along + tree.dot(ops, u, u)) & (memory.count > 0.0)
    if ops.traced or not xp.all(sound):
        u, along = tree.select(ops, sound, u, r), xp.where(sound, along, zero)
    step = tree.subtract(base, tree.scale(ops, along, u))
    memory = _stored(ops, memory, slot, u, sound, weight)
    return step, memory._replace(z=point.z, residual=r)


def quasi_newton(ops: Ops, memory: Updates, r: Leaves) -> tuple[Leaves, Updates]:
    """−H r; r itself, and an empty memory, where that is not finite."""
    xp = ops.xp
    c = memory.weights * tree.project(ops, memory.changes, r)
    finite = column(ops, xp.isfinite(xp.sum(c)))
    weights = xp.where(finite, memory.weights, xp.zeros_like(memory.weights))
    c = xp.where(finite, c, xp.zeros_like(c))
    return tree.subtract(r, tree.combine(ops, c, memory.updates, r)), memory._replace(
        weights=weights
    )


def renewed(
    ops: Ops, mask: Number, point: Point, memory: Updates, count: Number, scaled: bool
) -> Updates:
    """An empty memory for the systems of the mask, at the point."""
    where, nothing = ops.xp.where, ops.xp.zeros_like(memory.weights)
    scale = where(mask, first_scale(ops, point), memory.scale) if scaled else memory.scale
    return memory._replace(
        weights=where(column(ops, mask), nothing, memory.weights),
        scale=scale,
        count=count,
        z=tree.select(ops, mask, point.z, memory.z),
        residual=tree.select(ops, mask, point.residual, memory.residual),
    )


def _room(ops: Ops, memory: Updates) -> tuple[Number, Updates]:
    """The slot to write next; the memory is emptied when that is the first.

    Without a pair yet it is the first as well: eager memories grow with what is written.
    """
    last = abs(memory.count - 0.5) - 0.5  # count − 1, or 0, of floats and tensors alike
    slot = last % memory.weights.shape[-1]
    # The first slot is written when the memory is full, or before there is any pair.
    if not ops.traced and slot > 0.0:
        return slot, memory
    some = ops.xp.where(slot > 0.0, ops.scalar(1.0), ops.scalar(0.0))
    return slot, memory._replace(weights=some * memory.weights)


def _stored(
    ops: Ops, memory: Updates, slot: Number, u: Leaves, sound: Number, weight: Number
) -> Updates:
    """The memory with u in the slot, where w is, without weight where that is not sound."""
    xp = ops.xp
    weight = xp.where(sound, weight, ops.scalar(0.0))
    return memory._replace(
        updates=tree.store(ops, memory.updates, slot, u),
        weights=set_entry(ops, memory.weights, slot, weight),
        count=memory.count + 1.0,
    )


def _scale(ops: Ops, memory: Updates, point: Point, y: Leaves, empty: Number) -> Number:
    """γ, anew where the memory is empty."""
    xp, old = ops.xp, memory.scale

    def new() -> Number:
        s = tree.subtract(point.z, memory.z)
        scale = xp.where(empty, pair_scale(ops, s, y, old), old)
        return xp.where(memory.count > 0.0, scale, first_scale(ops, point))

    return ops.cond(xp.any(empty), new, lambda: old)


def _times(ops: Ops, memory: Updates, v: Leaves) -> Leaves:
    """γv."""
    if not ops.traced and ops.xp.all(memory.scale == 1.0):
        return v
    return tree.scale(ops, memory.scale, v)


def inverse(ops: Ops, memory: Updates, v: Leaves, tangent: bool) -> Leaves:
    """−Hv, or its transpose."""
    near, far = memory.changes, memory.updates
    if not tangent:
        near, far = far, near
    c = memory.weights * tree.project(ops, near, v)
    return tree.subtract(_times(ops, memory, v), tree.combine(ops, c, far, v))
