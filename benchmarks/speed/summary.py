"""Figures that a record says: medians over rounds of ratios within the round."""

import math
import statistics
from typing import Any

Line = dict[str, Any]
CERTIFIED = "certified"
"""The status of a case whose point met the stopping rule when it was measured again."""
_NAMES = {"torch": "PyTorch", "jax": "JAX", "tensorflow": "TensorFlow", "numpy": "NumPy"}


def is_ours(line: Line) -> bool:
    """Whether it is a case of fpicore."""
    return line["library"].startswith("fpicore")


def is_bare(line: Line) -> bool:
    """Whether it is a loop written by hand."""
    return line["library"].startswith("bare")


def key_of(lines: list[Line]) -> str:
    """Forward and backward, or forward where nothing differentiates."""
    return "both_ms" if any("both_ms" in line for line in lines) else "forward_ms"


def timed(record: Line, problem: str, framework: str) -> list[Line]:
    """Cases of a problem that met the certificate and were measured, the gradient right."""
    return [
        line
        for line in record["cases"]
        if line["problem"] == problem
        and line["framework"] == framework
        and line["status"] == CERTIFIED
        and "forward_ms" in line
        and has_right_gradient(record, line)
    ]


def has_right_gradient(record: Line, line: Line) -> bool:
    """Within two hundred times the tolerance of the reference, or none at all.

    What a point at the tolerance costs: where a ReLU has its kink, up to 170 times that.
    """
    error = line.get("gradient_error", 0.0)
    return not isinstance(error, str) and error <= 200 * record["problems"][line["problem"]]["rtol"]


def median(line: Line, key: str) -> float:
    """Milliseconds."""
    return statistics.median(line[key])


def ratio(line: Line, other: Line, key: str) -> float:
    """The one's time over the other's, in the same rounds."""
    return statistics.median(a / b for a, b in zip(line[key], other[key], strict=False))


def overhead(record: Line, line: Line) -> float:
    """Forward time / (evaluations × time of f)."""
    seconds = record["f_us"][line["problem"]][line["library"]]
    pairs = zip(line["forward_ms"], seconds, strict=False)
    return statistics.median(1e3 * ms / (line["evaluations"] * us) for ms, us in pairs)


def fastest(lines: list[Line], key: str) -> Line | None:
    """By the median."""
    with_key = [line for line in lines if key in line]
    return min(with_key, key=lambda line: median(line, key), default=None)


def frameworks(record: Line) -> list[str]:
    """In the order of the record."""
    return list(dict.fromkeys(line["framework"] for line in record["cases"]))


def provenance(record: Line, name: str) -> str:
    """Which run the figures of a table came from."""
    about = record["machine"]
    parts = [f"{key} {value}" for key, value in about.items() if key not in ("processor", "device")]
    return (
        f"Run: `results/{name}`; {about['processor']}, {about['device']}, {record['clock']} clock, "
        f"{record['rounds']} rounds; {', '.join(parts)}. "
        f"Not installed: {', '.join(record['absent']) or 'none'}."
    )


def table(record: Line) -> str:
    """Ours and the fastest peer, by problem and framework."""
    rows = [
        "| problem | framework | fpicore's fastest | ms | overhead | fastest peer | ms | "
        "ours / peer | bare loop | ours / loop |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in record["problems"]:
        for framework in frameworks(record):
            row = _row(record, name, framework)
            rows += [row] if row else []
    return "\n".join(rows)


def _row(record: Line, name: str, framework: str) -> str:
    lines = timed(record, name, framework)
    key = key_of(lines)
    ours = fastest([line for line in lines if is_ours(line)], key)
    if ours is None:
        there = [x for x in record["cases"] if x["problem"] == name and x["framework"] == framework]
        why = next((x["status"] for x in there if is_ours(x)), "not measured")
        return f"| {name} | {framework} | {why} | | | | | | | |"
    peer = fastest([x for x in lines if not is_ours(x) and not is_bare(x)], key)
    loop = fastest([x for x in lines if is_bare(x)], key)
    cells = [name, framework, ours["case"], f"{median(ours, key):.3g}"]
    cells.append(f"{overhead(record, ours):.2f}")
    for other, title in ((peer, True), (loop, False)):
        if other is None:
            cells += ["", "", ""] if title else ["", ""]
            continue
        words = f"{other['library']}: {other['case']}" if title else other["case"]
        cells += [words, f"{median(other, key):.3g}"] if title else [words]
        cells.append(f"{ratio(ours, other, key):.2f}")
    return "| " + " | ".join(cells) + " |"


def brief(record: Line) -> str:
    """Ours over the fastest peer alone; where no library competes, over the loop by hand."""
    shown = [x for x in frameworks(record) if not x.endswith("eager")]
    rows = [
        f"| problem | {' | '.join(map(_NAMES.__getitem__, shown))} |",
        "|---" * (1 + len(shown)) + "|",
    ]
    for name in record["problems"]:
        cells = [_brief(timed(record, name, framework)) for framework in shown]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _brief(lines: list[Line]) -> str:
    key = key_of(lines)
    ours = fastest([x for x in lines if is_ours(x)], key)
    peers = [x for x in lines if not is_ours(x)]
    other = fastest([x for x in peers if not is_bare(x)] or peers, key)
    if ours is None or other is None:
        return ""
    name = "by hand" if is_bare(other) else other["library"]
    return f"{ratio(ours, other, key):.2f} ({name})"


def text(record: Line) -> str:
    """Every case on a line, for the terminal."""
    rows = [
        f"{'problem':14s} {'library':25s} {'case':32s} {'f':>5s} {'Jᵀv':>5s} {'residual':>9s} "
        f"{'gradient':>9s} {'forward':>9s} {'both ms':>9s} {'ovhd':>6s} {'first s':>8s}"
    ]
    for line in record["cases"]:
        cells = f"{line['problem']:14s} {line['library']:25s} {line['case']:32s}"
        if "forward_ms" not in line:
            rows.append(f"{cells} {line['status']}")
            continue
        both = f"{median(line, 'both_ms'):9.3f}" if "both_ms" in line else " " * 9
        own = overhead(record, line) if line["evaluations"] else math.nan
        mark = "" if line["status"] == CERTIFIED else f"  {line['status']}"
        rows.append(
            f"{cells} {_cell(line['evaluations'], 5)} {_cell(line.get('products'), 5)} "
            f"{_cell(line['residual'], 9)} {_cell(line.get('gradient_error'), 9)} "
            f"{median(line, 'forward_ms'):9.3f} {both} "
            f"{own:6.2f} {line['first_s']:8.2f}{mark}"
        )
    return "\n".join([*rows, f"not installed: {', '.join(record['absent']) or 'none'}"])


def _cell(value: Any, width: int) -> str:
    text = "" if value is None else f"{value:.1e}" if isinstance(value, float) else str(value)
    return text.rjust(width)
