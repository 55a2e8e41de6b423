"""Each method's gain at each σ, and on each picture."""

from pathlib import Path
from typing import Any

import numpy as np


def draw(path: Path, record: dict[str, Any]) -> None:
    """PSNR over that of the noisy pictures: means at each σ, and each picture at the middle one."""
    from matplotlib.figure import Figure

    runs = {run["model"]: run["test"] for run in reversed(record["runs"])}
    floor = runs.pop("noisy")
    sigmas = [f"{sigma:g}" for sigma in record["options"]["sigmas"]]
    middle = sigmas[len(sigmas) // 2]
    pictures = list(floor[middle]["pictures"])
    figure = Figure(figsize=(11.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(len(sigmas), len(pictures)))
    for i, name in enumerate(reversed(runs)):
        test, place = runs[name], (i + 0.5) / len(runs) * 0.8 - 0.4
        means = [test[sigma]["psnr"] - floor[sigma]["psnr"] for sigma in sigmas]
        each = [test[middle]["pictures"][x] - floor[middle]["pictures"][x] for x in pictures]
        for axis, gains in ((left, means), (right, each)):
            axis.bar(np.arange(len(gains)) + place, gains, 0.8 / len(runs), label=name)
    left.set_xticks(range(len(sigmas)), [f"σ = {sigma}" for sigma in sigmas])
    right.set_xticks(range(len(pictures)), pictures)
    left.set_ylabel("gain in PSNR, dB")
    right.set_title(f"σ = {middle}", fontsize=9)
    left.legend(fontsize=6, ncols=2)
    figure.savefig(path, dpi=72)
