"""Grey pictures that come with scikit-image and scikit-learn, and noisy patches of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

UNIT = 25.0
"""Grey levels of 255 in one unit: arrays hold (level − 128)/25, so that noise is of order 1."""

TRAINING = (
    *("china", "coffee", "rocket", "stereo_motorcycle", "hubble_deep_field", "retina"),
    *("immunohistochemistry", "cell", "clock", "grass", "text", "page"),
)
VALIDATION = ("chelsea", "gravel")
TEST = ("camera", "astronaut", "coins", "brick", "moon", "flower")


@dataclass(frozen=True)
class Picture:
    """A name and its pixels in units, (height, width), both even."""

    name: str
    pixels: np.ndarray


def load(names: tuple[str, ...]) -> list[Picture]:
    """Pictures by name; none is downloaded."""
    return [Picture(name, _units(_read(name))) for name in names]


def _read(name: str) -> np.ndarray:
    from skimage import data
    from sklearn.datasets import load_sample_image

    if name in ("china", "flower"):
        return load_sample_image(f"{name}.jpg")
    found = getattr(data, name)()
    return found[0] if name == "stereo_motorcycle" else found


def _units(picture: np.ndarray) -> np.ndarray:
    """Luma (ITU-R BT.709, as in scikit-image), an odd last row or column left out."""
    levels = picture.astype(np.float64)
    if levels.ndim == 3:
        levels = levels[..., :3] @ np.array([0.2125, 0.7154, 0.0721])
    height, width = (size // 2 * 2 for size in levels.shape)
    return ((levels[:height, :width] - 128.0) / UNIT).astype(np.float32)


def middle(picture: Picture, size: int) -> Picture:
    """The square of that size at the centre."""
    top, left = ((length - size) // 2 for length in picture.pixels.shape)
    return Picture(picture.name, picture.pixels[top : top + size, left : left + size])


def levels(pixels: np.ndarray) -> np.ndarray:
    """Units as grey levels from 0 to 255."""
    return np.clip(pixels.astype(np.float64) * UNIT + 128.0, 0.0, 255.0)


def noisy(picture: Picture, sigma: float) -> np.ndarray:
    """The picture with the noise that is always its own, whatever else is run."""
    random = np.random.default_rng([int(sigma), *picture.name.encode()])
    noise = random.standard_normal(picture.pixels.shape, dtype=np.float32)
    return picture.pixels + np.float32(sigma / UNIT) * noise


def patches(
    pictures: list[Picture], size: int, batch: int, sigmas: tuple[float, ...], seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Clean and noisy patches (batch, size, size) and their σ, without an end.

    Every picture is as likely as any other, and so is every place in it and every turn and mirror
    image; σ is drawn between the smallest and the largest, evenly on a logarithmic scale.
    """
    random = np.random.default_rng(seed)
    low, high = np.log(min(sigmas)), np.log(max(sigmas))
    while True:
        clean = np.stack([_patch(random, pictures, size) for _ in range(batch)])
        sigma = np.exp(random.uniform(low, high, batch)).astype(np.float32)
        noise = random.standard_normal(clean.shape, dtype=np.float32)
        yield clean, clean + noise * sigma[:, None, None] / np.float32(UNIT), sigma


def _patch(random: np.random.Generator, pictures: list[Picture], size: int) -> np.ndarray:
    pixels = pictures[random.integers(len(pictures))].pixels
    top, left = (random.integers(length - size + 1) for length in pixels.shape)
    patch = np.rot90(pixels[top : top + size, left : left + size], int(random.integers(4)))
    return patch[:, ::-1] if random.integers(2) else patch


def psnr(clean: np.ndarray, found: np.ndarray) -> float:
    """Peak signal-to-noise ratio, 10 log₁₀ (255²/mean squared error), in dB."""
    return float(10.0 * np.log10(255.0**2 / np.mean((levels(clean) - levels(found)) ** 2)))


def ssim(clean: np.ndarray, found: np.ndarray) -> float:
    """Structural similarity with Gaussian windows (Wang et al., IEEE TIP 13 (2004), 600)."""
    from skimage.metrics import structural_similarity

    value: Any = structural_similarity(
        levels(clean),
        levels(found),
        data_range=255.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    return float(value)
