"""The measurements beside peers, in small: that what they say of a case is so."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.speed import libraries, problems, record, reference, session, summary

TRUTH: list[reference.Reference] = []


def truth() -> reference.Reference:
    """Of the tiny problem."""
    pytest.importorskip("torch")
    if not TRUTH:
        TRUTH.append(reference.solve(problems.problem(problems.TINY)))
    return TRUTH[0]


def measured(name: str, index: int) -> dict[str, Any]:
    """The line of one case, from a worker of its own."""
    remote = session.Remote(name, "cpu", "cpu")
    try:
        cases = remote.open(problems.TINY)
        entry = session.Entry(remote, index, cases[index], truth().problem)
        entry.qualify(truth(), rounds=1)
        entry.measure(0)
    finally:
        remote.close()
    return entry.line


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("fpicore-numpy", 1),
        ("fpicore-torch", 1),
        ("fpicore-jax", 0),
        ("fpicore-tensorflow-eager", 1),
        ("scipy", 1),
    ],
)
def test_a_case_is_what_it_says(name: str, index: int) -> None:
    if not libraries.is_installed(name):
        pytest.skip(f"{libraries.LIBRARIES[name].distribution} is not installed")
    line = measured(name, index)
    assert line["status"] == summary.CERTIFIED, line
    assert 0.0 < line["residual"] <= 1e-4
    assert line["forward_ms"][0] > 0.0
    assert line["evaluations"] >= 2
    if line["reported"] is not None:  # an eager gradient evaluates f once more, to attach itself
        more = 1 if "eager" in name else 0
        assert line["evaluations"] == line["reported"] + more
    if "numpy" not in line["framework"]:
        assert line["gradient_error"] <= 1e-3
        assert line["both_ms"][0] > line["forward_ms"][0]


def test_the_reference_is_no_iterate_of_ours() -> None:
    exact = truth()
    (z,) = exact.value
    p = exact.problem.params
    np.testing.assert_allclose(np.tanh(z @ p["w"].T + p["b"] + p["x"]), z, rtol=0, atol=1e-12)
    # dz of one row by its dense Jacobian
    (weight,) = exact.problem.weight
    slope = 1 - z[0] ** 2
    adjoint = np.linalg.solve(np.eye(z.shape[1]) - (slope[:, None] * p["w"]).T, weight[0])
    np.testing.assert_allclose(exact.gradient["x"][0], slope * adjoint, rtol=1e-10)
    assert exact.gradient_error(exact.gradient) == 0.0
    assert exact.residual((z + 1e-3,)) > 1e-5


def test_a_record_and_what_is_made_of_it(tmp_path: Path) -> None:
    truth()
    names = ["fpicore-numpy", "bare-numpy"]
    (made,) = record.make(names, ["banax"], [problems.TINY], 2, "cpu", "cpu")
    read = json.loads(record.dumps(made))
    assert read == made
    (row,) = summary.table(read).splitlines()[2:]
    assert row.startswith("| tiny | numpy | ")
    assert "plain loop" in row
    assert "banax" in summary.provenance(read, "x.json")
    with pytest.raises(ValueError, match="numpy"):
        record.joined([read, read])
    matplotlib = pytest.importorskip("matplotlib")
    assert matplotlib
    from benchmarks.speed.plot import draw

    draw(read, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_a_failure_is_a_line_of_the_record() -> None:
    class Wrong:
        name = "scipy"

        def __call__(self, method: str, *arguments: Any) -> Any:
            raise session.CaseError("ValueError: no")

    posed = problems.problem(problems.TINY)
    remote: Any = Wrong()
    entry = session.Entry(remote, 0, ("a case", "", "absolute", False), posed)
    entry.qualify(reference.Reference(posed, posed.z0, {}), rounds=1)
    assert entry.line["status"] == "ValueError: no"
    assert entry.rounds == 0


def test_what_is_named_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "is_installed", lambda name: name != "banax")
    there, absent = libraries.chosen(None)
    assert "scipy" in there
    assert absent == ["banax"]
    with pytest.raises(ValueError, match=r"banax.*not installed"):
        libraries.chosen(["banax"])
    with pytest.raises(ValueError, match="received 'nothing'"):
        libraries.chosen(["nothing"])
    with pytest.raises(ValueError, match="received 'nothing'"):
        problems.problem("nothing")


def test_the_loosest_tolerance_that_certifies() -> None:
    """A worker whose residual is three times its tolerance is to be asked for a third."""
    posed = problems.problem(problems.TINY)

    class Truth:
        problem = posed
        value = posed.z0

        def residual(self, arrays: Any) -> float:
            return arrays

    class Third:
        name = "scipy"

        def __call__(self, method: str, index: int, tolerance: float, most: int) -> Any:
            from benchmarks.speed.runners import Found

            return Found(3 * tolerance, 7)

    remote: Any = Third()
    exact: Any = Truth()
    entry = session.Entry(remote, 0, ("a case", "", "relative", False), posed)
    entry._certify(exact)
    assert 1e-4 / 6 < entry.tolerance <= 1e-4 / 3
    assert entry.line["status"] == summary.CERTIFIED
    assert entry.line["residual"] == 3 * entry.tolerance


def test_medians_of_ratios_within_a_round() -> None:
    ours = {"both_ms": [1.0, 10.0, 3.0]}
    peer = {"both_ms": [2.0, 40.0, 6.0]}
    assert summary.ratio(ours, peer, "both_ms") == 0.5


@pytest.mark.parametrize(
    "path", sorted((Path(record.__file__).parents[1] / "results").glob("speed-*.json"))
)
def test_the_kept_record(path: Path) -> None:
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert path.stat().st_size < 300_000
    assert set(kept["problems"]) <= set(problems.MAKERS)
    for line in kept["cases"]:
        if line["status"] == summary.CERTIFIED:
            assert line["residual"] <= kept["problems"][line["problem"]]["rtol"], line
