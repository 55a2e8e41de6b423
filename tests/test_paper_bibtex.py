"""The Bibtex experiment in small: its files, its figure of merit, its models in each framework."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.paper import bibtex, tables
from benchmarks.paper.bibtex_data import Split, f1, load, read_arff
from benchmarks.paper.bibtex_models import MODELS, initial
from benchmarks.paper.frameworks import NAMES, open_framework
from fpicore import Implicit

HEADER = """@relation 'bibtex: -C 2'
@attribute word_a {0,1}
@attribute word_b {0,1}
@attribute TAG_x {0,1}
@attribute TAG_y {0,1}
@data
"""


def small(rows: int, seed: int) -> Split:
    """Tags that two words each give away, and a third that follows from the first two."""
    random = np.random.default_rng(seed)
    words = (random.random((rows, 12)) < 0.3).astype(np.float32)
    first, second = words[:, 0] + words[:, 1] > 0, words[:, 2] + words[:, 3] > 0
    tags = np.stack([first, second, first & second, ~first], axis=1)
    return Split(words, tags.astype(np.float32))


def test_sparse_arff(tmp_path: Path) -> None:
    path = tmp_path / "sparse.arff"
    path.write_text(HEADER + "{1 1,2 1}\n{0 1}\n", encoding="utf-8")
    found = read_arff(path)
    assert found.words.tolist() == [[0, 1], [1, 0]]
    assert found.tags.tolist() == [[1, 0], [0, 0]]


def test_dense_arff_with_names_for_values(tmp_path: Path) -> None:
    path = tmp_path / "dense.arff"
    header = HEADER.replace("TAG_x {0,1}", "TAG_x {FALSE,TRUE}")
    path.write_text(header + "0,1,TRUE,0\n1,0,FALSE,1\n", encoding="utf-8")
    found = read_arff(path)
    assert found.words.tolist() == [[0, 1], [1, 0]]
    assert found.tags.tolist() == [[1, 0], [0, 1]]
    train, test = load([path, path])
    assert train.tags.tolist() == test.tags.tolist()


def test_npz(tmp_path: Path) -> None:
    path = tmp_path / "held.npz"
    one, two = small(5, 0), small(3, 1)
    arrays: dict[str, Any] = {
        "X_train": one.words,
        "Y_train": one.tags,
        "X_test": two.words,
        "Y_test": two.tags,
    }
    np.savez(path, **{k: x.astype(np.uint8) for k, x in arrays.items()})
    train, test = load([path])
    np.testing.assert_array_equal(train.words, one.words)
    np.testing.assert_array_equal(test.tags, two.tags)
    assert train.words.dtype == np.float32


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"one \.npz"):
        load([tmp_path / "data.csv"])
    path = tmp_path / "words.arff"
    path.write_text(HEADER.replace("TAG_", "tag") + "0,1,1,0\n", encoding="utf-8")
    with pytest.raises(ValueError, match="0 of 4"):
        read_arff(path)
    path.write_text(HEADER + "0,1,1,0\n", encoding="utf-8")
    with pytest.raises(ValueError, match="4880"):
        load([path])


def test_f1_is_the_mean_over_rows() -> None:
    tags = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]], np.float32)
    logits = np.array([[1, -1, 1], [1, -1, -1], [-1, -1, -1]], np.float32)
    assert f1(logits, tags) == pytest.approx(100 * (0.5 + 1.0 + 1.0) / 3)


@pytest.mark.parametrize("model", MODELS)
def test_frameworks_agree(model: str) -> None:
    """The loss and its gradients, from the same weights and rows."""
    rows, found = small(10, 3), {}
    weights = initial(MODELS[model], 12, 4, seed=1)
    for name in NAMES:
        framework = open_framework(name)
        adjoint = Implicit(rtol=1e-5, on_failure="raise")
        loss = bibtex.make_loss(framework, MODELS[model], bibtex.Options(), adjoint)
        found[name] = framework.step(loss)(weights, bibtex.as_batch(rows))
    value, _, gradients = found["torch"]
    for name in NAMES[1:]:
        assert found[name][0] == pytest.approx(value, rel=1e-4)
        for key, gradient in gradients.items():
            scale = np.abs(gradient).max()
            np.testing.assert_allclose(found[name][2][key], gradient, atol=2e-3 * scale)


@pytest.mark.parametrize("name", NAMES)
def test_quick_training(name: str) -> None:
    """FPI_NN learns, and all but a few systems converge, both ways, and are counted."""
    parts = (small(200, 0), small(60, 1), small(60, 2))
    options = bibtex.Options(epochs=12, batch=20, rate=1e-2, dropout=0.1)
    run: dict[str, Any] = bibtex.train(open_framework(name), "fpi_nn", parts, options, seed=0)
    assert run["test_f1"] > 90.0
    assert run["systems"] == 12 * 200
    assert run["unconverged_forward"] <= 24
    assert run["unconverged_backward"] == 0
    assert run["mean_steps_backward"] >= 1.0


def test_the_tables_are_those_of_the_records() -> None:
    for page, generated in tables.PAGES.items():
        text = page.read_text(encoding="utf-8")
        assert tables.filled(text, generated) == text, "run python -m benchmarks.paper.tables"
