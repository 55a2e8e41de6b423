"""The flow experiment in small: its warps, its energy, its training in each framework."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.paper.flow import __main__ as command
from benchmarks.paper.flow import model, pictures, pyramid
from benchmarks.paper.flow.train import errors, turned
from benchmarks.paper.frameworks import NAMES, Framework, open_framework

from .compilers import polish


@pytest.mark.parametrize("name", NAMES)
def test_quick_training(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss falls, the error is well below that of no flow, all converges."""
    monkeypatch.setattr(command, "open_framework", lambda name: polish(open_framework(name)))
    record, plot = tmp_path / "record.json", tmp_path / "plot.png"
    given = ["--framework", name, "--quick", "--json", str(record), "--plot", str(plot)]
    assert command.main(given) == 0
    held = json.loads(record.read_text(encoding="utf-8"))
    (run,) = held["runs"]
    _, first, last = run["curve"]
    assert last["loss"] < first["loss"]
    assert run["warps"] < 0.7 * held["others"]["none"]["warps"]
    assert run["unconverged_forward"] == run["unconverged_backward"] == 0
    assert run["systems"] == 4 * 3 * 4
    assert run["mean_steps_backward"] > 2.0
    assert plot.stat().st_size > 1000


def test_frameworks_agree() -> None:
    """On one step of the map, and its gradients, at the weights that training begins with."""
    pairs, found = pictures.warps(("camera", "coins"), 2, 24, seed=0), {}
    (level, *_) = pyramid.pyramid(pairs, 20)
    batch = pyramid.as_batch(level, 0.5 * level.truth)
    for name in NAMES:
        framework = open_framework(name)

        def loss(p: Any, batch: Any, framework: Framework = framework) -> Any:
            data, smooth = model.terms(framework, p, batch)
            size = 1.0 / model.curvature(framework, batch["start"], data, smooth)
            step = framework.fpi.gradient_step(model.energy(framework), size)
            off = step(batch["start"], data, smooth) - batch["truth"]
            return framework.sum(off * off), {}

        found[name] = framework.step(loss)(model.initial(0), batch)
    value, _, gradients = found["torch"]
    for name in NAMES[1:]:
        assert found[name][0] == pytest.approx(value, rel=1e-4)
        for key, gradient in gradients.items():
            scale = np.abs(gradient).max()
            np.testing.assert_allclose(found[name][2][key], gradient, atol=1e-3 * scale)


def test_the_flow_of_a_warp_draws_the_second_picture_back() -> None:
    """Far better than no flow, and than the same flow backwards; noise and what is hidden stay."""
    pairs = pictures.warps(("camera", "coins"), 6, 48, seed=0)

    def off(flow: np.ndarray) -> float:
        each = zip(pairs.first, pairs.second, flow, strict=True)
        return float(np.mean([np.abs(pictures.sampled(b, u) - a) for a, b, u in each]))

    assert off(pairs.flow) < 0.4 * off(0.0 * pairs.flow)
    assert off(pairs.flow) < 0.4 * off(-pairs.flow)
    again = pictures.warps(("camera", "coins"), 6, 48, seed=0)
    np.testing.assert_array_equal(pairs.flow, again.flow)


def test_turned_pairs_are_still_pairs() -> None:
    """The flow is mirrored and transposed with its pictures."""
    pairs = pictures.warps(("camera",), 2, 48, seed=1)
    for seed in range(8):
        found = turned(pairs, np.random.default_rng(seed))
        drawn = [pictures.sampled(b, u) for b, u in zip(found.second, found.flow, strict=True)]
        still = np.mean(np.abs(found.second - found.first))
        assert np.mean(np.abs(np.stack(drawn) - found.first)) < 0.5 * still


def test_the_disparity_draws_the_right_picture_to_the_left_one() -> None:
    pair = pictures.stereo()
    assert pair.flow.shape == (1, 2, 125, 185)
    assert 0.5 < pair.known.mean() < 1.0
    known = pair.known[0] > 0
    assert -15.0 < pair.flow[0, 0][known].min() < pair.flow[0, 0][known].max() < -1.5

    def off(flow: np.ndarray) -> float:
        return float(np.mean(np.abs(pictures.sampled(pair.second[0], flow) - pair.first[0])[known]))

    assert off(pair.flow[0]) < 0.3 * off(0.0 * pair.flow[0])


def test_a_pyramid_gives_back_the_truth() -> None:
    """Sides that do not divide are continued and cut; flows shrink with their pictures."""
    ones, flow = np.ones((1, 30, 41), np.float32), np.full((1, 2, 30, 41), 4.0, np.float32)
    pairs = pictures.Pairs(ones.copy(), ones, flow, ones)
    pairs.first[0, 0, 0] = 2.0
    truths = [level.truth for level in pyramid.pyramid(pairs, 7)]
    assert [x.shape for x in truths] == [(1, 32, 44, 2), (1, 16, 22, 2), (1, 8, 11, 2)]
    assert [float(x.max()) for x in truths] == [4.0, 2.0, 1.0]
    found = pyramid.refine(pairs, pyramid.Schedule(7, 1, 3), lambda batch: batch["start"] + 1.0)
    np.testing.assert_allclose(found, np.full((1, 30, 41, 2), 7.0))
    assert errors(found.transpose(0, 3, 1, 2), pairs) == pytest.approx(3.0 * 2**0.5)


def test_the_plain_iteration_goes_down() -> None:
    """The bound on the curvature holds: a step lowers the energy, wherever it begins."""
    pairs = pictures.warps(("camera",), 2, 24, seed=2)
    (level, *_) = pyramid.pyramid(pairs, 20)
    framework, random = open_framework("torch"), np.random.default_rng(0)
    weights = {
        k: x + 0.1 * random.standard_normal(x.shape).astype(np.float32)
        for k, x in model.initial(0).items()
    }
    # Wide penalties are quadratic, where the bound is tight, and most of all for stripes.
    for name, bias in (("width_bias", 9.0), ("threshold_bias", 9.0), ("weight_bias", 0.0)):
        weights[name][...] = bias
    batch = pyramid.as_batch(level, np.zeros_like(level.truth))
    rough = 3.0 * (-1.0) ** np.indices(level.truth.shape)[2]
    batch["rough"] = (level.truth + rough).astype(np.float32)

    def energies(p: Any, batch: Any) -> Any:
        data, smooth = model.terms(framework, p, batch)
        least, u = model.energy(framework), batch["rough"]
        size = 1.0 / model.curvature(framework, u, data, smooth)
        found = [least(u, data, smooth)]
        for _ in range(5):
            u = framework.fpi.gradient_step(least, size)(u, data, smooth)
            found.append(least(u, data, smooth))
        return sum(unit * x for unit, x in zip(batch["units"], found, strict=True))

    units = np.eye(6, dtype=np.float32)
    found = framework.forward(energies)(weights, {**batch, "units": units})
    assert np.all(np.diff(found) < 0.0)
