"""Constrained programs as fixed points, beside the dense KKT system, in each framework."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.paper.constrained import exact
from benchmarks.paper.constrained.__main__ import main
from benchmarks.paper.constrained.learn import Options, distance, learn
from benchmarks.paper.constrained.measure import measure
from benchmarks.paper.constrained.plot import vertices
from benchmarks.paper.constrained.problems import PROBLEMS
from benchmarks.paper.frameworks import open_framework


@pytest.mark.parametrize("problem", PROBLEMS)
def test_values_and_gradients_are_exact(problem: str) -> None:
    """The command in small has the polytope in the other frameworks."""
    opened = open_framework("torch")
    with opened.double():
        found = measure(opened, problem, seed=1)
    assert found["value_error"] < 1e-9
    assert found["gradient_error"] < 1e-8
    assert 1 < found["steps_forward"] < 200
    assert 1 < found["steps_backward"] < 200


def test_the_bounds_of_a_box_are_learned() -> None:
    """All of them, by projected gradient."""
    options = Options(programs=64, batch=16, epochs=25, rate=0.1)
    run = learn(open_framework("torch"), "bounds", options, seed=0)
    assert run["curve"][0]["constraint"] > 1.0
    assert run["curve"][-1]["constraint"] < 0.05
    assert run["unconverged_forward"] == run["unconverged_backward"] == 0


@pytest.mark.parametrize("framework", ["torch", "jax", "tensorflow"])
def test_the_command_in_small(framework: str, tmp_path: Path) -> None:
    """The polygon comes closer, its solutions too, and what was measured is in the record."""
    record, plot = tmp_path / "record.json", tmp_path / "plot.png"
    main(["--framework", framework, "--quick", "--json", str(record), "--plot", str(plot)])
    found = json.loads(record.read_text(encoding="utf-8"))
    assert all(run["gradient_error"] < 1e-8 for run in found["exactness"])
    (run,) = found["learned"]
    first, last = run["curve"][0], run["curve"][-1]
    assert last["constraint"] < 0.25 * first["constraint"]
    assert last["solution"] < 0.25 * first["solution"]
    assert run["systems"] == 15 * 64
    assert run["unconverged_forward"] == run["unconverged_backward"] == 0
    assert found["machine"]["numpy"] == np.__version__
    assert plot.stat().st_size > 1000


def test_the_reference_is_right_by_differences() -> None:
    """The derivatives of the equality program, one entry of each part."""
    random = np.random.default_rng(0)
    square = random.standard_normal((5, 5))
    parts = [
        square @ square.T + np.eye(5),
        random.standard_normal(5),
        random.standard_normal((2, 5)),
        random.standard_normal(2),
    ]
    slope = random.standard_normal(5)
    x, multipliers = exact.equality(*parts)
    found = exact.slopes(parts[0], parts[2], x, multipliers, slope)
    for part, gradient in zip(
        range(4), (found.quadratic, found.linear, found.normals, found.offsets), strict=True
    ):
        way = random.standard_normal(parts[part].shape)
        way = way + way.T if part == 0 else way
        ends = []
        for h in (1e-6, -1e-6):
            moved = [p + h * way if i == part else p for i, p in enumerate(parts)]
            ends.append(slope @ exact.equality(*moved)[0])
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(np.sum(gradient * way), rel=1e-6)


def test_the_reference_finds_the_active_rows() -> None:
    """The nearest points of a square: a side, a corner, and a point inside of it."""
    rows, offsets = np.vstack([np.eye(2), -np.eye(2)]), np.ones(4)
    for point, nearest in (([3.0, 0.5], [1.0, 0.5]), ([2.0, -4.0], [1.0, -1.0]), ([0.2, 0.1],) * 2):
        found = exact.minimum(np.eye(2), -np.array(point), rows, offsets)
        np.testing.assert_allclose(found, nearest, atol=1e-12)
    with pytest.raises(ValueError, match="solution"):
        exact.minimum(np.eye(2), np.zeros(2), rows, -offsets)
    assert np.abs(vertices(rows, offsets)).tolist() == [[1.0] * 4] * 2


def test_the_distance_of_constraints_is_one_of_sets() -> None:
    """The order and the length of the rows do not matter; one offset does."""
    true = {"normals": np.eye(2), "upper": np.array([1.0, 2.0])}
    same = {"normals": 3.0 * np.eye(2)[::-1], "upper": np.array([6.0, 3.0])}
    assert distance(same, true) < 1e-12
    assert distance({**same, "upper": np.array([6.3, 3.0])}, true) == pytest.approx(0.1)
