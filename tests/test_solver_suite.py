"""The problems of benchmarks/solvers in every framework, and the referee of the contest."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.solvers.__main__ import QUICK, README, RECORD, filled, main, merged, read
from benchmarks.solvers.case import Case, refined
from benchmarks.solvers.contest import OWN, Counter, Outcome, methods, solve
from benchmarks.solvers.profiles import ratios, share
from benchmarks.solvers.readings import alone, defaults, libraries
from benchmarks.solvers.suite import CASES
from fpicore import Anderson, Broyden, NewtonKrylov

from .labs import Lab


@pytest.mark.parametrize("name", CASES)
def test_maps_are_the_same_in_every_framework(lab: Lab, name: str) -> None:
    case = CASES[name]()
    args = tuple(map(lab.tensor, case.args))
    for start in case.starts:
        found = lab.numpy(case.bound(lab.xp, args)(lab.tensor(start)))
        np.testing.assert_allclose(found, case.f(start), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["brusselator", "kepler", "boggs"])
@pytest.mark.parametrize("solver", [Anderson(10), Broyden(), NewtonKrylov()], ids=lambda s: s.name)
def test_solved_in_every_framework(lab: Lab, fpi: Any, name: str, solver: Any) -> None:
    case = CASES[name]()
    args = tuple(map(lab.tensor, case.args))
    sol = fpi.fixed_point(
        case.bound(lab.xp, args),
        lab.tensor(case.starts[0]),
        solver=solver,
        rtol=1e-6,
        atol=1e-6 * case.atol,
        max_steps=200,
        batch_ndim=case.batch_ndim,
    )
    value = np.asarray(lab.numpy(sol.value))
    assert case.certified(value, case.f(value), 1e-6)


@pytest.mark.framework("numpy")
@pytest.mark.parametrize("name", CASES)
def test_quick_pass(name: str) -> None:
    """From the first start no claim is false, and one of three solvers solves it."""
    case = CASES[name]()
    entered = {key: methods()[key] for key in ("Anderson(10)", "Broyden", "NewtonKrylov")}
    found = [solve(key, call, case, 0, 1e-6, budget=300) for key, call in entered.items()]
    assert not any(o.false for o in found)
    assert any(o.evaluations for o in found)


@pytest.mark.framework("numpy")
@pytest.mark.parametrize("name", CASES)
def test_stated_answers(name: str) -> None:
    case = CASES[name]()
    if case.answer is None:
        pytest.skip("there is no closed form")
    gap = np.linalg.norm(case.f(case.answer) - case.answer)
    assert gap < 1e-12 * (1.0 + np.linalg.norm(case.answer))


@pytest.mark.framework("numpy")
@pytest.mark.parametrize("name", ["discrete_integral", "brusselator", "admm", "sinkhorn"])
def test_every_solver_finds_the_one_answer(name: str) -> None:
    """To rtol times the condition of the problem, against Newton's method with a dense Jacobian."""
    import fpicore_numpy as fpi

    case = CASES[name]()
    options: dict[str, Any] = {"rtol": 1e-9, "max_steps": 1000, "on_failure": "ignore"}
    found = [fpi.fixed_point(case.f, case.starts[0], solver=s, **options) for s in OWN.values()]
    truth = refined(case, found[1].value)
    for sol in found:
        if sol.converged:
            assert np.linalg.norm(sol.value - truth) < 1e-6 * np.linalg.norm(truth)
    assert sum(bool(sol.converged) for sol in found) >= 4


def half() -> Case:
    """z = z/2 + 1 from 0."""
    return Case("half", lambda xp, z: 0.5 * z + 1.0, "here", (np.zeros(2),), answer=np.full(2, 2.0))


def test_the_counter_stops_at_the_first_good_point() -> None:
    def picard(case: Case, counter: Counter, rtol: float, start: int) -> None:
        z = case.starts[start]
        while True:
            z = counter.f(z)

    found = solve("peer", picard, half(), 0, 1e-3)
    # ‖f − z‖ = 2^−k ≤ 10⁻³ · 2 at k = 9, the tenth point.
    assert found.evaluations == 10
    assert solve("peer", picard, half(), 0, 1e-3, budget=9).evaluations is None


def test_a_claim_that_is_false_is_found() -> None:
    """The referee decides: here none of the points is good enough for him."""

    class Strict(Case):
        def certified(self, z: Any, f: Any, rtol: float) -> bool:
            return False

    case = Strict(**vars(half()))
    found = solve("Picard", methods()["Picard"], case, 0, 1e-3)
    assert found.false
    assert found.evaluations is None
    assert not solve("Picard", methods()["Picard"], half(), 0, 1e-3).false


def test_a_peer_that_raises_has_failed() -> None:
    def broken(case: Case, counter: Counter, rtol: float, start: int) -> None:
        raise ValueError("no such point")

    assert solve("peer", broken, half(), 0, 1e-3).evaluations is None


def test_certificates() -> None:
    assert not half().certified(np.full(2, 1.9), np.full(2, 1.95), 1e-3)
    assert half().certified(np.full(2, 2.0), np.full(2, 2.0), 1e-3)
    assert not half().certified(np.full(2, np.nan), np.full(2, np.nan), 1e-3)
    assert not half().certified(np.full(2, 1e200), np.full(2, -1e200), 1e-3)


def test_profiles() -> None:
    rows = [("a", 10), ("b", 20), ("c", None)]
    outcomes = [Outcome("p", 0, 1e-3, method, count, False) for method, count in rows]
    outcomes += [Outcome("q", 0, 1e-3, method, None, False) for method, _ in rows]
    found = ratios(outcomes)
    assert found == {"a": [1.0], "b": [2.0], "c": [float("inf")]}
    assert [share(found["b"], factor) for factor in (1.0, 2.0)] == [0.0, 1.0]


def test_libraries_and_methods_by_themselves() -> None:
    """Three solves: ours is best in one, near in one with its second method, lost in one."""
    counts = {
        "Broyden": (30, 22, 50),
        "Broyden(8, bad, scaled)": (10, None, 40),
        "scipy hybr": (20, 20, None),
        "jaxopt anderson": (11, None, 30),
    }
    outcomes = [
        Outcome("p", k, 1e-3, method, found[k], False)
        for k in range(3)
        for method, found in counts.items()
    ]
    assert libraries(outcomes).splitlines()[2:] == [
        "| fpicore | 2 | 0 of 3 | 33 % | 67 % |",
        "| scipy | 1 | 1 of 3 | 33 % | 33 % |",
        "| jaxopt | 1 | 1 of 3 | 33 % | 67 % |",
    ]
    assert alone(outcomes).splitlines()[2:] == [
        "| Broyden | 0 % | 33 % | 1×, 1.1×, 1.5× |",
        "| Broyden(8, bad, scaled) | 33 % | 33 % | 1.1× |",
    ]
    assert defaults(outcomes).splitlines()[2:] == [
        '| fpicore, `Broyden(8, kind="bad", scaled=True)` | 1 of 3 | 33 % | 33 % | 67 % | '
        "67 % | 67 % | 67 % |",
        "| SciPy, `root` | 1 of 3 | 33 % | 33 % | 33 % | 67 % | 67 % | 67 % |",
        "| jaxopt, `AndersonAcceleration` | 1 of 3 | 33 % | 67 % | 67 % | 67 % | 67 % | 67 % |",
    ]


def test_a_record_may_be_added_to() -> None:
    """What is new replaces the same solve; the order is that of cases and methods."""
    old = [Outcome("boggs", 0, 1e-3, name, 9, False) for name in ("scipy hybr", "Anderson", "gone")]
    new = [Outcome("boggs", 0, 1e-3, "Anderson", 5, False)]
    new += [Outcome("rotations", 0, rtol, "Anderson", 7, False) for rtol in (1e-6, 1e-3)]
    found = [(o.case, o.rtol, o.method, o.evaluations) for o in merged(old, new)]
    assert found == [
        ("rotations", 1e-3, "Anderson", 7),
        ("rotations", 1e-6, "Anderson", 7),
        ("boggs", 1e-3, "Anderson", 5),
        ("boggs", 1e-3, "scipy hybr", 9),
    ]


@pytest.mark.filterwarnings("ignore")  # what scipy and matplotlib say is theirs
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record, picture = tmp_path / "found.json", tmp_path / "found.png"
    arguments = ["--quick", "--case", "boggs", "--json", str(record), "--plot", str(picture)]
    assert main(arguments) == 0
    assert {o.method for o in read(record)} >= set(OWN)
    assert json.loads(record.read_text())["budget"] == 1000
    assert picture.stat().st_size > 1000
    assert "| boggs |" in capsys.readouterr().out
    assert set(QUICK) <= set(CASES)


def test_the_readme_holds_the_record() -> None:
    text = README.read_text(encoding="utf-8")
    assert filled(text, RECORD) == text
    assert not any(o.false for o in read(RECORD))
