"""Times of all cases that met the certificate, relative to the fastest of the framework."""

from pathlib import Path
from typing import Any

from . import summary

COLOURS = {
    "fpicore": "#d62728",
    "bare": "#7f7f7f",
    "torchdeq": "#1f77b4",
    "xitorch": "#17becf",
    "jaxopt": "#2ca02c",
    "optimistix": "#9467bd",
    "banax": "#8c564b",
    "scipy": "#ff7f0e",
}


def draw(record: dict[str, Any], path: Path) -> None:
    """A panel a framework, a row a problem, a dot a case."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = summary.frameworks(record)
    problems = list(record["problems"])
    figure, panels = pyplot.subplots(
        1, len(groups), figsize=(3.2 * len(groups) + 1.5, 0.42 * len(problems) + 1.6),
        sharey=True, squeeze=False,
    )  # fmt: skip
    for panel, framework in zip(panels[0], groups, strict=True):
        for row, name in enumerate(problems):
            _dots(panel, row, summary.timed(record, name, framework))
        panel.set(xscale="log", title=framework, xlabel="time / fastest")
        panel.xaxis.set_minor_formatter("")  # they overlap where a panel spans less than a decade
        panel.set_yticks(range(len(problems)), problems)
        panel.grid(axis="x", alpha=0.3)
    panels[0][0].invert_yaxis()
    handles = [
        pyplot.Line2D([], [], marker="o", linestyle="", color=colour, label=name)
        for name, colour in COLOURS.items()
    ]
    figure.legend(handles=handles, ncols=len(handles), loc="lower center", frameon=False)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(path, dpi=100)


def _dots(panel: Any, row: int, lines: list[dict[str, Any]]) -> None:
    key = summary.key_of(lines)
    best = summary.fastest(lines, key)
    for line in lines:
        if best is not None and key in line:
            library = line["library"].split("-")[0]
            own = library == "fpicore"
            panel.plot(
                summary.ratio(line, best, key), row + (0.15 if own else -0.15), "o",
                color=COLOURS[library], markersize=4.5, alpha=0.75,
            )  # fmt: skip
