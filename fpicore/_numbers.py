"""Small dense algebra on numbers that several solvers share."""

from ._ops import Number, Ops


def column(ops: Ops, x: Number) -> Number:
    """x with a trailing axis, to meet vectors; a Python scalar as it is."""
    return x[..., None] if hasattr(x, "shape") else x


def nowhere(ops: Ops, mask: Number) -> bool:
    """Whether Python sees that a mask holds for no system. Of what is traced it cannot tell."""
    return ops.xp.any(mask) is False


def one_hot(ops: Ops, slot: Number, length: int) -> Number:
    """Boolean vector, true at slot."""
    return ops.xp.arange(length) == slot


def outer(a: Number, b: Number) -> Number:
    """a bᵀ over the last axes."""
    return a[..., :, None] * b[..., None, :]


def entry(ops: Ops, vector: Number, slot: Number) -> Number:
    """One entry of a vector."""
    if ops.traced:
        here = one_hot(ops, slot, vector.shape[-1])
        return ops.xp.sum(ops.xp.where(here, vector, ops.xp.zeros_like(vector)))
    return vector[..., int(slot)]


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


def independent(ops: Ops, gram: Number, newest: Number, bound: float) -> Number:
    """1 for each column to keep, else 0, from the Gram matrix of columns in a ring.

    From the newest slot to older ones a column is kept if its distance from the span of the newer
    ones that were kept is ≥ bound times its own length: the pivots of an LDLᵀ, whose steps leave
    out the columns that are not. A column of zeros is not kept, nor any if a number is not finite.
    """
    xp, length = ops.xp, gram.shape[-1]
    squares = xp.sum(gram * xp.eye(length))
    kept = xp.zeros_like(squares)
    for age in range(length):
        here = xp.indicator(one_hot(ops, (newest - age) % length, length))
        across = xp.sum(gram * here)
        pivot, square = xp.sum(across * here), xp.sum(squares * here)
        keep = (pivot > 0.0) & (pivot >= bound * bound * square)
        inverse = xp.where(keep, xp.reciprocal(pivot), ops.scalar(0.0))
        gram = gram - outer(across, column(ops, inverse) * across)
        kept = kept + here * column(ops, xp.where(keep, ops.scalar(1.0), ops.scalar(0.0)))
    return kept


def filtered(
    ops: Ops, gram: Number, filled: Number, newest: Number, bound: float, ridge: float
) -> Number:
    """Weights, of sum 1, that minimise ‖Σ α_i r_i‖² along those successive differences to be kept.

    The diagonal of the Gram matrix is that of the columns r_i times 1 + ridge.
    """
    xp, eye = ops.xp, ops.xp.eye(gram.shape[-1])
    here = xp.indicator(one_hot(ops, newest, gram.shape[-1]))
    used = filled * (1.0 - here)
    pure = _differences(ops, gram * (1.0 - ridge / (1.0 + ridge) * eye))
    kept = independent(ops, xp.where(outer(used, used) > 0.0, pure, 0.0 * eye), newest, bound)
    row = xp.sum(gram * here)
    slope = xp.where(kept > 0.0, xp.roll(row, -1) - row, xp.zeros_like(row))
    matrix = xp.where(outer(kept, kept) > 0.0, _differences(ops, gram), eye)
    gamma = ops.solve(matrix, slope)
    return here + gamma - xp.roll(gamma, 1)


def _differences(ops: Ops, gram: Number) -> Number:
    """The Gram matrix of each column less the one in the next slot."""
    right = ops.xp.roll(gram, -1)
    below = ops.xp.transpose(right)
    return gram - right - below + ops.xp.transpose(ops.xp.roll(below, -1))
