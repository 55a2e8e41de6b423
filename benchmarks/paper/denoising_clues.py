"""What a noisy picture and its guess are like around each pixel, in NumPy: a model's clues.

They are computed once and given to it with both; no derivative passes through any of them.
"""

import numpy as np

from .denoising_guide import Guess

SIDE = 5
"""Of the cosine waves, and of the squares that energies are taken in."""
FILTERS = SIDE * SIDE - 1
CLUES = 2 * FILTERS + 3


def waves() -> np.ndarray:
    """The cosine basis of a square but its constant, low frequencies first, (side, side, 1, n)."""
    i = np.arange(SIDE)
    rows = np.cos(np.pi * np.outer(i, 2 * i + 1) / (2 * SIDE))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    basis = np.einsum("ai,bj->ijab", rows, rows).reshape(SIDE, SIDE, 1, -1)
    frequencies = np.add.outer(i**2, i**2).ravel()
    return basis[..., np.argsort(frequencies, kind="stable")[1:]]


def clues(noisy: np.ndarray, sigma: np.ndarray, guess: Guess) -> np.ndarray:
    """Logarithms, near 0 in the mean, (n, height, width, CLUES).

    Of the energies of the waves in the picture and in the guess, of their difference, of the
    guess's spread and of how many pixels were similar.
    """
    scale = np.asarray(sigma, np.float32)[:, None, None]
    y, means = noisy / scale, guess.means / scale
    found = (
        np.log1p(_energies(y)) - 0.7,
        np.log1p(_energies(means)) - 0.2,
        np.log1p(_blurred((y - means) ** 2))[..., None] - 0.7,
        np.log(guess.spread / scale**2 + 1e-3)[..., None] + 4.0,
        0.25 * np.log(guess.fellows)[..., None] - 1.0,
    )
    return np.concatenate(found, axis=-1).astype(np.float32)


def _energies(x: np.ndarray) -> np.ndarray:
    """The squares of each wave's coefficients, blurred, (n, height, width, FILTERS)."""
    half = SIDE // 2
    padded = np.pad(x, ((0, 0), (half, half), (half, half)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (SIDE, SIDE), (1, 2))
    basis = waves().reshape(SIDE * SIDE, FILTERS).astype(np.float32)
    return _blurred((windows.reshape(*x.shape, -1) @ basis) ** 2)


def _blurred(x: np.ndarray) -> np.ndarray:
    """Means over squares of a pixel's neighbours, along axes 1 and 2."""
    half = SIDE // 2
    for axis in (1, 2):
        size = x.shape[axis]
        widths = [(half, half) if i == axis else (0, 0) for i in range(x.ndim)]
        padded = np.pad(x, widths, mode="symmetric")
        parts = [padded[(slice(None),) * axis + (slice(i, i + size),)] for i in range(SIDE)]
        x = np.add.reduce(parts) / np.float32(SIDE)
    return x
