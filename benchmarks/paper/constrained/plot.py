"""What was learned, drawn."""

from pathlib import Path
from typing import Any

import numpy as np


def draw(record: dict[str, Any], path: Path) -> None:
    """Errors by epoch, and the polygon of the first run beside the true one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for run in record["learned"]:
        epochs = [point["epoch"] for point in run["curve"]]
        error = [point["constraint"] for point in run["curve"]]
        colour = "tab:blue" if run["task"] == "bounds" else "tab:orange"
        left.semilogy(epochs, error, color=colour, label=run["task"] if run["seed"] == 0 else None)
    left.set(xlabel="epoch", ylabel="largest error of the constraint")
    left.legend()
    run = next(run for run in record["learned"] if run["task"] == "polygon")
    for name, style in (("start", "k:"), ("true", "k-"), ("found", "C1--")):
        corners = vertices(*(np.array(run[name][key]) for key in ("normals", "upper")))
        right.plot(*corners[:, [*range(corners.shape[1]), 0]], style, label=name)
    right.set_aspect("equal")
    right.legend()
    figure.savefig(path, dpi=90)


def vertices(normals: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Corners of a bounded polygon {x: Nx ≤ h}, (2, corners), in order around it."""
    found = []
    for i in range(len(upper)):
        for j in range(i):
            pair = normals[[i, j]]
            if abs(np.linalg.det(pair)) > 1e-9:
                x = np.linalg.solve(pair, upper[[i, j]])
                if np.all(normals @ x <= upper + 1e-9):
                    found.append(x)
    corners = np.array(found).T
    middle = corners.mean(1, keepdims=True)
    return corners[:, np.argsort(np.arctan2(*(corners - middle)[::-1]))]
