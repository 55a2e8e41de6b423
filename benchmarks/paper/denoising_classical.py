"""Denoisers without training, told σ; what is free in them is picked on training pictures."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from .denoising_guide import remembered
from .pictures import UNIT, Picture, noisy, psnr

Denoiser = Callable[[np.ndarray, float, Any], np.ndarray]
"""(noisy, σ, choice) ↦ clean, all in units."""

WEIGHTS = tuple(0.4 * 1.25**i for i in range(8))


def _total_variation(pixels: np.ndarray, sigma: float, weight: Any) -> np.ndarray:
    """Chambolle's projection, J. Math. Imaging Vision 20 (2004), 89; weight in σ."""
    from skimage.restoration import denoise_tv_chambolle

    return denoise_tv_chambolle(pixels, weight=weight * sigma, eps=1e-5, max_num_iter=500)


def _wavelet(pixels: np.ndarray, sigma: float, choice: Any) -> np.ndarray:
    """Soft thresholds after Chang, Yu, Vetterli, IEEE TIP 9 (2000), 1532."""
    from skimage.restoration import denoise_wavelet

    wavelet, share = choice
    return denoise_wavelet(pixels, sigma=share * sigma, wavelet=wavelet, mode="soft")


def _nonlocal_means(pixels: np.ndarray, sigma: float, cutoff: Any) -> np.ndarray:
    """Buades, Coll, Morel (2005); patches of 5, windows of 21, cutoff in σ."""
    from skimage.restoration import denoise_nl_means

    return denoise_nl_means(
        pixels, patch_size=5, patch_distance=10, h=cutoff * sigma, sigma=sigma, fast_mode=True
    )


def _bm3d(pixels: np.ndarray, sigma: float, choice: Any) -> np.ndarray:
    """Dabov, Foi, Katkovnik, Egiazarian, IEEE TIP 16 (2007), 2080, as its authors publish it."""
    del choice
    return import_module("bm3d").bm3d(pixels.astype(np.float64), sigma)


def _guess(pixels: np.ndarray, sigma: float, choice: Any) -> np.ndarray:
    """What the models start from, see denoising_guide.py."""
    del choice
    return remembered(pixels[None], np.array([sigma], np.float32)).means[0]


CLASSICAL: dict[str, tuple[Denoiser, tuple[Any, ...]]] = {
    "total variation": (_total_variation, WEIGHTS),
    "wavelet": (_wavelet, tuple((w, s) for w in ("db1", "db2", "sym4") for s in (0.6, 0.8, 1.0))),
    "non-local means": (_nonlocal_means, (0.4, 0.5, 0.6, 0.7, 0.8, 1.0)),
    "guess": (_guess, (None,)),
}
if find_spec("bm3d"):  # its licence is not a free one: used where it is, required nowhere
    CLASSICAL["BM3D"] = (_bm3d, (None,))


def pick(name: str, pictures: list[Picture], sigma: float) -> Any:
    """The choice with the best mean PSNR on those pictures."""
    denoise, choices = CLASSICAL[name]

    def merit(choice: Any) -> float:
        found = [denoise(noisy(p, sigma), sigma / UNIT, choice) for p in pictures]
        pairs = zip(pictures, found, strict=True)
        return float(np.mean([psnr(p.pixels, x) for p, x in pairs]))

    return max(choices, key=merit) if len(choices) > 1 else next(iter(choices))
