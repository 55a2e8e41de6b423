"""A picture before and after, and each method's score at each σ."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .pictures import Picture, levels, noisy, psnr

SHOWN = ("BM3D", "unrolled_gd_10", "fpi_gd", "fpi_nn")


def draw(
    path: Path,
    record: dict[str, Any],
    restorers: dict[str, Callable[[np.ndarray, float], np.ndarray]],
    picture: Picture,
) -> None:
    """Crops at the middle σ, and the mean PSNR over that of the noisy pictures."""
    from matplotlib.figure import Figure

    sigmas = record["options"]["sigmas"]
    sigma = sigmas[len(sigmas) // 2]
    dirty = noisy(picture, sigma)
    shown = {"clean": picture.pixels, f"noisy, σ = {sigma:g}": dirty}
    shown |= {name: restorers[name](dirty, sigma) for name in SHOWN if name in restorers}
    figure = Figure(figsize=(1.7 * len(shown), 4.2), layout="constrained")
    halves: Any = figure.subfigures(2, 1)
    above, below = halves
    axes = above.subplots(1, len(shown), squeeze=False)[0]
    side = min(96, len(dirty))
    for axis, (name, pixels) in zip(axes, shown.items(), strict=True):
        axis.imshow(levels(pixels)[:side, -side:], cmap="gray", vmin=0, vmax=255)
        merit = "" if name == "clean" else f"\n{psnr(picture.pixels, pixels):.2f} dB"
        axis.set_title(name + merit, fontsize=8)
        axis.set_axis_off()
    _bars(below.subplots(), record, sigmas)
    figure.savefig(path, dpi=72)


def _bars(axis: Any, record: dict[str, Any], sigmas: list[float]) -> None:
    """Groups of bars, one a σ; the first run of each method."""
    runs = {run["model"]: run["test"] for run in reversed(record["runs"])}
    floor = runs.pop("noisy")
    names = list(reversed(runs))
    width = 0.8 / max(len(names), 1)
    for i, name in enumerate(names):
        gains = [runs[name][f"{s:g}"]["psnr"] - floor[f"{s:g}"]["psnr"] for s in sigmas]
        axis.bar(np.arange(len(sigmas)) + (i + 0.5) * width - 0.4, gains, width, label=name)
    axis.set_xticks(range(len(sigmas)), [f"σ = {s:g}" for s in sigmas])
    axis.set_ylabel("gain in PSNR, dB")
    axis.legend(fontsize=6, ncols=2)
