"""The denoising experiment in small: pictures, models in each framework, the command."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.paper import (
    denoising,
    denoising_clues,
    denoising_guide,
    denoising_pool,
    pictures,
    records,
)
from benchmarks.paper.denoising_models import MODELS, Model, as_batch
from benchmarks.paper.frameworks import NAMES, open_framework
from benchmarks.paper.optimiser import clipped, cosine
from fpicore import Implicit

TINY = replace(denoising.QUICK, window=48)


def test_no_picture_is_in_two_parts() -> None:
    names = (*pictures.TRAINING, *pictures.VALIDATION, *pictures.TEST)
    assert len(set(names)) == len(names)


def test_noise_is_the_pictures_own_and_of_its_level() -> None:
    (picture,) = pictures.load(("text",))
    one, two = pictures.noisy(picture, 25.0), pictures.noisy(picture, 25.0)
    np.testing.assert_array_equal(one, two)
    assert np.std(one - picture.pixels) == pytest.approx(1.0, rel=0.02)
    assert pictures.psnr(picture.pixels, picture.pixels + 1.0) == pytest.approx(20.2, abs=0.2)


def test_patches_are_of_the_pictures() -> None:
    """A picture whose pixels are its number, and a noise whose deviation is the one told."""
    flat = [pictures.Picture(str(i), np.full((40, 50), i, np.float32)) for i in range(3)]
    seen = set()
    for clean, dirty, sigma in islice(pictures.patches(flat, 32, 4, (5.0, 50.0), 0), 10):
        seen |= set(clean[:, 0, 0])
        assert np.ptp(clean, axis=(1, 2)).max() == 0.0
        told = sigma / pictures.UNIT
        np.testing.assert_allclose(np.std(dirty - clean, axis=(1, 2)), told, rtol=0.15)
        assert np.all((sigma >= 5.0) & (sigma <= 50.0))
    assert seen == {0.0, 1.0, 2.0}


def test_similar_pixels_are_averaged_and_others_are_not() -> None:
    """A checkerboard of large squares stays, noise on it falls, and the clues are finite."""
    random = np.random.default_rng(0)
    clean = (np.indices((1, 32, 34)) // 8).sum(0) % 2 * np.float32(6.0)
    clean = clean.astype(np.float32)
    np.testing.assert_allclose(denoising_guide.similar(clean)[0], clean, atol=1e-2)
    dirty = clean + random.standard_normal(clean.shape, dtype=np.float32)
    sigma = np.array([2.0], np.float32)
    guess = denoising_guide.guess(2.0 * dirty, sigma)
    assert np.std(0.5 * guess.means - clean) < 0.6
    clues = denoising_clues.clues(2.0 * dirty, sigma, guess)
    assert clues.shape == (1, 32, 34, denoising_clues.CLUES)
    assert np.all(np.isfinite(clues))


def test_groups_of_patches_know_more_than_similar_pixels() -> None:
    """On a slow wave, in units of 2, and their spread is small where they agree."""
    clean = np.broadcast_to(6.0 * np.sin(0.4 * np.arange(40)), (1, 40, 40)).astype(np.float32)
    noise = np.random.default_rng(0).standard_normal(clean.shape, dtype=np.float32)
    guess = denoising_guide.guess(clean + 2.0 * noise, np.array([2.0], np.float32))
    pixels, _ = denoising_guide.similar(0.5 * clean + noise)
    error = np.std(guess.means - clean)
    assert error < 0.8 * np.std(2.0 * pixels - clean)
    assert 0.0 < guess.spread.mean() < error**2
    halved = denoising_guide.guess(0.5 * clean + noise, np.ones(1, np.float32))
    np.testing.assert_allclose(guess.spread, 4.0 * halved.spread, atol=1e-3)


def test_alike_patches_are_the_nearest_ones() -> None:
    """Those of each group against a search through all patches in reach, one by one."""
    pilot = np.random.default_rng(1).standard_normal((17, 22))
    side, number, reach = 3, 9, denoising_guide.WINDOW
    groups = denoising_guide.alike(pilot, side, number)
    views = np.lib.stride_tricks.sliding_window_view(pilot, (side, side))
    rows, columns = np.indices(views.shape[:2])
    starts = [(i, j) for i in (0, 4, 8, 12, 14) for j in (0, 4, 8, 12, 16, 19)]
    assert len(groups) == len(starts)
    for (i, j), found in zip(starts, groups, strict=True):
        distances = np.mean((views - views[i, j]) ** 2, axis=(2, 3))
        distances[np.maximum(abs(rows - i), abs(columns - j)) > reach] = np.inf
        nearest = np.argsort(distances, axis=None)[:number]
        assert set(found) == {x // 20 * 22 + x % 20 for x in nearest}


def test_cuts_are_the_same_piece_of_all_that_is_known() -> None:
    """Every array of the pool holds its own places, so a patch tells where it is from."""
    places = np.arange(3 * 20 * 20, dtype=np.float32).reshape(3, 20, 20)
    sigma = np.arange(3, dtype=np.float32)
    guess = denoising_guide.Guess(places + 0.2, places + 0.3, places + 0.4)
    windows = denoising_pool.Pool(places, places + 0.1, sigma, guess)
    for clean, dirty, told, known in islice(denoising_pool.cuts(windows, 8, 4, 0), 5):
        for i, x in enumerate((dirty, *known), start=1):
            np.testing.assert_allclose(x, clean + 0.1 * i, atol=1e-3)
        np.testing.assert_array_equal(clean[:, 0, 0] // 400, told)
        assert len(np.unique(clean[0])) == 64


@pytest.mark.parametrize("model", ["fpi_gd", "fpi_nn"])
def test_frameworks_agree(model: str) -> None:
    """The loss and its gradients after one step of the cell, from the same weights and noise."""
    random, found = np.random.default_rng(0), {}
    clean = random.standard_normal((2, 12, 10)).astype(np.float32)
    dirty = clean + random.standard_normal(clean.shape).astype(np.float32)
    batch = as_batch(clean, dirty, np.array([0.6, 1.5], np.float32))
    weights = MODELS[model].cell.initial(1)
    weights["judge"] += 0.01 * random.standard_normal(weights["judge"].shape, dtype=np.float32)
    for name in NAMES:
        framework = open_framework(name)
        loss = denoising.make_loss(framework, Model(MODELS[model].cell, 1), None)
        found[name] = framework.step(loss)(weights, batch)
    value, _, gradients = found["torch"]
    for name in NAMES[1:]:
        assert found[name][0] == pytest.approx(value, rel=1e-4)
        for key, gradient in gradients.items():
            largest = float(np.abs(gradient).max())
            np.testing.assert_allclose(found[name][2][key], gradient, atol=1e-3 * largest)


def test_the_fixed_point_does_not_depend_on_the_step() -> None:
    """Its gradient for FPI_GD's step is zero, that of the unrolled cell is not."""
    random, framework = np.random.default_rng(0), open_framework("torch")
    clean = random.standard_normal((1, 12, 12)).astype(np.float32)
    batch = as_batch(clean, clean + 1.0, np.ones(1, np.float32))
    slopes = {}
    for model in ("fpi_gd", "unrolled_gd_5"):
        loss = denoising.make_loss(framework, MODELS[model], Implicit())
        gradients = framework.step(loss)(MODELS[model].cell.initial(1), batch)[2]
        slopes[model] = abs(float(gradients["step_bias"][0]))
    assert slopes["fpi_gd"] < 0.02 * slopes["unrolled_gd_5"]


@pytest.mark.parametrize(
    ("name", "model"),
    [("torch", "fpi_gd"), ("torch", "fpi_nn"), ("jax", "fpi_nn"), ("tensorflow", "fpi_gd")],
)
def test_quick_training(name: str, model: str) -> None:
    """The loss falls, held-out pictures get better than before and than noisy, all converges."""
    framework = open_framework(name)
    run = denoising.learned(framework, model, TINY, 0, lambda items, *_: items)
    assert run["last_loss"] < 0.8 * run["first_loss"]
    noisy: dict[str, Any] = denoising.nothing(TINY)
    assert run["test"]["25"]["psnr"] > noisy["test"]["25"]["psnr"] + 2.0
    assert run["test"]["25"]["ssim"] > noisy["test"]["25"]["ssim"]
    assert run["systems"] == TINY.batches * TINY.batch
    assert run["unconverged_forward"] == run["unconverged_backward"] == 0
    assert run["test_solves"]["systems"] == len(pictures.TEST)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It writes its record and its plot, and compares with the classical methods."""
    record, plot = tmp_path / "record.json", tmp_path / "plot.png"
    names = ["total variation", "wavelet", "non-local means", "unrolled_nn_5"]
    given = ["--quick", "--model", *names, "--json", str(record), "--plot", str(plot)]
    assert denoising.main([*given, "--batches", "3", "--sigma", "15", "25"]) == 0
    held = json.loads(record.read_text(encoding="utf-8"))
    scores = {run["model"]: run["test"]["25"]["psnr"] for run in held["runs"]}
    for name in names[:3]:
        assert scores[name] > scores["noisy"] + 3.0
    assert set(held["runs"][-1]["test"]) == {"15", "25"}
    assert held["options"]["batches"] == 3
    assert "unrolled_nn_5" in capsys.readouterr().out
    assert plot.stat().st_size > 5000
    held["runs"].append({"model": "another", "seed": 1})
    resumed = records.resumed({**held, "runs": []}, record)
    assert records.done(resumed, "unrolled_nn_5", 0)
    assert not records.done(resumed, "another", 1)
    with pytest.raises(ValueError, match="expected framework jax"):
        records.resumed({**held, "framework": "jax"}, record)


def test_schedule_and_clipping() -> None:
    assert cosine(2.0, 0.0) == pytest.approx(2.0)
    assert cosine(2.0, 1.0) == pytest.approx(0.04)
    given = {"a": np.array([3.0], np.float32), "b": np.array([4.0], np.float32)}
    np.testing.assert_allclose(clipped(given, 1.0)["b"], 0.8, rtol=1e-6)
    np.testing.assert_allclose(clipped(given, 6.0)["b"], 4.0)
