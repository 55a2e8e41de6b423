"""``python -m benchmarks.solvers [--quick] [--json FILE] [--plot FILE] [--case C] [--method M]``.

Evaluations that each method needs on each problem, from three starts to three tolerances, and its
failures. What is measured replaces the same solves in a record that is there already, so that a
method may be added without the others. With ``--table`` the README's tables and the picture of the
profiles are written from the kept record, and nothing is run.
"""

import argparse
import json
import os
import sys
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from ..paper.records import machine  # noqa: E402
from .case import RTOLS  # noqa: E402
from .contest import BUDGET, OWN, Outcome, methods, solve  # noqa: E402
from .peers import PEER_NAMES, versions  # noqa: E402
from .profiles import by_case, plot, table  # noqa: E402
from .readings import readings  # noqa: E402
from .suite import CASES  # noqa: E402

README = Path(__file__).parents[1] / "README.md"
RECORD = Path(__file__).parents[1] / "results" / "solvers.json"
QUICK = (
    "rotations", "diagonal", "chandrasekhar", "discrete_integral", "kepler", "sinkhorn",
    "freudenstein", "dennis_schnabel", "boggs",
)  # fmt: skip
BEGIN, END = "<!-- solvers: begin, generated -->", "<!-- solvers: end -->"


def contest(names: list[str], quick: bool, chosen: list[str]) -> list[Outcome]:
    """The methods on the named cases; a quick one takes a start and a tolerance of each."""
    found, entered = [], {name: methods()[name] for name in chosen}
    for name in names:
        case = CASES[name]()
        for start in range(1 if quick else len(case.starts)):
            for rtol in RTOLS[1:2] if quick else RTOLS:
                for method, call in entered.items():
                    found.append(solve(method, call, case, start, rtol))
        print(f"{name} done", file=sys.stderr)
    return found


def read(path: Path) -> list[Outcome]:
    """The outcomes of a record."""
    return [Outcome(*row) for row in json.loads(path.read_text(encoding="utf-8"))["outcomes"]]


def merged(old: list[Outcome], new: list[Outcome]) -> list[Outcome]:
    """Both, in the order of cases and methods; where they tell of the same solve, the new one."""
    solves = {(o.case, o.start, o.rtol, o.method): o for o in [*old, *new]}
    cases = {make().name: place for place, make in enumerate(CASES.values())}
    places = {name: place for place, name in enumerate([*OWN, *PEER_NAMES])}
    known = [o for o in solves.values() if o.method in places and o.case in cases]
    return sorted(known, key=lambda o: (cases[o.case], o.start, -o.rtol, places[o.method]))


def filled(text: str, path: Path) -> str:
    """The README with the tables of a record."""
    before, rest = text.split(BEGIN)
    outcomes = read(path)
    peers = json.loads(path.read_text(encoding="utf-8"))["peers"]
    listed = "Peers: " + ", ".join(f"{name} {version}" for name, version in peers.items()) + "."
    tables = "\n\n".join([listed, readings(outcomes), table(outcomes), by_case(outcomes)])
    return f"{before}{BEGIN}\n{tables}\n{END}{rest.split(END)[1]}"


def main(arguments: list[str] | None = None) -> int:
    """Run, print, and write what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.solvers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few problems, in seconds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the outcomes")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the profiles")
    parser.add_argument("--case", action="append", choices=list(CASES), help="only this problem")
    parser.add_argument("--method", action="append", choices=list(methods()), help="only this one")
    parser.add_argument("--table", action="store_true", help="write the README from the record")
    options = parser.parse_args(arguments)
    if options.table:
        README.write_text(filled(README.read_text("utf-8"), RECORD), encoding="utf-8")
        plot(read(RECORD), RECORD.with_suffix(".png"))
        return 0
    cases = options.case or list(QUICK if options.quick else CASES)
    outcomes = contest(cases, options.quick, options.method or list(methods()))
    print(table(outcomes), by_case(outcomes), sep="\n\n")
    if options.json:
        old = read(options.json) if options.json.exists() else []
        record: dict[str, object] = {"budget": BUDGET, "machine": machine("scipy")}
        record |= {"peers": versions(), "outcomes": merged(old, outcomes)}
        lines = json.dumps(record).replace("[[", "[\n[").replace("], [", "],\n[")
        options.json.write_text(lines + "\n", encoding="utf-8")
    if options.plot:
        plot(outcomes, options.plot)
    return int(any(o.false for o in outcomes))


if __name__ == "__main__":
    sys.exit(main())
