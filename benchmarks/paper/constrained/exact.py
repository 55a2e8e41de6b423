"""Dense float64 references in NumPy: solutions of quadratic programs and their derivatives."""

from itertools import combinations
from typing import NamedTuple

import numpy as np


class Slopes(NamedTuple):
    """Derivatives of a loss of x with respect to the parts of a program."""

    quadratic: np.ndarray
    linear: np.ndarray
    normals: np.ndarray
    """Of the rows that hold with equality."""
    offsets: np.ndarray


def kkt(quadratic: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """[[Q, Rᵀ], [R, 0]]."""
    n = len(rows)
    return np.block([[quadratic, rows.T], [rows, np.zeros((n, n))]])


def equality(
    quadratic: np.ndarray, linear: np.ndarray, rows: np.ndarray, offsets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """x of least ½xᵀQx + cᵀx where Rx = e, and the multipliers m with Qx + c + Rᵀm = 0."""
    found = np.linalg.solve(kkt(quadratic, rows), np.concatenate([-linear, offsets]))
    return found[: len(linear)], found[len(linear) :]


def slopes(
    quadratic: np.ndarray,
    rows: np.ndarray,
    x: np.ndarray,
    multipliers: np.ndarray,
    slope: np.ndarray,
) -> Slopes:
    """Derivatives of a loss whose gradient at x is ``slope``, by the same system.

    With [s; t] = K⁻¹[slope; 0]: −s for c, t for e, −½(s xᵀ + x sᵀ) for Q, as E depends on its
    symmetric part alone, and −(m sᵀ + t xᵀ) for R. Amos, Kolter, arXiv 1703.00443.
    """
    right = np.concatenate([slope, np.zeros(len(rows))])
    found = np.linalg.solve(kkt(quadratic, rows), right)
    s, t = found[: len(x)], found[len(x) :]
    outer = np.outer(s, x)
    return Slopes(-0.5 * (outer + outer.T), -s, -np.outer(multipliers, s) - np.outer(t, x), t)


def minimum(
    quadratic: np.ndarray, linear: np.ndarray, rows: np.ndarray, offsets: np.ndarray
) -> np.ndarray:
    """x of least ½xᵀQx + cᵀx where Rx ≤ e, by trying every set of active rows.

    Raises:
        ValueError: no set satisfies the conditions of Karush, Kuhn and Tucker.
    """
    most = len(linear)
    for count in range(most + 1):
        for active in map(list, combinations(range(len(rows)), count)):
            if np.linalg.matrix_rank(rows[active]) < count:
                continue
            x, multipliers = equality(quadratic, linear, rows[active], offsets[active])
            if np.all(multipliers >= 0.0) and np.all(rows @ x <= offsets + 1e-12):
                return x
    raise ValueError(f"expected a program with a solution, received offsets {offsets}")
