"""The Bibtex data: bookmarks as bags of 1836 words, each with some of 159 tags.

Katakis, Tsoumakas, Vlahavas (ECML/PKDD 2008), at mulan.sourceforge.net and on OpenML.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

TRAIN_ROWS = 4880
"""Rows of the published training split, which come first where one file holds all."""


class Split(NamedTuple):
    """Words and tags, one row a document, as float32 zeros and ones."""

    words: np.ndarray
    tags: np.ndarray

    def rows(self, chosen: np.ndarray) -> "Split":
        """Some of the rows."""
        return Split(self.words[chosen], self.tags[chosen])


def load(paths: list[Path]) -> tuple[Split, Split]:
    """Training and test rows.

    ``paths`` is one .npz with X_train, Y_train, X_test and Y_test; or a training and a test file
    in ARFF, sparse or dense (mulan.sourceforge.net); or one ARFF file of all rows (OpenML). In
    ARFF the tags are the attributes whose names begin with ``TAG_``.

    Raises:
        ValueError: the files are none of these.
    """
    kinds = [path.suffix for path in paths]
    if kinds == [".npz"]:
        with np.load(paths[0]) as held:
            found = {name: held[name].astype(np.float32) for name in held.files}
        return (
            Split(found["X_train"], found["Y_train"]),
            Split(found["X_test"], found["Y_test"]),
        )
    if kinds == [".arff", ".arff"]:
        return read_arff(paths[0]), read_arff(paths[1])
    if kinds == [".arff"]:
        whole = read_arff(paths[0])
        if len(whole.words) <= TRAIN_ROWS:
            raise ValueError(
                f"expected more than {TRAIN_ROWS} rows in {paths[0]}, where the published training "
                f"split ends, received {len(whole.words)}; give a training and a test file"
            )
        return (
            whole.rows(np.arange(TRAIN_ROWS)),
            whole.rows(np.arange(TRAIN_ROWS, len(whole.words))),
        )
    raise ValueError(
        "expected one .npz file, one .arff file, or a training and a test .arff file, received "
        f"{[str(path) for path in paths]}"
    )


def read_arff(path: Path) -> Split:
    """One ARFF file."""
    import arff

    text = path.read_text(encoding="utf-8")
    sparse = next(line for line in _data_lines(text)).startswith("{")
    held: Any = arff.loads(text, return_type=arff.LOD if sparse else arff.DENSE)
    names = [name for name, _ in held["attributes"]]
    table = np.zeros((len(held["data"]), len(names)), np.float32)
    for row, entries in zip(table, held["data"], strict=True):
        for column, value in entries.items() if sparse else enumerate(entries):
            row[column] = _read(value)
    tags = np.array([name.startswith("TAG_") for name in names])
    if tags.all() or not tags.any():
        raise ValueError(
            f"expected words and tags in {path}, the tags under names that begin with TAG_, "
            f"received {int(tags.sum())} of {len(names)} attributes so named"
        )
    return Split(table[:, ~tags], table[:, tags])


def _data_lines(text: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines()]
    begin = next(i for i, line in enumerate(lines) if line.lower() == "@data")
    return [line for line in lines[begin + 1 :] if line and not line.startswith("%")]


def _read(value: Any) -> float:
    if isinstance(value, str) and value.upper() in ("TRUE", "FALSE"):
        return float(value.upper() == "TRUE")
    return float(value)


def f1(logits: np.ndarray, tags: np.ndarray) -> float:
    """Mean over rows of 2I/(I + U) in percent, I = Σ min(pred, true), U = Σ max(pred, true)."""
    chosen = logits > 0.0
    both = np.minimum(chosen, tags).sum(1)
    either = np.maximum(chosen, tags).sum(1)
    return 100.0 * float(
        np.mean(np.where(either > 0, 2.0 * both / np.maximum(both + either, 1), 1))
    )
