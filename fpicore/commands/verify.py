"""``fpicore verify``."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from .._errors import InputError
from ..verify.frameworks import installed, select, version
from ..verify.harness import Harness
from ..verify.load import load_problem
from ..verify.markdown import check_markers, matrix_markdown, write_between
from ..verify.matrix import ROWS, explore
from ..verify.problem import FRAMEWORKS
from ..verify.problems import BUILT_IN
from ..verify.report import Environment, progress, show, write_json
from ..verify.run import SOLVERS, Campaign, Findings
from ..verify.strategies import STRATEGIES, compare
from ..verify.tolerances import TOLERANCES
from ..verify.training import Subject, problem_of
from .shared import PROBLEM_HELP, check_output, load_harnesses

_MODES = ("eager", "jit", "graph", "xla")
_PARTS = ("problems", "strategies", "matrix")
_DESCRIPTION = """\
problems:   solves and differentiates problems in every installed framework with every solver;
            compares value and gradients with a dense float64 reference computed in NumPy, and the
            frameworks with each other.
strategies: compares every gradient strategy with its own exact formula.
matrix:     compares derivatives of order 0 to 3, by every mode and transform of each framework,
            with their exact values; each is right, refused or missing.

All three by default; the problems alone where one of them or a solver is named.
"""
_EPILOG = f"""\
exit status: 0 all right, 1 something differs or fails, 2 the command could not be carried out.

{PROBLEM_HELP}"""


def add_to(commands: Any) -> None:
    """Add the command to the parser of ``fpicore``."""
    parser = commands.add_parser(
        "verify",
        help="solve and differentiate problems in every framework, and compare",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_run)
    add = parser.add_argument
    add("target", nargs="?", metavar="FILE.py:NAME", help="your own problem")
    add("--backend", action="append", metavar="NAME", help="only this framework (repeatable)")
    add("--solver", action="append", metavar="NAME", help="only this solver (repeatable)")
    add("--problem", action="append", metavar="NAME", help="only this problem (repeatable)")
    add("--dtype", choices=tuple(TOLERANCES), default="float64")
    add("--mode", choices=_MODES, help="in frameworks that have it, instead of their default")
    add("--only", action="append", choices=_PARTS, help="only this part (repeatable)")
    add("--json", type=Path, metavar="FILE", help="write everything that was found")
    add("--markdown", type=Path, metavar="FILE", help="write the matrix between its markers")
    add("--list", action="store_true", help="list problems, frameworks and solvers")


def _run(options: argparse.Namespace) -> int:
    return _list() if options.list else _verify(options)


def _list() -> int:
    for name in FRAMEWORKS:
        state = version(name) or "installed" if installed(name) else "not installed"
        print(f"framework  {name:<12}  {state}")
    for name, solver in SOLVERS.items():
        print(f"solver     {name:<13}  {solver}")
    for name, make in BUILT_IN.items():
        print(f"problem    {name:<12}  {_first_line(make)}")
    return 0


def _first_line(function: Any) -> str:
    return (function.__doc__ or "").partition("\n")[0]


def _verify(options: argparse.Namespace) -> int:
    started = time.perf_counter()
    parts = _parts(options)
    solvers = _solvers(options.solver)
    names, missing = select(options.backend)
    subjects = _subjects(options) if "problems" in parts else []
    check_output("--json", options.json)
    _check_markdown(options.markdown, parts, names)
    absent = dict.fromkeys(missing, "not installed")
    harnesses = load_harnesses(names, named=options.backend is not None, absent=absent)
    _check_selection(harnesses, subjects, options.mode)
    campaign = Campaign(harnesses, solvers, options.dtype, options.mode)
    findings = _findings(campaign, subjects, parts)
    environment = Environment(
        fpicore=__version__,
        frameworks={harness.name: version(harness.name) for harness in harnesses},
        modes={harness.name: campaign.mode_of(harness) for harness in harnesses},
        absent=absent,
        seconds=time.perf_counter() - started,
    )
    show(findings, environment)
    if options.json is not None:
        write_json(options.json, findings, environment)
    if options.markdown is not None:
        _check_markdown(options.markdown, parts, list(environment.frameworks))
        write_between(options.markdown, matrix_markdown(findings.matrix, FRAMEWORKS))
    return 1 if findings.failures else 0


def _findings(campaign: Campaign, subjects: list[Subject], parts: Sequence[str]) -> Findings:
    """Run the parts in turn, under one progress bar."""
    harnesses = campaign.harnesses
    total = campaign.pieces(subjects)
    total += len(harnesses) * len(STRATEGIES) * ("strategies" in parts)
    total += len(harnesses) * len(ROWS) * ("matrix" in parts)
    with progress(total) as announce:
        findings = campaign.run(subjects, announce)
        if "strategies" in parts:
            findings.strategies = compare(harnesses, campaign.mode_of, announce)
        if "matrix" in parts:
            findings.matrix = explore(harnesses, announce)
    return findings


def _parts(options: argparse.Namespace) -> Sequence[str]:
    """The parts to run: those named, else the one that what is named belongs to, else all."""
    given = {
        "FILE.py:NAME": options.target,
        "--problem": options.problem,
        "--solver": options.solver,
    }
    named = [name for name, value in given.items() if value is not None]
    if options.only is None:
        return ("problems",) if named else _PARTS
    if named and "problems" not in options.only:
        raise InputError(
            f"expected {named[0]} together with the problems, received --only "
            f"{' --only '.join(options.only)}; leave one of them out"
        )
    return options.only


def _check_markdown(path: Path | None, parts: Sequence[str], names: Sequence[str]) -> None:
    """Refuse to write a matrix that lacks a framework, and to look for a place too late."""
    if path is None:
        return
    if "matrix" not in parts or tuple(names) != FRAMEWORKS:
        raise InputError(
            f"expected --markdown with the matrix of {', '.join(FRAMEWORKS)}, received parts "
            f"{', '.join(parts)} of {', '.join(names)}; add --only matrix, leave out --backend, "
            "and install what is missing"
        )
    check_markers(path)


def _solvers(named: list[str] | None) -> list[str]:
    for name in named or ():
        if name not in SOLVERS:
            raise InputError(
                f"expected --solver to be one of {', '.join(SOLVERS)}; received {name!r}"
            )
    return [name for name in SOLVERS if named is None or name in named]


def _subjects(options: argparse.Namespace) -> list[Subject]:
    if options.target is not None:
        if options.problem is not None:
            raise InputError(
                f"expected FILE.py:NAME or --problem, received both ({options.target} and "
                f"{', '.join(options.problem)}); run the command twice"
            )
        return [load_problem(options.target)]
    for name in options.problem or ():
        if name not in BUILT_IN:
            raise InputError(
                f"expected --problem to be one of {', '.join(BUILT_IN)}; received {name!r}; "
                "for your own give FILE.py:NAME"
            )
    return [make() for name, make in BUILT_IN.items() if name in (options.problem or BUILT_IN)]


def _check_selection(harnesses: list[Harness], subjects: list[Subject], mode: str | None) -> None:
    names = ", ".join(harness.name for harness in harnesses)
    if mode is not None and not any(mode in harness.modes for harness in harnesses):
        modes = "; ".join(f"{h.name}: {', '.join(h.modes)}" for h in harnesses)
        raise InputError(
            f"expected --mode to be one that a selected framework has ({modes}), received {mode}"
        )
    for problem in map(problem_of, subjects):
        if not any(problem.supports(harness.name) for harness in harnesses):
            raise InputError(
                f"expected problem {problem.name!r} to have a map for one of the selected "
                f"frameworks ({names}), received none; select others with --backend"
            )
