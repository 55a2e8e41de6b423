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

from .extras import require
from .notes import count, notes
from .problem import FRAMEWORKS
from .run import Findings
from .status import Status
from .tables import agreements_table, checks_table, matrix_table, strategies_table

_WIDTH = 100
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
    for title, table in _tables(findings, environment):
        console.print(title)
        console.print(table)
    for line in notes(findings):
        console.print(line, markup=False, soft_wrap=True)
    for line in _environment_lines(environment):
        console.print(line, markup=False, soft_wrap=True)
    console.print(summary(findings, environment), markup=False, soft_wrap=True)


def _tables(findings: Findings, environment: Environment) -> Iterator[tuple[str, Any]]:
    if findings.checks:
        title = "Each framework against the dense float64 reference, relative errors"
        yield title, checks_table(findings)
    if findings.agreements:
        title = "Frameworks against each other, largest relative difference"
        yield title, agreements_table(findings)
    if findings.strategies:
        title = "Each strategy against its own exact formula, relative errors"
        yield title, strategies_table(findings.strategies)
    if findings.matrix:
        names = [n for n in FRAMEWORKS if n in environment.frameworks or n in environment.absent]
        title = "Each derivative against its exact value: right (relative error), refused, missing"
        yield title, matrix_table(findings.matrix, names)


def summary(findings: Findings, environment: Environment) -> str:
    """The outcome in one line."""
    tolerances = findings.tolerances
    statuses = [item.status for item in findings.matrix]
    amounts = {
        "solve": len(findings.checks),
        "comparison": len(findings.agreements),
        "strategy run": sum(c.status is not Status.MISSING for c in findings.strategies),
        "right derivative": statuses.count(Status.RIGHT),
        "refused one": statuses.count(Status.REFUSED),
    }
    done = ", ".join(count(number, noun) for noun, number in amounts.items() if number)
    done = done or "nothing"
    done += (
        f" in {count(len(environment.frameworks), 'framework')} "
        f"({tolerances.dtype}, rtol {tolerances.rtol:.0e}, {environment.seconds:.0f} s)"
    )
    if findings.failures:
        return f"FAILED with {count(findings.failures, 'finding')}: {done}"
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
        "strategies": [asdict(item) for item in findings.strategies],
        "matrix": [asdict(item) for item in findings.matrix],
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


def _environment_lines(environment: Environment) -> Iterator[str]:
    modes = environment.modes
    versions = [f"{name} {v} ({modes[name]})" for name, v in environment.frameworks.items()]
    yield f"fpicore {environment.fpicore}, Python {sys.version.split()[0]}, {', '.join(versions)}"
    for name, reason in environment.absent.items():
        yield f"{name}: {reason}"
