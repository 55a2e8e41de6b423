"""Fields of flow as colours: the direction is the hue, the length the strength."""

from pathlib import Path

import numpy as np

from .pictures import Pairs


def coloured(flow: np.ndarray, most: float) -> np.ndarray:
    """(rows, columns, 3) of a flow (2, rows, columns); ``most`` pixels are full strength."""
    from matplotlib.colors import hsv_to_rgb

    hue = np.arctan2(flow[1], flow[0]) / (2 * np.pi) + 0.5
    strength = np.clip(np.hypot(*flow) / most, 0.0, 1.0)
    return hsv_to_rgb(np.stack([hue, strength, np.ones_like(hue)], -1))


def draw(rows: list[tuple[Pairs, dict[str, np.ndarray]]], path: Path) -> None:
    """A row for each pair: its first picture, the truth, and the flow of every method."""
    from matplotlib.figure import Figure

    names = ["first picture", "truth", *rows[0][1]]
    figure = Figure(figsize=(1.6 * len(names), 1.4 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), len(names), squeeze=False)
    for line, (pairs, found) in zip(axes, rows, strict=True):
        truth = np.where(pairs.known[0] > 0, pairs.flow[0], 0.0)
        most = float(np.max(np.hypot(*truth)))
        shown = [coloured(flow, most) for flow in (truth, *found.values())]
        line[0].imshow(pairs.first[0], cmap="gray")
        for axis, picture in zip(line[1:], shown, strict=True):
            axis.imshow(picture)
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(name, fontsize=8)
    for axis in axes.flat:
        axis.set_axis_off()
    figure.savefig(path, dpi=70)
