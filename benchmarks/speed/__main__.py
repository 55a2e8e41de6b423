"""``python -m benchmarks.speed``: measure, print, and write the record and its plot."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
              "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):  # fmt: skip
    os.environ[_name] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_ONE_THREAD}"

from . import record, summary  # noqa: E402
from .libraries import LIBRARIES, chosen  # noqa: E402
from .problems import MAKERS, TINY, problem  # noqa: E402

_JOIN = "measure nothing: take these records of a machine for one"


def main() -> int:
    """Measure what was asked for; the record is written after each problem."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--problems", nargs="+", metavar="NAME", help=", ".join((*MAKERS, TINY)))
    parser.add_argument("--libs", nargs="+", metavar="NAME", help=", ".join(LIBRARIES))
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds")
    parser.add_argument("--quick", action="store_true", help="one tiny problem, two rounds")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--clock", choices=("cpu", "wall"), help="default: cpu, wall on a GPU")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record")
    parser.add_argument("--join", nargs="+", type=Path, metavar="FILE", help=_JOIN)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it")
    options = parser.parse_args()
    try:
        made = _measured(options)
    except ValueError as error:
        parser.error(str(error))
    print(summary.text(made))
    if options.plot:
        from .plot import draw

        draw(made, options.plot)
    return 0


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    if options.device == "cuda" and not record.has_gpu():
        raise ValueError("expected a GPU that PyTorch can use for --device cuda, found none")
    if options.join:
        texts = [path.read_text(encoding="utf-8") for path in options.join]
        made = record.joined([json.loads(text) for text in texts])
        _write(made, options.json)
        return made
    problems = options.problems or ([TINY] if options.quick else [*MAKERS])
    names, absent = chosen(options.libs)
    for name in problems:
        problem(name)
    rounds = 2 if options.quick else options.rounds
    clock = options.clock or ("cpu" if options.device == "cpu" else "wall")
    made = {}
    for made in record.make(names, absent, problems, rounds, options.device, clock):
        _write(made, options.json)
    return made


def _write(made: dict[str, Any], path: Path | None) -> None:
    if path:
        path.write_text(record.dumps(made), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
