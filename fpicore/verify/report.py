"""What a run found, as a table for people and as JSON for programs."""

import json
import math
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._solution import Result
from .checks import Agreement, Check, Verdict
from .extras import require
from .run import Findings

_WIDTH = 80
"""Columns where the output is no terminal, enough for the table."""


@dataclass(frozen=True)
class Environment:
    """Where the run took place."""

    fpicore: str
    frameworks: dict[str, str | None]
    """Version of each framework that took part."""
    modes: dict[str, str]
    """How each was run."""
    absent: dict[str, str]
    """Frameworks that did not, and why."""
    seconds: float


@contextmanager
def progress(total: int) -> Iterator[Callable[[str], None]]:
    """A progress bar on stderr; yields the function that announces the next piece of work.

    Raises:
        InputError: rich is not installed.
    """
    bars: Any = require("rich.progress", "the progress bar", "rich")
    console: Any = require("rich.console", "the progress bar", "rich").Console(stderr=True)
    columns = (
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
        bars.TextColumn("{task.description}"),
    )
    shown = console.is_terminal
    with bars.Progress(*columns, console=console, transient=True, disable=not shown) as bar:
        task = bar.add_task("", total=total)
        started = False

        def announce(description: str) -> None:
            nonlocal started
            bar.update(task, advance=int(started), description=description)
            started = True

        yield announce


def show(findings: Findings, environment: Environment) -> None:
    """Print the tables, what went wrong, and a summary line, on stdout.

    Raises:
        InputError: rich is not installed.
    """
    console: Any = require("rich.console", "the table", "rich").Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)
    console.print("Each framework against the dense float64 reference, relative errors")
    console.print(_checks_table(findings))
    if findings.agreements:
        console.print("Frameworks against each other, largest relative difference")
        console.print(_agreements_table(findings))
    for line in _notes(findings):
        console.print(line, markup=False, soft_wrap=True)
    for line in _environment_lines(environment):
        console.print(line, markup=False, soft_wrap=True)
    console.print(summary(findings, environment), markup=False, soft_wrap=True)


def summary(findings: Findings, environment: Environment) -> str:
    """The outcome in one line."""
    tolerances = findings.tolerances
    done = (
        f"{_count(len(findings.checks), 'solve')} in "
        f"{_count(len(environment.frameworks), 'framework')}, "
        f"{_count(len(findings.agreements), 'comparison')} between frameworks "
        f"({tolerances.dtype}, rtol {tolerances.rtol:.0e}, {environment.seconds:.0f} s)"
    )
    if findings.failures:
        return f"FAILED with {_count(findings.failures, 'finding')}: {done}"
    return f"All right: {done}"


def to_json(findings: Findings, environment: Environment) -> str:
    """Everything that was found; numbers that JSON lacks become null."""
    content = {
        "passed": findings.failures == 0,
        "summary": summary(findings, environment),
        "environment": {
            **asdict(environment),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "platform": platform.platform(),
            "processor": platform.machine(),
        },
        "tolerances": {
            **asdict(findings.tolerances),
            "meaning": " ".join((type(findings.tolerances).__doc__ or "").split()),
        },
        "references": [asdict(item) for item in findings.references],
        "checks": [asdict(item) for item in findings.checks],
        "agreements": [{**asdict(a), "passed": a.passed} for a in findings.agreements],
    }
    return json.dumps(_finite(content), indent=2, ensure_ascii=False)


def write_json(path: Path, findings: Findings, environment: Environment) -> None:
    """Write `to_json` to a file."""
    path.write_text(to_json(findings, environment) + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _table(*columns: tuple[str, str]) -> Any:
    tables: Any = require("rich.table", "the table", "rich")
    box: Any = require("rich.box", "the table", "rich")
    table = tables.Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for name, justify in columns:
        # A problem's name is the user's, and gives way first where the terminal is narrow.
        table.add_column(name, justify=justify, no_wrap=name != "problem")
    return table


def _checks_table(findings: Findings) -> Any:
    table = _table(
        ("problem", "left"),
        ("framework", "left"),
        ("solver", "left"),
        ("evaluations", "right"),
        ("value", "right"),
        ("gradient", "right"),
        ("verdict", "left"),
    )
    previous = None
    for check in findings.checks:
        if previous is not None and check.problem != previous.problem:
            table.add_section()
        first = previous is None or check.problem != previous.problem
        new = first or previous is None or check.framework != previous.framework
        table.add_row(
            _plain(check.problem) if first else "",
            check.framework if new else "",
            check.solver,
            _number(check.evaluations),
            _number(check.value_error),
            _number(check.gradient_error),
            _colour(str(check.verdict), check.verdict.passed),
        )
        previous = check
    return table


def _agreements_table(findings: Findings) -> Any:
    solvers = list(dict.fromkeys(a.solver for a in findings.agreements))
    columns = [(solver, "right") for solver in solvers]
    table = _table(("problem", "left"), ("of", "left"), *columns, ("allowed", "right"))
    for problem in dict.fromkeys(a.problem for a in findings.agreements):
        found = {a.solver: a for a in findings.agreements if a.problem == problem}
        first = next(iter(found.values()))
        for quantity in ("value", "gradient"):
            cells = [_agreement_cell(found.get(solver), quantity) for solver in solvers]
            allowed = getattr(first, f"{quantity}_tolerance")
            table.add_row(
                _plain(problem) if quantity == "value" else "", quantity, *cells, _number(allowed)
            )
    return table


def _agreement_cell(agreement: Agreement | None, quantity: str) -> str:
    if agreement is None:
        return "–"
    error, allowed = (getattr(agreement, f"{quantity}_{what}") for what in ("error", "tolerance"))
    return _colour(_number(error), error <= allowed)


def _notes(findings: Findings) -> Iterator[str]:
    for item in findings.references:
        if item.verdict is Verdict.WRONG_REFERENCE:
            yield f"{item.problem}: the reference misses the exact answer by {item.exact_error:.1e}"
        if item.note:
            yield f"{item.problem}: no reference. {item.note}"
        if item.method == "central differences":
            why = "it is not complex-analytic" if item.source == "numpy" else "none is for NumPy"
            yield (
                f"{item.problem}: the reference differentiates the {item.source} map by central "
                f"differences ({why}), to {item.accuracy:.0e}"
            )
    excluded = {(c.problem, c.solver, c.note) for c in findings.checks if _is_excluded(c)}
    for problem, solver, note in sorted(excluded):
        yield f"{problem}: {solver} must not converge, and must say so: {note}"
    yield from _grouped_notes(findings)
    for check in findings.uncompared:
        yield f"{_label(check)}: compared with nothing: no reference, no second framework"


def _grouped_notes(findings: Findings) -> Iterator[str]:
    """What is to be said of single checks, each text once."""
    grouped: dict[tuple[str, str], dict[str, list[str]]] = {}
    for check in findings.checks:
        for note in _check_notes(check):
            labels = grouped.setdefault((check.problem, note), {})
            labels.setdefault(f"{check.framework} ({check.mode})", []).append(check.solver)
    for (problem, note), labels in grouped.items():
        where = "; ".join(f"{label} {', '.join(solvers)}" for label, solvers in labels.items())
        yield f"{problem}: {where}: {note}"


def _check_notes(check: Check) -> Iterator[str]:
    if check.verdict is Verdict.NOT_CONVERGED:
        for name, count in check.statuses.items():
            if Result[name] is not Result.CONVERGED:
                yield f"{_count(count, 'system')} {name}: {Result[name].message}"
        yield f'if it cannot converge, say so: Problem(..., excluded={{"{check.solver}": "why"}})'
    elif check.note and not _is_excluded(check):
        yield check.note
    errors = (check.value_error, check.value_tolerance, check.gradient_error)
    if check.verdict in (Verdict.WRONG_VALUE, Verdict.WRONG_GRADIENT) and None not in errors:
        yield (
            f"value within {check.value_error:.1e} (allowed {check.value_tolerance:.1e}), "
            f"gradient within {check.gradient_error:.1e} (allowed {check.gradient_tolerance:.1e})"
        )


def _is_excluded(check: Check) -> bool:
    return check.verdict in (Verdict.NOT_APPLICABLE, Verdict.FALSE_CONVERGENCE)


def _environment_lines(environment: Environment) -> Iterator[str]:
    modes = environment.modes
    versions = [f"{name} {v} ({modes[name]})" for name, v in environment.frameworks.items()]
    yield f"fpicore {environment.fpicore}, Python {sys.version.split()[0]}, {', '.join(versions)}"
    for name, reason in environment.absent.items():
        yield f"{name}: {reason}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _label(check: Check) -> str:
    return f"{check.problem}, {check.framework} ({check.mode}), {check.solver}"


def _number(value: float | int | None) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.1e}"


def _plain(text: str) -> str:
    """Text of a user's, in which rich shall see no markup."""
    return text.replace("[", "\\[")


def _colour(text: str, good: bool) -> str:
    return f"[green]{text}[/]" if good else f"[bold red]{text}[/]"
