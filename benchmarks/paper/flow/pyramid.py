"""From coarse to fine, outside what is differentiated: pyramids, warps and what a model is given.

Flows are (n, rows, columns, 2) here, as the models take them.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.ndimage import median_filter

from ..frameworks import Arrays
from .pictures import Pairs, halved, sampled


class Schedule(NamedTuple):
    """How often a flow is refined."""

    least: int = 10
    """Pixels of the shorter side of the coarsest level, about."""
    warps: int = 3
    """At each level."""
    median: int = 3
    """Side of the median filter between refinements."""


class Level(NamedTuple):
    """Pictures at one resolution, (n, rows, columns), and the truth."""

    first: np.ndarray
    second: np.ndarray
    truth: np.ndarray
    known: np.ndarray


def pyramid(pairs: Pairs, least: int) -> list[Level]:
    """Levels from fine to coarse, each half the last; the pictures continued to fit."""
    rows, columns = pairs.first.shape[1:]
    count = max(1, int(np.log2(min(rows, columns) / least)) + 1)
    unit = 2 ** (count - 1)
    border = ((0, -rows % unit), (0, -columns % unit))
    pictures = np.stack([pairs.first, pairs.second], 1)
    scale = pictures[:, 0].std((1, 2))[:, None, None, None]
    pictures = (pictures - pictures[:, :1].mean((2, 3), keepdims=True)) / scale
    pictures = np.pad(pictures, ((0, 0), (0, 0), *border), mode="edge")
    truth = np.pad(pairs.flow, ((0, 0), (0, 0), *border), mode="edge")
    known = np.pad(pairs.known, ((0, 0), *border))
    found = []
    for _ in range(count):
        found.append(Level(pictures[:, 0], pictures[:, 1], truth.transpose(0, 2, 3, 1), known))
        pictures, truth = halved(pictures), 0.5 * halved(truth)
        known = (halved(known) > 0.99).astype(np.float32)
    return found


def refine(pairs: Pairs, schedule: Schedule, solve: Callable[[Arrays], np.ndarray]) -> np.ndarray:
    """The flow of pairs, (n, rows, columns, 2): ``solve`` takes a batch and refines its flow."""
    levels = pyramid(pairs, schedule.least)
    flow = np.zeros_like(levels[-1].truth)
    for level in reversed(levels):
        if flow.shape != level.truth.shape:
            flow = 2.0 * doubled(flow)
        for _ in range(schedule.warps):
            flow = filtered(solve(as_batch(level, flow)), schedule.median)
    rows, columns = pairs.first.shape[1:]
    return flow[:, :rows, :columns]


def doubled(x: np.ndarray) -> np.ndarray:
    """Twice the rows and columns, linear between the centres of the pixels."""
    for axis in (1, 2):
        ends = np.take(x, [0], axis), np.take(x, [-1], axis)
        whole = np.concatenate([ends[0], x, ends[1]], axis)
        n = x.shape[axis]
        before, here, after = (np.take(whole, range(i, i + n), axis) for i in range(3))
        parts = np.stack([0.75 * here + 0.25 * before, 0.75 * here + 0.25 * after], axis + 1)
        x = parts.reshape(*x.shape[:axis], 2 * n, *x.shape[axis + 1 :])
    return x


def filtered(flow: np.ndarray, size: int) -> np.ndarray:
    """The median of each component in a square of ``size``."""
    return median_filter(flow, (1, size, size, 1), mode="nearest") if size > 1 else flow


def as_batch(level: Level, flow: np.ndarray) -> Arrays:
    """What a model takes: the second picture drawn back by the flow, and clues to trust it.

    The clues of a pixel are both pictures, what they differ by, the steepness of the first, the
    steepness and divergence of the flow, and whether the flow leads out of the picture.
    """
    warped = np.stack(
        [sampled(x, u.transpose(2, 0, 1)) for x, u in zip(level.second, flow, strict=True)]
    )
    rows, columns = np.indices(warped.shape[1:])
    at = rows + flow[..., 1], columns + flow[..., 0]
    inside = np.ones(warped.shape, bool)
    for x, n in zip(at, warped.shape[1:], strict=True):
        inside &= (x >= 0) & (x <= n - 1)
    slopes = np.gradient(level.first, axis=(1, 2))
    mean = np.gradient(0.5 * (level.first + warped), axis=(1, 2))
    bends = np.gradient(flow, axis=(1, 2))
    clues = (
        level.first,
        warped,
        np.abs(warped - level.first),
        np.hypot(*slopes),
        np.minimum(np.sqrt(sum(np.sum(x**2, -1) for x in bends)), 2.0),
        np.clip(bends[1][..., 0] + bends[0][..., 1], -2.0, 2.0),
        inside,
    )
    found = {
        "along_x": mean[1][..., None],
        "along_y": mean[0][..., None],
        "change": (warped - level.first)[..., None],
        "inside": inside,
        "clues": np.stack(clues, -1),
        "start": flow,
        "truth": level.truth,
        "known": level.known,
    }
    return {name: np.ascontiguousarray(x, np.float32) for name, x in found.items()}
