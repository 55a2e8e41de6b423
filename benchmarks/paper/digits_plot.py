"""Accuracy during training, and what each gradient strategy costs."""

import statistics
from pathlib import Path
from typing import Any


def draw(path: Path, record: dict[str, Any]) -> None:
    """Held-out accuracy by epoch; CPU time and memory of a step's strategies."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for i, (name, runs) in enumerate(by_model(record).items()):
        curves = zip(*(run["validation_accuracy"] for run in runs), strict=True)
        errors = [100.0 - statistics.mean(values) for values in curves]
        line = "-" if i < 5 else "--"
        left.plot(range(1, len(errors) + 1), errors, line, color=f"C{i % 10}", label=name)
        seconds = statistics.mean(run["cpu_seconds_an_epoch"] for run in runs)
        if "peak_megabytes" in runs[0]:
            memory = statistics.mean(run["peak_megabytes"] for run in runs)
            right.scatter(seconds, memory, color=f"C{i % 10}")
            right.annotate(
                name, (seconds, memory), textcoords="offset points", xytext=(4, 3), fontsize=7
            )
    left.set_yscale("log")
    left.set_xlabel("epoch")
    left.set_ylabel("held-out errors, %")
    left.legend(fontsize=6, ncols=2)
    right.set_yscale("log")
    right.set_xlabel("CPU s an epoch")
    right.set_ylabel("peak memory of a step, MB")
    figure.savefig(path, dpi=80)


def by_model(record: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The runs of each model, in the order of the record."""
    found: dict[str, list[dict[str, Any]]] = {}
    for run in record["runs"]:
        found.setdefault(run["model"], []).append(run)
    return found
