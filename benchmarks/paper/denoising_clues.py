"""What is computed once of a noisy picture, in NumPy: what it is like elsewhere, and clues.

Both are given to a model with the picture; no derivative passes through them.
"""

import numpy as np
from scipy.ndimage import uniform_filter

SIDE = 5
"""Of the cosine waves, and of the squares that energies are taken in."""
FILTERS = SIDE * SIDE - 1
CLUES = 2 * FILTERS + 2
WINDOW, PATCH, CUTOFF = 10, 7, 0.6
"""Shifts up to this are searched; patches of this side are compared; their distance, in σ²."""


def waves() -> np.ndarray:
    """The cosine basis of a square but its constant, low frequencies first, (side, side, 1, n)."""
    i = np.arange(SIDE)
    rows = np.cos(np.pi * np.outer(i, 2 * i + 1) / (2 * SIDE))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    basis = np.einsum("ai,bj->ijab", rows, rows).reshape(SIDE, SIDE, 1, -1)
    frequencies = np.add.outer(i**2, i**2).ravel()
    return basis[..., np.argsort(frequencies, kind="stable")[1:]]


def look(noisy: np.ndarray, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The means of similar pixels, (n, height, width), and the clues, (..., CLUES).

    Clues are logarithms, near 0 in the mean: of the energies of the waves in the picture and in
    those means, of their difference, and of how many pixels were similar.
    """
    scale = np.asarray(sigma, np.float32)[:, None, None]
    y = noisy / scale
    means, count = similar(y)
    found = (
        np.log1p(_energies(y)) - 0.7,
        np.log1p(_energies(means)) - 0.2,
        np.log1p(_blurred((y - means) ** 2))[..., None] - 0.7,
        0.25 * np.log(count)[..., None] - 1.0,
    )
    return scale * means, np.concatenate(found, axis=-1).astype(np.float32)


def similar(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Non-local means of pictures (n, height, width) with noise of σ = 1, and their weights' sums.

    Pixels p and p + s have the weight exp(−(d − 2)₊/CUTOFF²), d the mean square of what the
    patches around them differ by, which is 2 for like ones (Buades, Coll, Morel, 2005).
    """
    total, count = y.copy(), np.ones_like(y)
    height, width = y.shape[1:]
    down, across = min(WINDOW, height - 1), min(WINDOW, width - 1)
    for i in range(down + 1):
        for j in range(-across, across + 1):
            if (i, j) <= (0, 0):  # a pair counts for both of its pixels
                continue
            here = (slice(None), slice(0, height - i), slice(max(-j, 0), width - max(j, 0)))
            there = (slice(None), slice(i, height), slice(max(j, 0), width + min(j, 0)))
            distance = uniform_filter((y[here] - y[there]) ** 2, PATCH, axes=(1, 2))
            weight = np.exp(np.minimum(2.0 - distance, 0.0) / CUTOFF**2)
            total[here] += weight * y[there]
            total[there] += weight * y[here]
            count[here] += weight
            count[there] += weight
    return total / count, count


def _energies(x: np.ndarray) -> np.ndarray:
    """The squares of each wave's coefficients, blurred, (n, height, width, FILTERS)."""
    half = SIDE // 2
    padded = np.pad(x, ((0, 0), (half, half), (half, half)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (SIDE, SIDE), (1, 2))
    basis = waves().reshape(SIDE * SIDE, FILTERS).astype(np.float32)
    return _blurred((windows.reshape(*x.shape, -1) @ basis) ** 2)


def _blurred(x: np.ndarray) -> np.ndarray:
    """Means over squares of a pixel's neighbours."""
    return uniform_filter(x, SIDE, axes=(1, 2))
