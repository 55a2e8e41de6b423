"""The record of a run: what was measured, where and how."""

import json
import math
import sys
from typing import Any

from ..paper.records import machine
from .libraries import versions
from .problems import problem
from .session import measure


def make(
    names: list[str], absent: list[str], problems: list[str], rounds: int, device: str, clock: str
) -> dict[str, Any]:
    """Measure; numbers are rounded to four digits."""

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    lines, times = measure(names, problems, rounds, device, clock, say)
    return {
        "machine": {**machine("numpy"), **versions(names), "device": _device(device)},
        "clock": clock,
        "rounds": rounds,
        "absent": absent,
        "problems": {
            name: {"unknowns": p.size, "dtype": p.dtype, "rtol": p.rtol, "max_steps": p.max_steps}
            for name, p in ((name, problem(name)) for name in problems)
        },
        "f_us": _rounded(times),
        "cases": [_rounded(line) for line in lines],
    }


def joined(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Runs of different frameworks on one machine as one record; ratios are within a framework.

    Raises:
        ValueError: a framework is in two of them, or they differ in how they measured.
    """
    first = records[0]
    whole = {**first, "machine": {}, "f_us": {}, "cases": [], "absent": []}
    for made in records:
        there = {line["framework"] for line in whole["cases"]}
        twice = there & {line["framework"] for line in made["cases"]}
        alike = all(made[key] == first[key] for key in ("clock", "rounds", "problems"))
        if twice or not alike or made["machine"]["processor"] != first["machine"]["processor"]:
            raise ValueError(f"expected runs alike of different frameworks, received {twice or ''}")
        whole["machine"] |= made["machine"]
        whole["absent"] += [name for name in made["absent"] if name not in whole["absent"]]
        whole["cases"] += made["cases"]
        for name, times in made["f_us"].items():
            whole["f_us"].setdefault(name, {}).update(times)
    return whole


def dumps(made: dict[str, Any]) -> str:
    """JSON with a case a line."""
    head = {key: value for key, value in made.items() if key != "cases"}
    lines = ",\n".join(f"  {json.dumps(case)}" for case in made["cases"])
    opening = json.dumps(head, indent=1)[:-2]
    return f'{opening},\n "cases": [\n{lines}\n ]\n}}\n'


def _device(device: str) -> str:
    if device == "cpu":
        return "one CPU thread"
    import torch

    return torch.cuda.get_device_name()


def _rounded(value: Any) -> Any:
    """Four digits; what is no number becomes a word, as JSON has none for it."""
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else str(value)
    return value
