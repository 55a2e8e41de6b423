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


def set_entry(ops: Ops, vector: Number, slot: Number, value: Number) -> Number:
    """The vector with one entry replaced; in place where that is possible."""
    if ops.traced:
        return ops.xp.where(one_hot(ops, slot, vector.shape[-1]), column(ops, value), vector)
    vector[..., int(slot)] = value
    return vector


def set_symmetric(
    ops: Ops, matrix: Number, slot: Number, row: Number, growth: float = 1.0
) -> Number:
    """The matrix with one row and the same column replaced; in place where that is possible.

    The entry on the diagonal is multiplied by ``growth``.
    """
    if not ops.traced:
        index = int(slot)
        if matrix.ndim == 2:  # the plain index is the faster one
            matrix[index] = matrix[:, index] = row
            matrix[index, index] *= growth
        else:
            matrix[..., index, :] = row
            matrix[..., :, index] = row
            matrix[..., index, index] *= growth
        return matrix
    here = one_hot(ops, slot, row.shape[-1])
    if growth != 1.0:
        row = ops.xp.where(here, growth * row, row)
    across = ops.xp.where(here[None, :], row[..., :, None], matrix)
    return ops.xp.where(here[:, None], row[..., None, :], across)
