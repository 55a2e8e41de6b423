"""What is printed, drawn and plotted of a solve."""

import io
import math
import sys
from typing import Any

import numpy as np
import pytest

from fpicore import InputError, Picard, Progress, ProgressBar, Result, Stats, plot_convergence

from .labs import Lab

FEW = """\
system  steps  residual  tolerance  converged
     0      6  1.56e-02   1.98e-02        yes
     1      9  3.87e-01   6.51e-02         no
1 of 2 systems converged, 10 evaluations"""


def halves(lab: Lab, slopes: Any, **options: Any) -> Any:
    """z = slope·z + 1 for each slope, from 0."""
    values = np.asarray(slopes)[:, None]
    return lab.fpi.fixed_point(
        lambda z, s: s * z + 1.0, lab.tensor(0 * values), (lab.tensor(values),), solver=Picard(),
        rtol=1e-2, max_steps=9, batch_ndim=1, on_failure="ignore", **options,
    )  # fmt: skip


def test_stats_are_a_table(lab: Lab) -> None:
    assert str(halves(lab, [0.5, 0.9]).stats) == FEW


@pytest.mark.only("numpy", "torch")
def test_stats_of_many_systems_are_summed_up(lab: Lab) -> None:
    lines = str(halves(lab, np.linspace(0.0, 0.9, 31)).stats).splitlines()
    assert lines[0].split() == ["systems", "steps", "residual", "tolerance"]
    assert [line.split()[:2] for line in lines[1:4]] == [
        ["least", "1"],
        ["median", "6"],
        ["most", "9"],
    ]
    assert lines[4].endswith("of 31 systems converged, 10 evaluations")


def test_stats_of_one_system_and_nan() -> None:
    text = str(Stats(3, 4, math.nan, 1e-3))
    assert "nan" in text
    assert text.endswith("no\n4 evaluations")


@pytest.mark.modes("jit", "graph")
@pytest.mark.only("jax", "tensorflow")
def test_what_has_no_values_is_printed_all_the_same(lab: Lab, mode: str) -> None:
    printed: list[str] = []

    def solve(z0: Any) -> Any:
        sol = lab.fpi.fixed_point(lambda z: 0.5 * z + 1.0, z0, trace=True)
        printed.extend((str(sol.stats), str(sol)))
        with pytest.raises(InputError, match="expected a trace with values"):
            lab.fpi.plot_convergence(sol)
        return sol.value

    lab.run(solve, np.zeros(2), mode=mode)
    assert all("Stats(steps=" in text for text in printed)


@pytest.mark.only("numpy", "tensorflow")
def test_a_solution_says_how_it_went(lab: Lab) -> None:
    text = str(halves(lab, [0.5, 0.9]))
    assert text.startswith("CONVERGED (1 of 2 systems): ")
    assert "Raise max_steps" in text
    assert text.endswith("evaluations")


@pytest.mark.parametrize("result", [r for r in Result if r is not Result.CONVERGED])
def test_messages_say_what_to_do(result: Result) -> None:
    words = ("try", "take", "raise", "loosen", "pass", "solve")
    assert any(f"{word} " in result.message for word in words)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_progress_bar_is_drawn(lab: Lab) -> None:
    console = pytest.importorskip("rich.console").Console
    stream = Terminal()
    bar = ProgressBar(console(file=stream, force_terminal=True, width=100))
    drawn: list[tuple[float, str]] = []

    def told(progress: Progress) -> None:
        bar(progress)
        if any(np.atleast_1d(progress.active)):
            task = bar._bar.tasks[0]
            drawn.append((task.completed, task.description))

    with bar:
        halves(lab, [0.5, 0.9], callback=told)
    lab.wait()
    shares = [share for share, _ in drawn]
    assert shares[0] == 0.0
    assert shares == sorted(shares)
    assert 0.3 < shares[-1] < 1.0
    assert "1 of 2 systems" in drawn[-1][1]
    assert bar._bar is None
    assert "residual/tolerance" in stream.getvalue()


def test_a_progress_bar_ends_with_the_solve() -> None:
    console = pytest.importorskip("rich.console").Console
    silent = ProgressBar(console(file=io.StringIO()))
    silent(Progress(0, 1.0, 0.1, True))
    assert silent._bar is None
    bar = ProgressBar(console(file=Terminal(), force_terminal=True))
    bar(Progress(0, 1.0, 0.1, True))
    assert bar._bar is not None
    bar(Progress(1, 0.05, 0.1, False))
    assert bar._bar is None
    with bar:
        bar(Progress(0, math.inf, 0.1, True))
    assert bar._bar is None


def test_a_progress_bar_without_its_brackets() -> None:
    pytest.importorskip("rich")
    with pytest.raises(InputError, match=r"pass ProgressBar\(\)"):
        ProgressBar(Progress(0, 1.0, 0.1, True))


@pytest.mark.parametrize(
    ("use", "extra"), [(ProgressBar, "cli"), (None, "plot")], ids=["bar", "plot"]
)
def test_a_missing_package_is_named(use: Any, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rich.progress", "matplotlib.pyplot"):
        monkeypatch.setitem(sys.modules, name, None)
    use = use or (lambda: plot_convergence(Stats(1, 2, 0.1, 0.2, np.array([1.0, 0.1]))))
    with pytest.raises(InputError, match=rf"pip install \"fpicore\[{extra}\]\""):
        use()


@pytest.fixture
def ax() -> Any:
    figure = pytest.importorskip("matplotlib.figure")
    return figure.Figure().subplots()


def test_the_plot_has_a_line_for_each_system(lab: Lab, ax: Any) -> None:
    sol = halves(lab, [0.5, 0.9], trace=True)
    assert lab.fpi.plot_convergence(sol, ax) is ax
    first, tolerance, second, _ = ax.get_lines()
    np.testing.assert_allclose(first.get_ydata(), 0.5 ** np.arange(7), rtol=1e-6)
    np.testing.assert_allclose(second.get_ydata(), 0.9 ** np.arange(10), rtol=1e-6)
    assert list(first.get_xdata()) == list(range(7))
    np.testing.assert_allclose(tolerance.get_ydata(), lab.numpy(sol.stats.tolerance)[0])
    assert ax.get_yscale() == "log"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["system 0", "system 1"]


@pytest.mark.only("numpy", "torch")
def test_the_plot_of_one_system_and_of_many(lab: Lab, ax: Any) -> None:
    sol = lab.fpi.fixed_point(lambda z: 0.5 * z, lab.tensor(np.ones(2)), atol=0.1, trace=True)
    assert len(lab.fpi.plot_convergence(sol.stats, ax).get_lines()) == 2
    assert ax.get_legend() is None
    many = halves(lab, np.linspace(0.0, 0.9, 31), trace=True)
    ax.clear()
    lab.fpi.plot_convergence(many, ax)
    assert len(ax.get_lines()) == 31
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["tolerance"]


def test_a_plot_needs_a_trace(lab: Lab, ax: Any) -> None:
    with pytest.raises(InputError, match="pass trace=True"):
        lab.fpi.plot_convergence(halves(lab, [0.5]), ax)
    with pytest.raises(InputError, match="expected a Solution or its stats, received int"):
        lab.fpi.plot_convergence(3)
