"""The tables of benchmarks/README.md and of README.md, made of the records in benchmarks/results.

``python -m benchmarks.paper.tables`` writes them between their markers.
"""

import statistics
from collections.abc import Callable
from typing import Any

from ..speed import summary
from .records import FOLDER, named_results, results
from .tables_images import denoising, digits
from .tables_layers import constrained, flow

FIRST = {
    "torch eager": "torch eager, bare loop, plain",
    "jax jit": "jax jit, Picard, one system",
}
"""A case of each, whose record tells the time of f."""
BEGIN, END = "<!-- {}: begin, generated -->", "<!-- {}: end -->"


def bibtex() -> str:
    """One row for each framework and model, and the published iteration's cost."""
    lines = [
        "| model | framework | seeds | test F1, mean ± deviation | held-out F1 | CPU s an epoch | "
        "not converged, forward / backward | steps, forward / backward |",
        "|---" * 8 + "|",
    ]
    records = results("bibtex-*.json")
    trained = [record for record in records if "framework" in record]
    for model in ("fpi_nn", "fpi_gd", "mlp"):
        for record in trained:
            runs = [run for run in record["runs"] if run["model"] == model]
            if runs:
                lines.append(_row(model, record["framework"], runs))
    for record in records:
        if "framework" not in record:
            lines += [
                f"| {run['model']}, the published iteration | torch | | | | "
                f"{run['cpu_seconds_an_epoch']:.0f} | {run['batches_at_the_cap']} of "
                f"{run['batches_run']} batches | {run['mean_steps_forward']:.0f} / "
                f"{run['mean_steps_backward']:.0f} |"
                for run in record["runs"]
            ]
    return "\n".join(lines)


def overhead() -> str:
    """The solver's own time, a column for each size."""
    found = {record["size"]: record for record in results("overhead-*.json")}
    records = {size: record["cases"] for size, record in found.items()}
    sizes = sorted(records, key=lambda size: int(size.split("x")[0]))
    lines = [f"| overhead | {' | '.join(sizes)} |", "|---" * (1 + len(sizes)) + "|"]
    for case in records[sizes[0]]:
        cells = [f"{records[size][case]['overhead']:.2f}" for size in sizes]
        lines.append(f"| {case} | {' | '.join(cells)} |")
    for name, case in FIRST.items():
        cells = [f"{records[size][case]['f_us']:.0f}" for size in sizes]
        lines.append(f"| {name}, f alone, µs | {' | '.join(cells)} |")
    for name in found[sizes[0]]["calls_ms"]:
        cells = [f"{found[size]['calls_ms'][name]:.2f}" for size in sizes]
        lines.append(f"| a call of JAX, {name}, Anderson, ms | {' | '.join(cells)} |")
    return "\n".join(lines)


def speed() -> str:
    """fpicore beside the fastest peer, from each record of ``benchmarks.speed``."""
    return "\n\n".join(
        f"{summary.provenance(record, name)}\n\n{summary.table(record)}"
        for name, record in named_results("speed-*.json").items()
    )


def brief() -> str:
    """The same in a line for each problem."""
    return "\n\n".join(summary.brief(record) for record in results("speed-*.json"))


def _row(model: str, framework: str, runs: list[dict[str, Any]]) -> str:
    def mean(name: str) -> float:
        return statistics.mean(run[name] for run in runs)

    scores = [run["test_f1"] for run in runs]
    deviation = f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
    solves = "| | |"
    if "systems" in runs[0]:
        parts = [sum(run[f"unconverged_{way}"] for run in runs) for way in ("forward", "backward")]
        total = sum(run["systems"] for run in runs)
        solves = (
            f"| {parts[0]} / {parts[1]} of {total} | {mean('mean_steps_forward'):.1f} / "
            f"{mean('mean_steps_backward'):.1f} |"
        )
    return (
        f"| {model} | {framework} | {len(runs)} | {statistics.mean(scores):.1f}{deviation} | "
        f"{mean('validation_f1'):.1f} | {mean('cpu_seconds_an_epoch'):.1f} {solves}"
    )


TABLES: dict[str, Callable[[], str]] = {
    "overhead": overhead,
    "bibtex": bibtex,
    "denoising": denoising,
    "digits": digits,
    "constrained": constrained,
    "flow": flow,
    "speed": speed,
}


FRONT = {"speed": brief}
"""Of the project's own README."""
PAGES = {FOLDER / "README.md": TABLES, FOLDER.parent / "README.md": FRONT}


def filled(text: str, tables: dict[str, Callable[[], str]]) -> str:
    """The page with its tables."""
    for name, table in tables.items():
        begin, end = BEGIN.format(name), END.format(name)
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{table()}\n{end}{rest.split(end)[1]}"
    return text


if __name__ == "__main__":
    for page, tables in PAGES.items():
        page.write_text(filled(page.read_text(encoding="utf-8"), tables), encoding="utf-8")
