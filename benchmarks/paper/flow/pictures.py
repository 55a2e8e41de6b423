"""Pairs of pictures with known flow: warps of bundled photographs, and a stereo pair.

A flow u has shape (2, rows, columns), its first part along the columns (x), the second along the
rows (y), in pixels: what is at p in the first picture is at p + u(p) in the second.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

TRAIN = ("camera", "brick", "gravel", "coins", "astronaut", "coffee", "rocket", "flower")
HELD_OUT = ("grass", "ihc")
"""Pictures that pick among models; no model is trained on them."""
TEST = ("chelsea", "china", "moon", "retina")
NOISE = 0.01
"""Deviation of the noise in either picture, where white is 1."""


class Pairs(NamedTuple):
    """First and second pictures, (n, rows, columns), their flow, (n, 2, rows, columns), and
    where it is known, (n, rows, columns); float32."""

    first: np.ndarray
    second: np.ndarray
    flow: np.ndarray
    known: np.ndarray

    def some(self, chosen: np.ndarray) -> "Pairs":
        """Some of the pairs."""
        return Pairs(*(x[chosen] for x in self))


@cache
def picture(name: str) -> np.ndarray:
    """A bundled photograph in grey, white is 1, its longer side at most 640."""
    from skimage import color, data

    if name in ("china", "flower"):
        from sklearn.datasets import load_sample_image

        found = load_sample_image(f"{name}.jpg")
    else:
        found = getattr(data, "immunohistochemistry" if name == "ihc" else name)()
    grey = color.rgb2gray(found) if found.ndim == 3 else found / 255.0
    grey = grey.astype(np.float32)
    return halved(grey) if max(grey.shape) > 640 else grey


def halved(x: np.ndarray) -> np.ndarray:
    """Means of 2 × 2 pixels of the last two axes; an odd last row or column is left out."""
    x = x[..., : x.shape[-2] // 2 * 2, : x.shape[-1] // 2 * 2]
    return 0.25 * (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2])


def sampled(x: np.ndarray, flow: np.ndarray, order: int = 1) -> np.ndarray:
    """x(p + flow(p)) by splines of that order, the border continued."""
    rows, columns = np.indices(flow.shape[1:], dtype=np.float32)
    return map_coordinates(x, (rows + flow[1], columns + flow[0]), order=order, mode="nearest")


def warps(names: tuple[str, ...], count: int, size: int, seed: int) -> Pairs:
    """So many pairs of size × size pixels of those pictures in turn, reproducibly."""
    scales = {name: _scales(picture(name), 2 * size) for name in names}
    found = []
    for n in range(count):
        random = np.random.default_rng([seed, n])
        found.append(_pair(random, [scales[names[n % len(names)]], *scales.values()], size))
    return Pairs(*(np.stack(parts).astype(np.float32) for parts in zip(*found, strict=True)))


def stereo() -> Pairs:
    """The pair "motorcycle" at a quarter of its size, one pair; flow is (−disparity, 0)."""
    from skimage import color, data

    left, right, disparity = data.stereo_motorcycle()
    known = np.isfinite(disparity) & (disparity > 0.0)
    share = quarter(known.astype(np.float32))
    mean = quarter(np.where(known, disparity, 0.0)) / np.maximum(share, 1e-6)
    parts = (quarter(color.rgb2gray(x)) for x in (left, right))
    flow = np.stack([-0.25 * mean, np.zeros_like(mean)])
    # A pixel of the quarter is known where all its sixteen are.
    whole = (*parts, flow, share > 0.99)
    return Pairs(*(x[None].astype(np.float32) for x in whole))


def quarter(x: np.ndarray) -> np.ndarray:
    """Means of 4 × 4 pixels; rows and columns that are left over are left out."""
    rows, columns = x.shape[0] // 4, x.shape[1] // 4
    return x[: 4 * rows, : 4 * columns].reshape(rows, 4, columns, 4).mean((1, 3))


def _scales(x: np.ndarray, least: int) -> list[np.ndarray]:
    """The picture and its halves, as long as they hold a square of ``least``."""
    found = [x]
    while min(found[-1].shape) // 2 >= least and len(found) < 2:
        found.append(halved(found[-1]))
    return found


def _pair(
    random: np.random.Generator, pictures: list[list[np.ndarray]], size: int
) -> tuple[np.ndarray, ...]:
    """A background and up to two things before it, each with a motion of its own.

    A layer is a texture and a mask in the second picture, and a flow that says where a pixel of
    the first picture is found there. What a thing hides in one picture and not in the other is
    hidden as it would be.
    """
    background = _flow(random, size, size / 12)
    layers = [(_texture(random, pictures[0], size), np.ones((2 * size,) * 2), background)]
    for _ in range(random.integers(0, 3)):
        scales = pictures[random.integers(len(pictures))]
        own = 0.5 * background + _flow(random, size, size / 16)
        layers.append((_texture(random, scales, size), _mask(random, 2 * size), own))
    half, still = size // 2, np.zeros((2, size, size), np.float32)
    first, second, flow = still[0].copy(), still[0].copy(), still.copy()
    for texture, mask, own in layers:
        for target, by in ((first, own), (second, still)):
            seen = sampled(mask, by + half) > 0.5
            target[seen] = sampled(texture, by + half, 3)[seen]
            if target is first:
                flow[:, seen] = own[:, seen]
    noise = random.normal(0.0, NOISE, (2, size, size))
    return first + noise[0], second + noise[1], flow, np.ones((size, size))


def _texture(random: np.random.Generator, scales: list[np.ndarray], size: int) -> np.ndarray:
    """A crop of twice the size at some scale, mirrored at random; smaller pictures continue."""
    x = scales[random.integers(len(scales))]
    x = np.pad(x, [(0, max(0, 2 * size - n)) for n in x.shape], mode="symmetric")
    row, column = (random.integers(0, n - 2 * size + 1) for n in x.shape)
    x = x[row : row + 2 * size, column : column + 2 * size]
    return x[:: random.choice((1, -1)), :: random.choice((1, -1))]


def _flow(random: np.random.Generator, size: int, most: float) -> np.ndarray:
    """A shift of up to ``most`` pixels, a linear map, and a smooth field."""
    angle, length = random.uniform(0.0, 2.0 * np.pi), most * random.random()
    linear = random.normal(0.0, 0.03, (2, 2))
    at = np.indices((size, size))[::-1] - 0.5 * size
    shift = length * np.array([np.cos(angle), np.sin(angle)])
    width = random.uniform(size / 12, size / 4)
    bumps = np.stack([gaussian_filter(random.normal(size=(size, size)), width) for _ in "xy"])
    bumps *= random.uniform(0.0, 1.5) / np.std(bumps)
    return (shift[:, None, None] + np.tensordot(linear, at, 1) + bumps).astype(np.float32)


def _mask(random: np.random.Generator, size: int) -> np.ndarray:
    """A blob somewhere near the middle."""
    rows, columns = np.indices((size, size)) - random.uniform(0.3, 0.7, 2)[:, None, None] * size
    radius = size * random.uniform(0.06, 0.18)
    waves = gaussian_filter(random.normal(size=(size, size)), radius / 3)
    return (np.hypot(rows, columns) / radius + 0.3 * waves / np.std(waves) < 1.0).astype(np.float32)
