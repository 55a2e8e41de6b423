"""``fpicore solve``."""

import argparse
import json
import math
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from .._errors import InputError
from .._extras import require
from .._plot import plot_convergence
from .._progress import ProgressBar
from .._solution import MANY, Result, Results, Solution, Stats
from ..solvers import Auto
from ..verify.arrays import cast, convert
from ..verify.frameworks import installed, select, version
from ..verify.harness import Harness
from ..verify.load import load_problem
from ..verify.problem import FRAMEWORKS, Problem
from ..verify.run import SOLVERS as VERIFIED
from ..verify.tolerances import TOLERANCES
from .shared import PROBLEM_HELP, check_output, load_harnesses

SOLVERS = {**VERIFIED, "auto": Auto()}
_DESCRIPTION = """\
Solves one problem in one framework, eagerly, with a progress bar where stderr is a terminal.
"""
_EPILOG = f"""\
exit status: 0 all systems converged, 1 some did not, 2 the command could not be carried out.

{PROBLEM_HELP}"""


def add_to(commands: Any) -> None:
    """Add the command to the parser of ``fpicore``."""
    parser = commands.add_parser(
        "solve",
        help="solve a problem of your own",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=_run)
    add = parser.add_argument
    add("target", metavar="FILE.py:NAME", help="the problem")
    add("--backend", choices=FRAMEWORKS, help="the first installed that the problem has")
    add("--solver", choices=tuple(SOLVERS), default="broyden", help="broyden by default")
    add("--rtol", type=float, help="1e-4 by default")
    add("--atol", type=float, default=0.0, help="0 by default")
    add("--max-steps", type=int, metavar="N", help="those of the problem by default")
    add("--dtype", choices=tuple(TOLERANCES), default="float64")
    add("--plot", type=Path, metavar="FILE", help="draw residuals against evaluations")
    add("--json", type=Path, metavar="FILE", help="write value, result, stats and trace")


def _run(options: argparse.Namespace) -> int:
    check_output("--plot", options.plot)
    check_output("--json", options.json)
    console: Any = require("rich.console", "the table", "rich").Console(highlight=False)
    problem = load_problem(options.target)
    harness = _harness(problem, options)
    axes = None if options.plot is None else _axes(options.plot)
    started = time.perf_counter()
    with harness.precision(options.dtype):
        solution = _on_host(harness, _solve(harness, problem, options))
    seconds = time.perf_counter() - started
    console.print(_table(solution), markup=False)
    lines = [f"{result.name}: {result.message}" for result in solution.result.counts()]
    lines.append(
        f"{problem.name}: {solution.stats.evaluations} evaluations in {seconds:.2g} s, "
        f"{options.solver}, {harness.name} {version(harness.name)}, {options.dtype}"
    )
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
    if axes is not None:
        _draw(axes, solution, problem, options)
    if options.json is not None:
        _write(options, problem, harness, solution, seconds)
    return 0 if np.all(solution.converged) else 1


def _harness(problem: Problem, options: argparse.Namespace) -> Harness:
    """The framework that was named, or the first one that is installed and that the map is for."""
    named = [options.backend] if options.backend else None
    possible = [name for name in select(named)[0] if problem.supports(name)]
    if not possible:
        frameworks = [name for name in FRAMEWORKS if problem.supports(name)]
        missing = [name for name in frameworks if not installed(name)]
        hint = f"; install {', '.join(missing)}" if missing else ""
        raise InputError(
            f"expected problem {problem.name!r} to have a map for "
            f"{options.backend or 'an installed framework'}, received one for "
            f"{', '.join(frameworks)}; name one of those with --backend{hint}"
        )
    return load_harnesses(possible[:1], named=True, absent={})[0]


def _solve(harness: Harness, problem: Problem, options: argparse.Namespace) -> Solution:
    """The solution in the framework's tensors.

    Raises:
        InputError: an option is not usable, or the map raises.
    """
    tensors = lambda tree: convert(lambda a: harness.asarray(cast(a, options.dtype)), tree)  # noqa: E731
    f, _ = problem.bind(harness.name, harness.namespace)
    z0, args, data = map(tensors, (problem.z0, problem.args, problem.data))
    most = problem.max_steps if options.max_steps is None else options.max_steps
    try:
        with ProgressBar() as bar, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the table says it
            return harness.library.fixed_point(
                f,
                z0,
                (*args, *data),
                solver=SOLVERS[options.solver],
                rtol=options.rtol,
                atol=options.atol,
                max_steps=most,
                batch_ndim=problem.batch_ndim,
                on_failure="ignore",
                trace=options.plot is not None or options.json is not None,
                callback=bar,
            )
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"expected the map of problem {problem.name!r} to run in {harness.name}, received "
            f"{type(error).__name__}: {error}; correct it"
        ) from error


def _on_host(harness: Harness, solution: Solution) -> Solution:
    """With NumPy arrays for tensors; one system is an array without axes."""

    def number(x: Any) -> Any:
        plain = isinstance(x, (int, float, np.ndarray, np.generic))
        return np.asarray(x) if plain else harness.to_numpy(x)

    stats = Stats(*[None if x is None else number(x) for x in solution.stats])
    value = convert(harness.to_numpy, solution.value)
    return Solution(value, Results(number(solution.result.codes)), stats)


def _table(solution: Solution) -> Any:
    """A row for each system or, of many, for each result with its largest numbers."""
    table: Any = require("rich.table", "the table", "rich").Table(
        box=None, pad_edge=False, header_style="bold"
    )
    codes = np.ravel(solution.result.codes)
    columns = [
        np.broadcast_to(np.ravel(x), codes.shape)
        for x in (solution.stats.steps, solution.stats.residual, solution.stats.tolerance)
    ]
    many = len(codes) > MANY
    for name in ("systems" if many else "system", "result", "steps", "residual", "tolerance"):
        table.add_column(name, justify="left" if name == "result" else "right")
    groups = [(str(i), [i]) for i in range(len(codes))]
    if many:
        found = [np.flatnonzero(codes == code) for code in np.unique(codes)]
        groups = [(str(len(group)), group) for group in found]
    for name, group in groups:
        steps, residual, tolerance = [column[group].max() for column in columns]
        result = Result(int(codes[group[0]])).name
        table.add_row(name, result, str(int(steps)), f"{residual:.2e}", f"{tolerance:.2e}")
    return table


def _axes(path: Path) -> Any:
    """Axes of a figure that needs no screen, and can be written to the path."""
    figure: Any = require("matplotlib.figure", "--plot", "matplotlib", "plot").Figure()
    known = sorted(figure.canvas.get_supported_filetypes())
    if path.suffix.removeprefix(".") not in known:
        raise InputError(
            f"expected --plot to name a file that ends in one of {', '.join(known)}, received "
            f"{path}"
        )
    return figure.subplots()


def _draw(axes: Any, solution: Solution, problem: Problem, options: argparse.Namespace) -> None:
    plot_convergence(solution, axes).set_title(f"{problem.name}, {options.solver}")
    axes.figure.savefig(options.plot)


def _write(
    options: argparse.Namespace,
    problem: Problem,
    harness: Harness,
    solution: Solution,
    seconds: float,
) -> None:
    """Everything that was found; numbers that JSON lacks become null."""
    evaluated = solution.stats.trace[..., : int(solution.stats.evaluations)]
    found = solution.stats._replace(trace=evaluated)
    stats = {name: _plain(x) for name, x in found._asdict().items()}
    names = np.vectorize(lambda code: Result(code).name, otypes=[object])
    content = {
        "problem": problem.name,
        "converged": bool(np.all(solution.converged)),
        "result": names(solution.result.codes).tolist(),
        **stats,
        "value": convert(_plain, solution.value),
        "solver": repr(SOLVERS[options.solver]),
        "backend": harness.name,
        "dtype": options.dtype,
        "seconds": seconds,
        "version": __version__,
    }
    options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _plain(x: Any) -> Any:
    """Nested lists of numbers."""
    if isinstance(x, list):
        return [_plain(item) for item in x]
    if isinstance(x, float):
        return x if math.isfinite(x) else None
    return _plain(np.asarray(x).tolist()) if isinstance(x, (np.ndarray, np.generic)) else x
