"""Optical flow: a learned energy and its minimum, beside TV-L1, Lucas–Kanade and no flow.

``python -m benchmarks.paper.flow [--framework jax] [--seeds 1] [--quick] [--json FILE]``

Trained on known warps of bundled photographs; the parameters of least error on warps of held-out
photographs are tested on warps of further ones, and on a stereo pair with known disparity.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.progress import track

from ..frameworks import NAMES, Arrays, Framework, open_framework
from ..records import machine
from .baselines import flows, tuned
from .pictures import HELD_OUT, TEST, TRAIN, Pairs, stereo, warps
from .plot import draw
from .pyramid import Schedule
from .train import Options, errors, estimator, train

QUICK = Options(
    passes=4,
    batch=4,
    pool=8,
    size=32,
    rate=3e-3,
    every=2,
    schedule=Schedule(20, 3, 3),
)
SCHEDULES = [Schedule(10, n, m) for n in (4, 8) for m in (3, 5)]
"""Of which one is picked on the held-out pairs, after training."""


class Data(NamedTuple):
    """Pairs to train on, to tune the other methods on, to pick by, and to test on."""

    train: Pairs
    tune: Pairs
    held: Pairs
    test: dict[str, Pairs]


def gather(options: Options, quick: bool) -> Data:
    """All of them; in small ones without the stereo pair."""
    size = options.size if quick else 96
    counts = (4, 4, 4) if quick else (16, 12, 32)
    tune, held, test = (
        warps(names, count, size, seed)
        for names, count, seed in zip((TRAIN, HELD_OUT, TEST), counts, (1, 2, 3), strict=True)
    )
    named = {"warps": test} if quick else {"warps": test, "stereo": stereo()}
    return Data(warps(TRAIN, options.pool, options.size, 0), tune, held, named)


def evaluate(
    framework: Framework, parameters: Arrays, data: Data, options: Options, quick: bool
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Errors on the test pairs by the schedule that is best on the held-out ones, and flows."""
    estimate = estimator(framework, options.batch)
    tried = [options.schedule] if quick else SCHEDULES
    scores = [np.mean(errors(estimate(parameters, data.held, x), data.held)) for x in tried]
    schedule = tried[int(np.argmin(scores))]
    begin = time.process_time()
    found = {name: estimate(parameters, pairs, schedule) for name, pairs in data.test.items()}
    seconds = time.process_time() - begin
    means = {name: float(np.mean(errors(found[name], x))) for name, x in data.test.items()}
    figures = {"schedule": schedule._asdict(), "best_held_out": float(min(scores))}
    return {**figures, **means, "test_seconds": round(seconds, 1)}, found


def compare(data: Data, quick: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Errors of the other methods on the test pairs, and their flows."""
    told: dict[str, Any] = {"none": {"options": {}}}
    found = {"none": {name: np.zeros_like(pairs.flow) for name, pairs in data.test.items()}}
    for method, (options, function) in tuned(data.tune, quick).items():
        told[method] = {"options": options}
        begin = time.process_time()
        found[method] = {name: flows(function, options, x) for name, x in data.test.items()}
        told[method]["test_seconds"] = round(time.process_time() - begin, 1)
    for method, figures in told.items():
        for name, pairs in data.test.items():
            figures[name] = float(np.mean(errors(found[method][name], pairs)))
    return told, found


def main(arguments: list[str] | None = None) -> int:
    """Train, compare, print, and write the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--framework", choices=NAMES, default="jax")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--passes", type=int, default=None, help="of training")
    parser.add_argument("--quick", action="store_true", help="some seconds; for the tests")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw some of the flows")
    given = parser.parse_args(arguments)
    options = QUICK if given.quick else Options()
    options = Options(**{**vars(options), "passes": given.passes or options.passes})
    framework, data = open_framework(given.framework), gather(options, given.quick)
    told, found = compare(data, given.quick)
    record: dict[str, Any] = {
        "experiment": "flow",
        "framework": given.framework,
        "machine": machine(given.framework),
        "options": asdict(options),
        "others": told,
        "runs": [],
    }
    print(json.dumps(told))
    for seed in range(given.seeds):
        watch = lambda passes: track(list(passes), description=f"seed {seed}")  # noqa: B023, E731
        parameters, run = train(framework, data.train, data.held, options, seed, watch)
        figures, found["ours"] = evaluate(framework, parameters, data, options, given.quick)
        record["runs"].append({**run, **figures})
        print(json.dumps(record["runs"][-1]))
        if given.json:
            given.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if given.plot:
        draw(_shown(data, found), given.plot)
    return 0


def _shown(
    data: Data, found: dict[str, dict[str, np.ndarray]]
) -> list[tuple[Pairs, dict[str, np.ndarray]]]:
    """The first pair of every kind, and the last of the warps, with the flows of all methods."""
    chosen = [(name, 0) for name in data.test] + [("warps", len(data.test["warps"].first) - 1)]
    methods = [method for method in ("ours", *found) if method != "none"]
    return [
        (
            data.test[name].some(np.array([n])),
            {method: found[method][name][n] for method in dict.fromkeys(methods)},
        )
        for name, n in chosen
    ]


if __name__ == "__main__":
    raise SystemExit(main())
