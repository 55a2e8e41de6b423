"""Multi-label text classification on Bibtex: FPI_NN and FPI_GD beside an MLP.

``python -m benchmarks.paper.bibtex --data bibtex.npz [--framework torch] [--model fpi_nn]``

Every run trains on the training rows but 480, picks the epoch by F1 on those 480, and evaluates
the test rows once, at that epoch. Batches, dropout masks and the optimiser are NumPy's, so that
the frameworks differ in nothing but themselves.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from fpicore import Implicit

from .bibtex_data import Split, f1, load
from .bibtex_models import MODELS, Model, initial
from .frameworks import NAMES, Arrays, Framework, open_framework
from .optimiser import AdamW
from .records import done, machine, resumed
from .tally import Tally

HELD_OUT = 480


@dataclass(frozen=True)
class Options:
    """How a model is trained; the same for all models and frameworks."""

    epochs: int = 50
    batch: int = 40
    rate: float = 3e-3
    weight_decay: float = 0.1
    dropout: float = 0.6
    """Share of the words that are left out of a training row, at random."""
    cross_entropy: float = 0.1
    """The loss is 5·(1 − soft F1) + this·(cross-entropy), as the figure of merit is F1."""


def make_loss(framework: Framework, model: Model, options: Options, adjoint: Any) -> Any:
    """Of parameters and a batch."""

    def loss(parameters: Any, batch: Any) -> tuple[Any, dict[str, Any]]:
        logits, figures = model.logits(framework, parameters, batch, adjoint)
        tags, rows = batch["tags"], batch["tags"].shape[0]
        p = framework.sigmoid(logits)
        hits = framework.sum(p * tags, axis=1)
        soft = 2.0 * hits / (framework.sum(p, axis=1) + framework.sum(tags, axis=1))
        entropy = framework.sum(framework.softplus(logits) - logits * tags)
        entries = rows * batch["tags"].shape[1]
        merit = framework.sum(1.0 - soft) / rows
        return 5.0 * merit + options.cross_entropy * entropy / entries, figures

    return loss


def batches(train: Split, options: Options, seed: int, epoch: int) -> Iterator[Arrays]:
    """One epoch in random order, words dropped and the rest scaled up; a last short one is left."""
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(train.words))
    for begin in range(0, len(order) - options.batch + 1, options.batch):
        rows = train.rows(order[begin : begin + options.batch])
        kept = random.random(rows.words.shape, dtype=np.float32) >= options.dropout
        yield as_batch(Split(rows.words * kept / np.float32(1.0 - options.dropout), rows.tags))


def as_batch(rows: Split) -> Arrays:
    """What a model takes."""
    return {
        "words": np.ascontiguousarray(rows.words),
        "tags": np.ascontiguousarray(rows.tags),
        "start": np.zeros_like(rows.tags),
    }


def normalised(split: Split) -> Split:
    """Rows of words with norm 8: a document's length says little of its tags."""
    norms = np.linalg.norm(split.words, axis=1, keepdims=True)
    return Split(8.0 * split.words / np.maximum(norms, 1e-6), split.tags)


def train(
    framework: Framework,
    name: str,
    splits: tuple[Split, Split, Split],
    options: Options,
    seed: int,
    watch: Callable[[Any, str], Any] = lambda epochs, _: epochs,
) -> dict[str, Any]:
    """Train one model; the record of the run."""
    rows, held, test = splits
    model, tally = MODELS[name], Tally()
    start = initial(model, rows.words.shape[1], rows.tags.shape[1], seed)
    optimiser = AdamW(start, options.rate, options.weight_decay)
    adjoint = Implicit(rtol=1e-3, on_failure="ignore", callback=tally.backward)
    step = framework.step(make_loss(framework, model, options, adjoint))
    predict = framework.forward(lambda p, batch: model.logits(framework, p, batch, None)[0])
    scores, best, chosen, seconds = [], -1.0, start, []
    for epoch in watch(range(options.epochs), name):
        begin = time.process_time()
        for batch in batches(rows, options, seed, epoch):
            _, figures, gradients = step(optimiser.parameters, batch)
            tally.forward(figures)
            optimiser.update(gradients)
        seconds.append(time.process_time() - begin)
        scores.append(f1(predict(optimiser.average, as_batch(held)), held.tags))
        if scores[-1] > best:
            best, chosen = scores[-1], {k: x.copy() for k, x in optimiser.average.items()}
    return {
        "model": name,
        "seed": seed,
        "test_f1": round(f1(predict(chosen, as_batch(test)), test.tags), 2),
        "validation_f1": round(best, 2),
        "epoch": int(np.argmax(scores)) + 1,
        "parameters": int(sum(x.size for x in start.values())),
        "cpu_seconds_an_epoch": round(float(np.median(seconds)), 2),
        **tally.figures(),
    }


def splits(train_rows: Split, test: Split) -> tuple[Split, Split, Split]:
    """Training, held-out and test rows; the held-out ones are the same for every seed."""
    order = np.random.default_rng(100).permutation(len(train_rows.words))
    return (
        normalised(train_rows.rows(order[HELD_OUT:])),
        normalised(train_rows.rows(order[:HELD_OUT])),
        normalised(test),
    )


def main(arguments: list[str] | None = None) -> int:
    """Train, print, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help=".npz or .arff")
    parser.add_argument("--framework", choices=NAMES, default="torch")
    parser.add_argument("--model", choices=MODELS, nargs="+", default=list(MODELS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=Options.epochs)
    parser.add_argument("--json", type=Path, metavar="FILE", help="the record, written or added to")
    given = parser.parse_args(arguments)
    options = Options(epochs=given.epochs)
    framework, parts = open_framework(given.framework), splits(*load(given.data))
    record: dict[str, Any] = {
        "experiment": "bibtex",
        "framework": given.framework,
        "machine": machine(given.framework),
        "options": asdict(options),
        "runs": [],
    }
    record = resumed(record, given.json)
    for name, seed in product(given.model, range(given.seeds)):
        if not done(record, name, seed):
            run = train(framework, name, parts, options, seed, lambda x, n: track(x, description=n))
            record["runs"].append(run)
            print(json.dumps(run))
            if given.json:
                given.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
