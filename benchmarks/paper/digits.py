"""Equilibrium digits: one network, trained with each gradient strategy.

``python -m benchmarks.paper.digits [--framework torch] [--model implicit gmres ...]``

Trained on 1257 of scikit-learn's digits; the weights at the end are averaged and tested, once, on
360 that are the same for every seed. 180 more were held out to choose the network by. ``--model``
names gradient strategies. ``--quick`` trains for seconds.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from fpicore import GMRES, Broyden, Implicit, Neumann, OneStep, Phantom, Reversible, Unrolled

from . import digits_plot
from .digits_memory import peak_bytes
from .digits_model import Rows, as_batch, batches, initial, load, logits
from .frameworks import NAMES, Framework, open_framework
from .optimiser import AdamW, cosine
from .records import machine
from .tally import Tally

Callback = Callable[[Any, Any], None]

STRATEGIES: dict[str, Callable[[Callback], Any]] = {
    "implicit": lambda told: Implicit(on_failure="ignore", callback=told),
    "gmres": lambda told: Implicit(solver=GMRES(), on_failure="ignore", callback=told),
    "broyden": lambda told: Implicit(solver=Broyden(), on_failure="ignore", callback=told),
    "reuse": lambda told: Implicit(reuse=True, on_failure="ignore", callback=told),
    "one_step": lambda _: OneStep(),
    "neumann_5": lambda _: Neumann(5),
    "phantom_5": lambda _: Phantom(5, 0.5),
    "unrolled": lambda _: Unrolled(),
    "checkpointed": lambda _: Unrolled(checkpoint=True),
    "reversible": lambda told: Reversible(on_failure="ignore", callback=told),
}
FIXED_PRODUCTS = {"one_step": 0, "neumann_5": 4, "phantom_5": 4}
"""Vector-Jacobian products of a truncated series, which reports to nobody."""


@dataclass(frozen=True)
class Options:
    """How the network is trained; the same for all strategies and frameworks."""

    epochs: int = 30
    batch: int = 64
    rate: float = 1e-2
    weight_decay: float = 0.01
    average: float = 0.98
    """Decay of the moving average of the weights."""


class Products:
    """A tally that counts vector-Jacobian products with ∂f/∂z as well, as means over batches."""

    def __init__(self, name: str) -> None:
        """Of a strategy."""
        self.tally, self._name = Tally(), name
        self._told: list[float] = []
        self._evaluations: list[float] = []

    def forward(self, figures: dict[str, Any]) -> None:
        """Count a batch."""
        self.tally.forward(figures)
        self._evaluations.append(float(np.asarray(figures["evaluations"])))

    def backward(self, results: Any, stats: Any) -> None:
        """Count a batch's adjoint solve."""
        self.tally.backward(results, stats)
        self._told.append(float(np.asarray(stats.evaluations)))

    def figures(self) -> dict[str, float]:
        """For the record. What is unrolled is pulled back through every evaluation."""
        found = FIXED_PRODUCTS.get(self._name)
        if found is None:
            found = float(np.mean(self._told or self._evaluations))
        return {**self.tally.figures(), "products": round(found, 1)}


def make_loss(framework: Framework, adjoint: Any) -> Any:
    """Cross-entropy, of parameters and a batch."""

    def loss(parameters: Any, batch: Any) -> tuple[Any, dict[str, Any]]:
        found, figures = logits(framework, parameters, batch, adjoint)
        right = framework.sum(found * batch["digit"], axis=1)
        rows = float(batch["digit"].shape[0])
        return framework.sum(framework.logsumexp(found, 1) - right) / rows, figures

    return loss


def train(
    framework: Framework,
    name: str,
    parts: tuple[Rows, Rows, Rows],
    options: Options,
    seed: int,
    watch: Callable[[Iterable[int], str], Iterable[int]] = lambda epochs, _: epochs,
) -> dict[str, Any]:
    """Train with a strategy; the record of the run."""
    (rows, held, test), products = parts, Products(name)
    seconds, losses, curve = [], [], []
    step = framework.step(make_loss(framework, STRATEGIES[name](products.backward)))
    accuracy = _accuracy(framework)
    optimiser = AdamW(initial(seed), options.rate, options.weight_decay, options.average)

    for epoch in watch(range(options.epochs), name):
        begin, optimiser.rate = time.process_time(), cosine(options.rate, epoch / options.epochs)
        for batch in batches(rows, options.batch, seed, epoch):
            value, figures, gradients = step(optimiser.parameters, batch)
            products.forward(figures)
            optimiser.update(gradients)
            losses.append(value)
        seconds.append(time.process_time() - begin)
        curve.append(accuracy(optimiser.average, held))
    means = np.mean(np.reshape(losses, (options.epochs, -1)), axis=1)
    return {
        "model": name,
        "seed": seed,
        "epochs": options.epochs,
        "parameters": sum(x.size for x in optimiser.parameters.values()),
        "test_accuracy": accuracy(optimiser.average, test),
        "validation_accuracy": curve,
        "first_loss": round(float(means[0]), 4),
        "last_loss": round(float(means[-1]), 4),
        "cpu_seconds_an_epoch": round(float(np.median(seconds)), 3),
        **products.figures(),
        **_memory(framework, name, optimiser.average, rows, options),
    }


def _accuracy(framework: Framework) -> Callable[[Any, Rows], float]:
    """Of weights on rows, in percent."""
    predict = framework.forward(lambda p, batch: logits(framework, p, batch, None)[0])

    def accuracy(weights: Any, rows: Rows) -> float:
        found = predict(weights, as_batch(rows)).argmax(1)
        return round(100.0 * float(np.mean(found == rows.digits)), 2)

    return accuracy


def _memory(
    framework: Framework, name: str, weights: Any, rows: Rows, options: Options
) -> dict[str, float]:
    """Peak of a step at the trained weights, where it can be measured."""
    step = framework.step(make_loss(framework, STRATEGIES[name](lambda *_: None)))
    batch = next(batches(rows, options.batch, 0, 0))
    found = peak_bytes(framework, lambda: step(weights, batch))
    return {} if found is None else {"peak_megabytes": round(found / 1e6, 2)}


def progress(epochs: Iterable[int], name: str) -> Iterable[int]:
    """A bar."""
    return track(epochs, description=name)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--framework", choices=NAMES, default="torch")
    parser.add_argument("--model", choices=STRATEGIES, nargs="+", default=list(STRATEGIES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, metavar="NUMBER")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw accuracy and cost")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Train, print, and write the record and the plot."""
    given = parse(arguments)
    options = Options(epochs=2 if given.quick else Options.epochs)
    options = replace(options, epochs=given.epochs or options.epochs)
    framework, parts = open_framework(given.framework), load()
    record: dict[str, Any] = {
        "experiment": "digits",
        "framework": given.framework,
        "machine": machine(given.framework),
        "options": asdict(options),
        "runs": [],
    }
    for name in given.model:
        for seed in range(1 if given.quick else given.seeds):
            run = train(framework, name, parts, options, seed, progress)
            record["runs"].append(run)
            print(json.dumps(run), flush=True)
            if given.json:
                given.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if given.plot:
        digits_plot.draw(given.plot, record)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
