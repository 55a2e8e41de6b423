"""Constrained programs as fixed points: exactness, and a constraint that is learned.

``python -m benchmarks.paper.constrained [--framework torch] [--quick] [--json FILE] [--plot FILE]``

Projected gradient and ADMM in float64. First, their values and gradients beside those of the
dense KKT system; then the box, or the polygon, of a program is learned from its solutions.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.progress import track

from ..frameworks import NAMES, open_framework
from ..records import machine
from .learn import TASKS, Options, learn
from .measure import measure
from .plot import draw
from .problems import PROBLEMS

QUICK = Options(programs=64, batch=32, epochs=15, rate=0.1)
QUICK_PROBLEMS, QUICK_TASKS = ("polytope",), ("polygon",)


def main(arguments: list[str] | None = None) -> int:
    """Measure, learn, print, and write the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--framework", choices=NAMES, default="torch")
    parser.add_argument("--seeds", type=int, default=None, help="default 3, or 1 if --quick")
    parser.add_argument("--quick", action="store_true", help="some seconds; for the tests")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw what was learned")
    given = parser.parse_args(arguments)
    framework, options = open_framework(given.framework), QUICK if given.quick else Options()
    problems, tasks = (QUICK_PROBLEMS, QUICK_TASKS) if given.quick else (PROBLEMS, TASKS)
    seeds = range(given.seeds or (1 if given.quick else 3))
    record: dict[str, Any] = {
        "experiment": "constrained",
        "framework": given.framework,
        "machine": machine(given.framework),
        "options": asdict(options),
        "exactness": [],
        "learned": [],
    }
    with framework.double():
        for name in track(problems, description="exactness"):
            for seed in seeds:
                record["exactness"].append(measure(framework, name, seed))
                print(json.dumps(record["exactness"][-1]))
        for name in tasks:
            for seed in seeds:
                run = learn(framework, name, options, seed, lambda x, n: track(x, description=n))
                record["learned"].append(run)
                print(json.dumps({k: x for k, x in run.items() if k != "curve"}))
    if given.json:
        given.json.write_text(json.dumps(record) + "\n", encoding="utf-8")
    if given.plot:
        draw(record, given.plot)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
