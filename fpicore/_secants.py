"""Inverse Jacobians by rank-one updates that hold the newest secant: −H = I − Σ ω_j u_j w_jᵀ."""

from typing import NamedTuple

from . import _tree as tree
from ._numbers import column, one_hot
from ._ops import Number, Ops
from ._tree import Histories, Leaves

SMALLEST_PIVOT = 1e-12
"""A denominator below this, where 1 is normal, is rounding, and the step would be too."""


class Updates(NamedTuple):
    """The memory, and the point that the next pair begins at."""

    updates: Histories
    """u_j = s_j − H_j y_j."""
    changes: Histories
    """w_j: y_j of the bad method, H_jᵀs_j of the good one."""
    weights: Number
    """ω_j = 1/(w_jᵀy_j); 0 where a slot is not in use."""
    count: Number
    z: Leaves
    residual: Leaves


def no_updates(ops: Ops, z: Leaves, history: int) -> Updates:
    """H = −I."""
    return Updates(
        updates=tree.history(ops, z, history),
        changes=tree.history(ops, z, history),
        weights=ops.numbers(z[0], 0.0, (history,)),
        count=ops.scalar(0.0),
        z=z,
        residual=z,
    )


def updated(ops: Ops, memory: Updates, s: Leaves, y: Leaves, good: bool = False) -> Updates:
    """The memory with a pair, without weight where the update breaks down; emptied when full."""
    xp, length = ops.xp, memory.weights.shape[-1]
    slot = (memory.count - 1.0) % length
    # The first slot is written when the memory is full, or before there is any pair.
    kept = xp.where(slot > 0.0, ops.scalar(1.0), ops.scalar(0.0)) * memory.weights
    c = kept * tree.project(ops, memory.changes, y)
    u = tree.subtract(tree.add(s, y), tree.combine(ops, c, memory.updates, y))
    w = y
    if good:
        c = kept * tree.project(ops, memory.updates, s)
        w = tree.subtract(tree.combine(ops, c, memory.changes, s), s)
    denominator = tree.dot(ops, w, y)
    weight = xp.reciprocal(denominator)
    sound = xp.isfinite(tree.dot(ops, u, u)) & xp.isfinite(weight) & (memory.count > 0.0)
    if good:
        sound = sound & (xp.abs(denominator) > SMALLEST_PIVOT * tree.dot(ops, s, s))
    weight = xp.where(sound, weight, ops.scalar(0.0))
    updates = tree.store(ops, memory.updates, slot, tree.select(ops, sound, u, s))
    changes = tree.store(ops, memory.changes, slot, w)
    weights = xp.where(one_hot(ops, slot, length), column(ops, weight), kept)
    return memory._replace(
        updates=updates, changes=changes, weights=weights, count=memory.count + 1.0
    )


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


def inverse(ops: Ops, memory: Updates, v: Leaves, tangent: bool) -> Leaves:
    """−Hv, or its transpose."""
    near, far = memory.changes, memory.updates
    if not tangent:
        near, far = far, near
    c = memory.weights * tree.project(ops, near, v)
    return tree.subtract(v, tree.combine(ops, c, far, v))
