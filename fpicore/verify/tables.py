"""The tables of the report, built with rich."""

from collections.abc import Sequence
from typing import Any

from .checks import Agreement
from .extras import require
from .matrix import Finding, by_cell, word
from .run import Findings
from .status import Status
from .strategies import StrategyCheck

_COLOURS = {Status.RIGHT: "green", Status.REFUSED: "yellow", Status.MISSING: "dim"}


def _table(*columns: tuple[str, str]) -> Any:
    tables: Any = require("rich.table", "the table", "rich")
    box: Any = require("rich.box", "the table", "rich")
    table = tables.Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for name, justify in columns:
        # A problem's name is the user's, and gives way first where the terminal is narrow.
        table.add_column(name, justify=justify, no_wrap=name != "problem")
    return table


def checks_table(findings: Findings) -> Any:
    """Every solve of a problem."""
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


def agreements_table(findings: Findings) -> Any:
    """How far frameworks are from each other."""
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


def strategies_table(checks: Sequence[StrategyCheck]) -> Any:
    """Every strategy in every framework."""
    table = _table(
        ("strategy", "left"),
        ("framework", "left"),
        ("products", "right"),
        ("forward", "right"),
        ("gradient", "right"),
        ("verdict", "left"),
    )
    previous = None
    for check in checks:
        new = previous != check.strategy
        if new and previous is not None:
            table.add_section()
        table.add_row(
            check.strategy if new else "",
            check.framework,
            _number(check.products),
            _number(check.value_error),
            _number(check.gradient_error),
            _in_colour(str(check.status), check.status),
        )
        previous = check.strategy
    return table


def matrix_table(findings: Sequence[Finding], frameworks: Sequence[str]) -> Any:
    """Frameworks by (order, mode, transform)."""
    names = [(name, "left") for name in frameworks]
    table = _table(("order", "right"), ("mode", "left"), ("transform", "left"), *names)
    previous = None
    for key, cells in by_cell(findings).items():
        order, mode, transform = key
        new = previous != (order, mode)
        if new and previous is not None:
            table.add_section()
        shown = [_matrix_cell(cells.get(name, ())) for name in frameworks]
        table.add_row(str(order) if new else "", mode if new else "", transform, *shown)
        previous = (order, mode)
    return table


def _matrix_cell(found: Sequence[Finding]) -> str:
    errors = [finding.error for finding in found if finding.error is not None]
    text = " ".join([word(found), *([f"{max(errors):.0e}"] if errors else [])])
    statuses = [finding.status for finding in found] or [Status.MISSING]
    worst = max(statuses, key=list(Status).index)
    return _in_colour(text, worst)


def _in_colour(text: str, status: Status) -> str:
    return f"[{_COLOURS.get(status, 'bold red')}]{text}[/]"


def _number(value: float | int | None) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.1e}"


def _plain(text: str) -> str:
    """Text of a user's, in which rich shall see no markup."""
    return text.replace("[", "\\[")


def _colour(text: str, good: bool) -> str:
    return f"[green]{text}[/]" if good else f"[bold red]{text}[/]"
