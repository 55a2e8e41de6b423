"""What is to be said besides the tables: why something is refused, excluded or not right."""

from collections.abc import Iterator

from .._solution import Result
from .checks import Check, Verdict
from .run import Findings
from .status import Status


def notes(findings: Findings) -> Iterator[str]:
    """Lines of text."""
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
    yield from _derivative_notes(findings)


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
        for name, number in check.statuses.items():
            if Result[name] is not Result.CONVERGED:
                yield f"{count(number, 'system')} {name}: {Result[name].message}"
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


def _derivative_notes(findings: Findings) -> Iterator[str]:
    """Why derivatives and strategies are refused or fail, each reason once."""
    grouped: dict[tuple[str, Status, str], list[str]] = {}
    for check in findings.strategies:
        if check.status not in (Status.RIGHT, Status.MISSING):
            key = check.framework, check.status, check.note
            grouped.setdefault(key, []).append(check.strategy)
    for found in findings.matrix:
        if found.status not in (Status.RIGHT, Status.MISSING):
            key = found.framework, found.status, found.note
            grouped.setdefault(key, []).append(f"{found.mode}, {found.transform}")
    for (framework, status, note), labels in grouped.items():
        where = list(dict.fromkeys(labels))
        if status.passed and len(where) > 1:
            where = [f"{where[0]}, and {len(where) - 1} more"]
        yield f"{framework}: {status}: {'; '.join(where)}{': ' if note else ''}{note}"


def count(number: int, noun: str) -> str:
    """A number of things."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _label(check: Check) -> str:
    return f"{check.problem}, {check.framework} ({check.mode}), {check.solver}"
