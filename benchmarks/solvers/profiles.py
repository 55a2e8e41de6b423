"""What a set of outcomes says: performance profiles, the table of the README, a plot.

A profile is the share of solves that a method finishes within τ times the evaluations of the best
method. Dolan and Moré, Math. Program. 91 (2002), 201.
"""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .contest import Outcome

FACTORS = (1.0, 1.1, 1.5, 2.0, 4.0, 10.0)


def ratios(outcomes: Sequence[Outcome]) -> dict[str, list[float]]:
    """Per method its evaluations over the best method's, solve by solve; inf for a failure.

    A solve that no method finishes counts for none.
    """
    best: dict[Any, float] = {}
    for o in outcomes:
        key = (o.case, o.start, o.rtol)
        best[key] = min(best.get(key, math.inf), o.evaluations or math.inf)
    found: dict[str, list[float]] = {}
    for o in outcomes:
        least = best[o.case, o.start, o.rtol]
        if least < math.inf:
            found.setdefault(o.method, []).append((o.evaluations or math.inf) / least)
    return found


def share(values: Sequence[float], factor: float) -> float:
    """The part of the solves within a factor of the best."""
    return sum(value <= factor for value in values) / len(values)


def table(outcomes: Sequence[Outcome]) -> str:
    """One row for each method, in Markdown."""
    lines = [
        "| method | failures | false claims | best | "
        + " | ".join(f"within {factor:g}×" for factor in FACTORS[1:])
        + " | median ratio |",
        "|---|" + "---|" * (len(FACTORS) + 3),
    ]
    found = ratios(outcomes)
    for method, values in found.items():
        own = [o for o in outcomes if o.method == method]
        failures = sum(o.evaluations is None for o in own)
        shares = " | ".join(f"{100 * share(values, factor):.0f} %" for factor in FACTORS)
        middle = statistics.median(values)
        lines.append(
            f"| {method} | {failures} of {len(own)} | {sum(o.false for o in own)} | {shares} | "
            + ("∞ |" if middle == math.inf else f"{middle:.2f} |")
        )
    return "\n".join(lines)


def by_case(outcomes: Sequence[Outcome]) -> str:
    """Evaluations at the finest tolerance, their median over the starts; – if one failed."""
    methods = list(dict.fromkeys(o.method for o in outcomes))
    finest = min(o.rtol for o in outcomes)
    lines = ["| problem | " + " | ".join(methods) + " |", "|---|" + "---|" * len(methods)]
    for case in dict.fromkeys(o.case for o in outcomes):
        cells = []
        for method in methods:
            own = [o for o in outcomes if (o.case, o.method, o.rtol) == (case, method, finest)]
            counts = [o.evaluations or math.inf for o in own]
            done = max(counts) < math.inf
            cells.append(f"{statistics.median(counts):.0f}" if done else "–")
        lines.append(f"| {case} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(outcomes: Sequence[Outcome], path: Path) -> None:
    """The profiles, as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    styles = {"scipy": "--", "torchdeq": ":", "jaxopt": "-.", "optimistix": (0, (3, 1, 1, 1, 1, 1))}
    figure, axes = pyplot.subplots(figsize=(9, 5.5))
    axes.set_prop_cycle(color=pyplot.get_cmap("tab20")(range(20)))
    for method, values in ratios(outcomes).items():
        finite = sorted(value for value in values if value < math.inf)
        heights = [(k + 1) / len(values) for k in range(len(finite))]
        style = next((styles[name] for name in styles if method.startswith(name)), "-")
        wide = 2.5 if method in ("Anderson", "Auto") else 1.0
        heights.append((heights or [0.0])[-1])
        axes.step(
            [*finite, 1e3], heights, linestyle=style, where="post", label=method, linewidth=wide
        )
    axes.set(xscale="log", xlim=(1, 100), ylim=(0, 1))
    axes.set(xlabel="evaluations over the fewest", ylabel="share of the solves")
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
