"""The matrix and the strategies of ``fpicore verify``: what counts as right, and the command."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fpicore import DerivativeError, Neumann, OneStep, Picard, Unrolled
from fpicore.__main__ import main
from fpicore.verify.frameworks import installed, load
from fpicore.verify.layer import INPUTS, UNITS
from fpicore.verify.markdown import BEGIN, END, between, matrix_markdown, write_between
from fpicore.verify.matrix import ROWS, Finding, Row, explore, word
from fpicore.verify.probes import Case, Probe
from fpicore.verify.problem import FRAMEWORKS
from fpicore.verify.run import Findings
from fpicore.verify.status import ACCEPTED, Status, attempt
from fpicore.verify.strategies import STRATEGIES, Strategy, compare
from fpicore.verify.tolerances import TOLERANCES

from .labs import Lab

pytest.importorskip("rich", reason="the extra cli is not installed")

README = Path(__file__).parents[1] / "README.md"
ROW = next(row for row in ROWS if row.key == (1, "reverse", "recorded"))


def silent(description: str) -> None:
    del description


def raising(error: Exception) -> Callable[[Case], Any]:
    def compute(case: Case) -> Any:
        raise error

    return compute


def scaled(factor: float) -> Callable[[Case], Any]:
    return lambda case: factor * ROW.truth[0]


FAKES: dict[str, tuple[Callable[[Case], Any], Status]] = {
    "right": (scaled(1.0), Status.RIGHT),
    "nearly right": (scaled(1.0 + 0.5 * ACCEPTED), Status.RIGHT),
    "wrong": (scaled(1.0 + 3.0 * ACCEPTED), Status.WRONG),
    "zero": (scaled(0.0), Status.WRONG),
    "not a number": (scaled(np.nan), Status.WRONG),
    "another shape": (lambda case: ROW.truth[0][:, None], Status.WRONG),
    "two instead of one": (lambda case: (ROW.truth[0], ROW.truth[0]), Status.WRONG),
    "refused": (raising(DerivativeError("expected this, received that")), Status.REFUSED),
    "failed": (raising(ValueError("something else")), Status.FAILED),
    "nothing": (lambda case: None, Status.WRONG),
}


@pytest.fixture(params=FAKES)
def fake(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Status:
    """NumPy with a derivative of its own; the status that it deserves."""
    compute, status = FAKES[request.param]
    monkeypatch.setattr(type(load("numpy")), "probes", {ROW.key: Probe("fake", compute)})
    return status


def test_classification(fake: Status) -> None:
    findings = explore([load("numpy")], silent)
    assert len(findings) == len(ROWS)
    for finding in findings:
        is_fake = (finding.order, finding.mode, finding.transform) == ROW.key
        assert finding.status is (fake if is_fake else Status.MISSING)
        assert finding.spelling == ("fake" if is_fake else "")
    notes = " ".join(finding.note for finding in findings)
    assert ("expected this, received that" in notes) == (fake is Status.REFUSED)


def test_exit_status(fake: Status, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    arguments = ["--backend", "numpy", "--only", "matrix", "--json", str(report)]
    status = main(["verify", *arguments])
    shown = capsys.readouterr().out
    assert status == (1 if fake in (Status.WRONG, Status.FAILED) else 0), shown
    assert str(fake) in shown
    assert ("FAILED with 1 finding" in shown) == (status == 1)
    content = json.loads(report.read_text())
    assert content["passed"] is (status == 0)
    assert fake in [finding["status"] for finding in content["matrix"]]
    assert content["checks"] == content["strategies"] == []


def test_failure_names_the_exception(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = attempt(lambda: [1 / 0], [np.ones(1)])  # pyright: ignore[reportArgumentType]
    assert outcome.status is Status.FAILED
    assert outcome.note.startswith("ZeroDivisionError at test_verify_matrix.py")


def test_error_is_that_of_the_worst_array() -> None:
    truth = [np.ones(3), np.ones(3)]
    outcome = attempt(lambda: [np.ones(3), np.ones(3) + 1e-3], truth)
    assert outcome.status is Status.WRONG
    assert outcome.error == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("way", "passed"), [("argument", (1.0,)), ("closure", ()), ("both", (0.5,))]
)
def test_ways_in_which_x_reaches_the_map(way: str, passed: tuple[float, ...]) -> None:
    """The answer is the same; what the library is given is not."""
    x, zero, shares = INPUTS[0], np.zeros(UNITS), []

    def fixed_point(f: Any, start: Any, args: tuple[Any, ...], **options: Any) -> Any:
        drive = np.arctanh(f(zero, *args))
        np.testing.assert_allclose(drive, x)
        rest = np.arctanh(f(zero, *[0.0 * arg for arg in args]))
        shares.extend((drive - rest)[:1] / x[:1] if args else [])
        return SimpleNamespace(value=start)

    library: Any = SimpleNamespace(fixed_point=fixed_point)
    case = Case(library, np, np.asarray, Picard(), 1, way)
    np.testing.assert_array_equal(case.state(x), 0.0)
    np.testing.assert_allclose(shares, passed)


def test_the_tolerance_is_that_of_the_readme() -> None:
    assert ACCEPTED == 1e-8
    assert "at most 1e-8" in " ".join(README.read_text(encoding="utf-8").split())


def finding(status: Status, way: str = "argument", framework: str = "torch") -> Finding:
    return Finding(framework, *ROW.key, "grad", way, status)


def test_one_cell_for_two_ways() -> None:
    assert word([]) == "missing"
    assert word([finding(Status.RIGHT), finding(Status.RIGHT, "closure")]) == "right"
    both = [finding(Status.RIGHT), finding(Status.REFUSED, "closure")]
    assert word(both) == "right (argument), refused (closure)"


@pytest.mark.parametrize(
    ("strategy", "status"),
    [
        (Strategy("wrong", OneStep(), STRATEGIES[0].formula), Status.WRONG),
        (Strategy("short", Neumann(terms=5), STRATEGIES[6].formula), Status.WRONG),
        (Strategy("absent", Unrolled(), STRATEGIES[0].formula), Status.MISSING),
    ],
    ids=lambda x: getattr(x, "name", ""),
)
def test_strategies_that_are_not_right(strategy: Strategy, status: Status) -> None:
    checks = compare([load("numpy")], lambda harness: "eager", silent, [strategy])
    assert [check.status for check in checks] == [status]
    failures = Findings(TOLERANCES["float64"], strategies=checks).failures
    assert failures == (status is Status.WRONG)


@pytest.mark.only("numpy", "torch")
def test_every_strategy(lab: Lab) -> None:
    checks = compare([lab._harness], lambda harness: harness.modes[0], silent)
    recorded = {"Unrolled", "Unrolled, checkpoint", "Reversible"}
    without = {"Implicit, reuse", *recorded}
    for check in checks:
        missing = lab.name == "numpy" and check.strategy in without
        assert check.status is (Status.MISSING if missing else Status.RIGHT), check
        pulled = not missing and check.strategy not in recorded
        assert (check.products is not None) == pulled
    products = {check.strategy: check.products for check in checks}
    assert (products["OneStep"], products["Neumann"], products["Phantom"]) == (0, 5, 5)


@pytest.mark.only("jax", "tensorflow")
def test_a_sample_of_strategies(lab: Lab) -> None:
    """Each of them is compared with its formula in the tests of its framework."""
    sample = [s for s in STRATEGIES if s.name in ("OneStep", "Neumann")]
    checks = compare([lab._harness], lambda harness: harness.modes[0], silent, sample)
    assert [check.status for check in checks] == [Status.RIGHT] * 2
    assert [check.products for check in checks] == [0, 5]


def test_every_probe_has_its_row(lab: Lab) -> None:
    assert set(lab._harness.probes) <= {row.key for row in ROWS}
    assert bool(lab._harness.probes) == (lab.name != "numpy")


def test_readme_shows_what_the_code_gives(tmp_path: Path) -> None:
    """`make matrix` is overdue if this fails; PyTorch's column, as the others take a minute."""
    if not installed("torch"):
        pytest.skip("torch is not installed")
    report = tmp_path / "report.json"
    assert main(["verify", "--only", "matrix", "--backend", "torch", "--json", str(report)]) == 0
    content = json.loads(report.read_text())
    findings = [Finding(**{**f, "status": Status(f["status"])}) for f in content["matrix"]]
    shown = [cells(line) for line in between(README).splitlines()]
    column = shown[0].index("torch")
    made = [cells(line) for line in matrix_markdown(findings, ["torch"]).splitlines()]
    assert [(*row[:3], row[column]) for row in shown] == [tuple(row) for row in made]


@pytest.mark.gradients
def test_readme_shows_what_the_quick_probes_give(lab: Lab) -> None:
    """A sample of every framework's column."""
    sample = [
        row
        for row in ROWS
        if row.key in lab._harness.probes
        and row.transform in ("recorded", "functional", "Implicit(order=1)")
        and row.order < 3
    ]
    findings = explore([lab._harness], silent, sample)
    made = [cells(line) for line in matrix_markdown(findings, [lab.name]).splitlines()[2:]]
    shown = [cells(line) for line in between(README).splitlines()]
    column = shown[0].index(lab.name)
    assert len(made) == len(sample) > 2
    for row in made:
        assert [(*line[:3], line[column]) for line in shown if line[:3] == row[:3]] == [tuple(row)]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_markdown_is_written_between_its_markers(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n\nMore.\n", encoding="utf-8")
    table = matrix_markdown([finding(Status.RIGHT)], ("numpy", "torch"))
    for _ in range(2):  # the second time changes nothing
        write_between(path, table)
        assert between(path) == table
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# Title\n\n")
    assert text.endswith(f"{END}\n\nMore.\n")
    assert "old" not in text
    assert table.splitlines()[2] == "| 1 | reverse | recorded | missing | right `grad` |"


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}{END}{END}"])
def test_file_without_markers(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "README.md"
    path.write_text(text, encoding="utf-8")
    monkeypatch.setattr("fpicore.commands.verify.select", lambda named: (list(FRAMEWORKS), []))
    assert main(["verify", "--only", "matrix", "--markdown", str(path)]) == 2
    assert "each once and in this order" in capsys.readouterr().err
    assert path.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "matrix", "--problem", "tanh"], "expected --problem together with the"),
        (["--only", "strategies", "--solver", "picard"], "expected --solver together with"),
        (["--only", "everything"], "invalid choice: 'everything'"),
        (["--backend", "numpy", "--markdown", "x.md"], "expected --markdown with the matrix"),
        (["--only", "strategies", "--markdown", "x.md"], "expected --markdown with the"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_cannot_be_carried_out(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", *arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_naming_a_problem_leaves_the_other_parts_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--backend", "numpy", "--problem", "expansive-1"]) == 0
    assert "strategy" not in capsys.readouterr().out
    assert main(["verify", "--backend", "numpy", "--only", "strategies"]) == 0
    shown = capsys.readouterr().out
    assert "Phantom" in shown
    assert "expansive-1" not in shown


def test_rows_ask_for_every_order_but_one() -> None:
    harness = load("numpy")
    for row in ROWS:
        expected = 1 if row.transform == "Implicit(order=1)" else None
        assert row.case(harness, "both").levels == expected
    assert Row(2, "m", "t", (), levels=3).case(harness, "both").levels == 3
