"""A first guess of a clean picture, in NumPy: pixels, then groups of patches, that are alike."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.ndimage import uniform_filter

WINDOW = 10
"""Shifts up to this are searched."""
PATCH, CUTOFF = 7, 0.6
"""For pixels: patches of this side are compared; their distance, in σ²."""
EVERY = 4
"""How far apart groups of patches begin."""
PASSES = ((5, 40), (7, 70))
"""The side of their patches and how many they have, each pass after what the last one found."""


class Guess(NamedTuple):
    """Pictures (n, height, width) in the units of the noisy ones."""

    means: np.ndarray
    """The guess."""
    spread: np.ndarray
    """Variance of what the patches that hold a pixel say of it; in units squared."""
    fellows: np.ndarray
    """How many similar pixels there were; not in units."""


def guess(noisy: np.ndarray, sigma: np.ndarray) -> Guess:
    """Means of similar pixels show which patches are alike, groups of these show it better."""
    scale = np.asarray(sigma, np.float32)[:, None, None]
    y = noisy / scale
    means, fellows = similar(y)
    spread = np.zeros_like(y)
    for side, number in PASSES:
        found = [grouped(*pair, side, number) for pair in zip(y, means, strict=True)]
        means, spread = (np.stack(x) for x in zip(*found, strict=True))
    return Guess(scale * means, scale**2 * spread, fellows)


def remembered(noisy: np.ndarray, sigma: np.ndarray) -> Guess:
    """`guess`; the last ones are kept, as all models are tested on the same pictures."""
    return _remembered(noisy.tobytes(), noisy.shape, noisy.dtype.str, tuple(sigma.tolist()))


@lru_cache(maxsize=64)
def _remembered(noisy: bytes, shape: tuple[int, ...], kind: str, sigma: tuple[float, ...]) -> Guess:
    return guess(np.frombuffer(noisy, kind).reshape(shape), np.asarray(sigma, kind))


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


def grouped(
    y: np.ndarray, pilot: np.ndarray, side: int, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """The guess and its spread, of a picture (height, width) with noise of σ = 1.

    The patches that are most like one in the pilot are taken for draws of a normal distribution;
    its covariance C is that of the pilot's patches, its mean b that of the noisy ones, and a noisy
    patch x becomes b + C (C + I)⁻¹ (x − b), its best guess. A pixel is the mean over all patches
    that hold it (Lebrun, Buades, Morel, SIAM J. Imaging Sciences 6 (2013), 1665, their second
    step; their first is another).
    """
    corners = alike(pilot, side, number)
    inside = np.add.outer(np.arange(side) * y.shape[1], np.arange(side)).ravel()
    pixels = corners[..., None] + inside
    noisy, plain = y.ravel()[pixels], pilot.ravel()[pixels]
    plain -= plain.mean(axis=1, keepdims=True)
    covariance = plain.swapaxes(1, 2) @ plain / np.float32(corners.shape[1] - 1)
    kept = np.linalg.solve(covariance + np.eye(side * side, dtype=y.dtype), covariance)
    base = noisy.mean(axis=1, keepdims=True)
    found = base + (noisy - base) @ kept  # C and (C + I)⁻¹ commute: no transpose is needed
    flat = pixels.ravel()
    covers = np.bincount(flat, minlength=y.size)
    means = np.bincount(flat, found.ravel(), y.size) / covers
    squares = np.bincount(flat, (found**2).ravel(), y.size) / covers
    spread = np.maximum(squares - means**2, 0.0)
    return means.reshape(y.shape).astype(y.dtype), spread.reshape(y.shape).astype(y.dtype)


def alike(pilot: np.ndarray, side: int, number: int) -> np.ndarray:
    """First pixels, as places in the flat picture, of each group's patches, (groups, number).

    Groups begin at every fourth patch along both axes and at the last ones.
    """
    ends = [length - side + 1 for length in pilot.shape]
    starts = [np.append(np.arange(0, end - 1, EVERY), end - 1) for end in ends]
    reach = [min(WINDOW, end - 1) for end in ends]
    shifts = [(i, j) for i in _span(reach[0]) for j in _span(reach[1])]
    distances = np.full((len(shifts), *map(len, starts)), np.inf, pilot.dtype)
    for distance, shift in zip(distances, shifts, strict=True):
        within = [
            np.flatnonzero((at + s >= 0) & (at + s < end))
            for at, s, end in zip(starts, shift, ends, strict=True)
        ]
        places = (at[w] + min(s, 0) for at, w, s in zip(starts, within, shift, strict=True))
        distance[np.ix_(*within)] = _differences(pilot, shift, side)[np.ix_(*places)]
    number = min(number, (reach[0] + 1) * (reach[1] + 1))  # as many as a corner has around it
    best = np.argpartition(distances.reshape(len(shifts), -1), number - 1, axis=0)[:number].T
    offsets = np.array([i * pilot.shape[1] + j for i, j in shifts])
    return np.add.outer(starts[0] * pilot.shape[1], starts[1]).reshape(-1, 1) + offsets[best]


def _span(reach: int) -> range:
    return range(-reach, reach + 1)


def _differences(x: np.ndarray, shift: tuple[int, int], side: int) -> np.ndarray:
    """Mean squares over the patches that lie in the picture both as they are and shifted."""
    here = tuple(slice(max(-s, 0), n - max(s, 0)) for s, n in zip(shift, x.shape, strict=True))
    there = tuple(slice(max(s, 0), n + min(s, 0)) for s, n in zip(shift, x.shape, strict=True))
    half = side // 2
    return uniform_filter((x[here] - x[there]) ** 2, side)[half:-half, half:-half]
