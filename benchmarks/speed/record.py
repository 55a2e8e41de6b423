"""The record of a run: what was measured, where and how."""

import json
import math
import sys
from collections.abc import Iterator
from typing import Any

from ..paper.records import machine
from .libraries import versions
from .problems import problem
from .session import measure


def make(
    names: list[str], absent: list[str], problems: list[str], rounds: int, device: str, clock: str
) -> Iterator[dict[str, Any]]:
    """Measure: the record as it is after each problem. Numbers are rounded to four digits."""

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    made: dict[str, Any] = {
        "machine": {**machine("numpy"), **versions(names), "device": _device(device)},
        "clock": clock,
        "rounds": rounds,
        "absent": absent,
        "problems": {},
        "f_us": {},
        "cases": [],
    }
    for name, lines, seconds in measure(names, problems, rounds, device, clock, say):
        p = problem(name)
        made["problems"][name] = {
            "unknowns": p.size, "dtype": p.dtype, "rtol": p.rtol, "max_steps": p.max_steps
        }  # fmt: skip
        made["f_us"].setdefault(name, {}).update(_rounded(seconds))
        made["cases"] += [_rounded(line) for line in lines]
        yield made


def joined(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Runs on one machine as one record: ratios are within a framework and a problem.

    Raises:
        ValueError: a problem in a framework is in two of them, or they measured in other ways.
    """
    first = records[0]
    empty: dict[str, Any] = {"machine": {}, "problems": {}, "f_us": {}, "cases": [], "absent": []}
    whole = {**first, **empty}
    for made in records:
        twice = _pairs(whole) & _pairs(made)
        if twice:
            raise ValueError(f"expected each problem and framework once, received {twice} again")
        for key in ("clock", "rounds"):
            if made[key] != first[key]:
                raise ValueError(f"expected {key} {first[key]} in all, received {made[key]}")
        if made["machine"]["processor"] != first["machine"]["processor"]:
            raise ValueError("expected one processor, received runs on several")
        whole["machine"] |= made["machine"]
        whole["problems"] |= made["problems"]
        whole["absent"] += [name for name in made["absent"] if name not in whole["absent"]]
        whole["cases"] += made["cases"]
        for name, times in made["f_us"].items():
            whole["f_us"].setdefault(name, {}).update(times)
    return whole


def _pairs(made: dict[str, Any]) -> set[tuple[str, str]]:
    return {(line["problem"], line["framework"]) for line in made["cases"]}


def dumps(made: dict[str, Any]) -> str:
    """JSON with a case a line."""
    head = {key: value for key, value in made.items() if key != "cases"}
    lines = ",\n".join(f"  {json.dumps(case)}" for case in made["cases"])
    opening = json.dumps(head, indent=1)[:-2]
    return f'{opening},\n "cases": [\n{lines}\n ]\n}}\n'


def has_gpu() -> bool:
    """Whether PyTorch, which names the GPU in the record, finds one."""
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


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
