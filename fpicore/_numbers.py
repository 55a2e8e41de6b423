"""Small dense algebra on numbers that several solvers share."""

from ._ops import Number, Ops


def column(ops: Ops, x: Number) -> Number:
    """x with a trailing axis, to meet vectors; a Python scalar as it is."""
    return x[..., None] if hasattr(x, "shape") else x


def one_hot(ops: Ops, slot: Number, length: int) -> Number:
    """Boolean vector, true at slot."""
    return ops.xp.arange(length) == slot


def outer(a: Number, b: Number) -> Number:
    """a bᵀ over the last axes."""
    return a[..., :, None] * b[..., None, :]


def set_symmetric(ops: Ops, matrix: Number, slot: Number, row: Number) -> Number:
    """The matrix with one row and the same column replaced; in place where that is possible."""
    if not ops.traced:
        index = int(slot)
        matrix[..., index, :] = row
        matrix[..., :, index] = row
        return matrix
    here = one_hot(ops, slot, row.shape[-1])
    across = ops.xp.where(here[None, :], row[..., :, None], matrix)
    return ops.xp.where(here[:, None], row[..., None, :], across)
