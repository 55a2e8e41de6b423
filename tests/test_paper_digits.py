"""The digits experiment in small: every strategy in every framework that it is told of."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.paper import digits
from benchmarks.paper.digits_memory import peak_bytes
from benchmarks.paper.digits_model import Rows, as_batch, initial, load
from benchmarks.paper.frameworks import NAMES, Arrays, open_framework
from fpicore import Implicit

from .compilers import polish


def few(rows: int) -> Arrays:
    """A batch of training pictures."""
    train = load()[0]
    return as_batch(Rows(train.pictures[:rows], train.digits[:rows]))


def test_parts_are_all_the_digits_and_do_not_overlap() -> None:
    parts = load()
    assert [len(part.digits) for part in parts] == [1257, 180, 360]
    together = np.concatenate([part.pictures.reshape(-1, 64) for part in parts])
    assert len(np.unique(together, axis=0)) == 1797


def test_frameworks_agree() -> None:
    """The loss and its gradients, from the same weights and pictures."""
    found = {}
    for name in NAMES:
        framework = open_framework(name)
        loss = digits.make_loss(framework, Implicit(rtol=1e-5))
        found[name] = framework.step(loss)(initial(1), few(6))
    value, _, gradients = found["torch"]
    largest = max(float(np.abs(gradient).max()) for gradient in gradients.values())
    for name in NAMES[1:]:
        assert found[name][0] == pytest.approx(value, rel=1e-4)
        for key, gradient in gradients.items():
            np.testing.assert_allclose(found[name][2][key], gradient, atol=1e-3 * largest)


@pytest.mark.parametrize("strategy", digits.STRATEGIES)
def test_strategies_point_the_same_way(strategy: str) -> None:
    """Exact ones agree with `Implicit`; truncated ones are off, by less than a right angle."""
    framework, found = open_framework("torch"), []
    for name in ("implicit", strategy):
        loss = digits.make_loss(framework, digits.STRATEGIES[name](lambda *_: None))
        gradients = framework.step(loss)(initial(1), few(6))[2]
        found.append(gradients["state"].ravel().astype(np.float64))
    exact, given = found
    cosine = exact @ given / np.linalg.norm(exact) / np.linalg.norm(given)
    truncated = strategy in digits.FIXED_PRODUCTS
    assert cosine > (0.5 if truncated else 0.999)
    if strategy == "one_step":
        assert cosine < 0.999


@pytest.mark.parametrize("name", NAMES)
def test_quick_training(name: str) -> None:
    """Twenty steps: better than chance by far, and all converges."""
    train, held, _ = load()
    parts = (Rows(train.pictures[:320], train.digits[:320]), held, held)
    options = digits.Options(epochs=1, batch=16, average=0.5)
    run = digits.train(polish(open_framework(name)), "implicit", parts, options, seed=0)
    assert run["test_accuracy"] > 70.0
    assert run["systems"] == 320
    assert run["unconverged_forward"] == run["unconverged_backward"] == 0
    assert run["products"] >= run["mean_steps_backward"] > 1.0
    assert ("peak_megabytes" in run) == (name == "torch")


def test_peak_counts_what_lives_at_once() -> None:
    torch = pytest.importorskip("torch")
    framework = open_framework("torch")

    def one_after_the_other() -> None:
        for _ in range(3):
            torch.ones(250_000)

    def at_once() -> None:
        held = [torch.ones(250_000) for _ in range(3)]
        del held

    assert peak_bytes(framework, one_after_the_other) == pytest.approx(1e6, rel=0.01)
    assert peak_bytes(framework, at_once) == pytest.approx(3e6, rel=0.01)


def test_command(tmp_path: Path) -> None:
    """It writes its record and its plot."""
    record, plot = tmp_path / "record.json", tmp_path / "plot.png"
    given = ["--quick", "--epochs", "1", "--model", "one_step"]
    assert digits.main([*given, "--json", str(record), "--plot", str(plot)]) == 0
    (run,) = json.loads(record.read_text(encoding="utf-8"))["runs"]
    assert run["model"] == "one_step"
    assert len(run["validation_accuracy"]) == 1
    assert plot.stat().st_size > 5000
