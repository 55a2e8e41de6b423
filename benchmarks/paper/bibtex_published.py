"""What an epoch of the published algorithm costs: its iteration, thresholds and caps, in PyTorch.

``python -m benchmarks.paper.bibtex_published --data bibtex.npz [--batches 40]``

FPI_NN: x ← σ(W₂ relu(W₁ [y, x])) until ‖Δx‖²/‖x‖² ≤ 1e-8, at most 4000 times, both ways; Adam
1e-3, batches of 40, gradients clipped to norm 1. FPI_GD: x ← x − ∂E/∂x with E = mean over 512
units of relu(W [y, σ(x)] + b)², until ‖Δx‖² ≤ 1e-4, without a cap; Adam 1e-3, batches of 80.
Plain steps and one stop test for the whole batch. Jeon, Lee, Choi, arXiv 2002.02868; written
from the paper and its published settings.

The first batches are run and their cost is extrapolated to an epoch. Early batches converge
sooner than later ones, so the estimate errs in favour of the published algorithm.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from .bibtex_data import load
from .records import machine

Map = Callable[[Tensor], Tensor]
Stop = Callable[[Tensor, Tensor], bool]


def relative(new: Tensor, old: Tensor) -> bool:
    """FPI_NN's stop test."""
    return bool(((new - old).square().sum() <= 1e-8 * new.square().sum()).item())


def absolute(new: Tensor, old: Tensor) -> bool:
    """FPI_GD's stop test."""
    return bool(((new - old).square().sum() <= 1e-4).item())


def iterate(f: Map, x: Tensor, stop: Stop, cap: int) -> tuple[Tensor, int]:
    """Plain iteration; the last iterate and the number of steps."""
    for step in range(1, cap + 1):
        new = f(x)
        if stop(new, x):
            return new, step
        x = new
    return x, cap


class Published(torch.nn.Module):
    """A map x ← g(x, y), and how its fixed point is found and differentiated."""

    def __init__(self, kind: str, words: int, tags: int, cap: int) -> None:
        """Kind is fpi_nn or fpi_gd; ``cap`` replaces the missing cap of FPI_GD."""
        super().__init__()
        self.kind, self.tags = kind, tags
        self.inner = torch.nn.Linear(words + tags, 600 if kind == "fpi_nn" else 512)
        self.outer = torch.nn.Linear(600, tags) if kind == "fpi_nn" else None
        self.stop = relative if kind == "fpi_nn" else absolute
        self.cap = 4000 if kind == "fpi_nn" else cap

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """One evaluation of g."""
        if self.outer is not None:
            hidden = torch.relu(self.inner(torch.cat([y, x], 1)))
            return torch.sigmoid(self.outer(hidden))
        with torch.enable_grad():
            start = x if x.requires_grad else x.detach().requires_grad_()
            joined = torch.cat([y, torch.sigmoid(start)], 1)
            energy = torch.relu(self.inner(joined)).square().mean(1).sum()
            (slope,) = torch.autograd.grad(energy, start, create_graph=x.requires_grad)
        return x - slope

    def loss(self, y: Tensor, true: Tensor) -> tuple[Tensor, int, int]:
        """A loss whose gradient is the published one, and the steps both ways."""
        with torch.no_grad():
            x, forward = iterate(
                lambda x: self.step(x, y), torch.zeros(len(y), self.tags), self.stop, self.cap
            )
        x.requires_grad_()
        value = self.step(x, y)
        answer = value.detach().requires_grad_()
        p = answer if self.kind == "fpi_nn" else torch.sigmoid(answer)
        entropy = torch.nn.functional.binary_cross_entropy(p.clamp(1e-7, 1 - 1e-7), true)
        (v,) = torch.autograd.grad(entropy, answer)
        c, backward = iterate(
            lambda c: torch.autograd.grad(value, x, c, retain_graph=True)[0] + v,
            v,
            self.stop,
            self.cap,
        )
        return (value * c).sum(), forward, backward


def measure(kind: str, words: Any, tags: Any, batches: int, cap: int) -> dict[str, Any]:
    """Train on some batches; CPU seconds, scaled to an epoch."""
    torch.manual_seed(0)
    model = Published(kind, words.shape[1], tags.shape[1], cap)
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    size = 40 if kind == "fpi_nn" else 80
    order = np.random.default_rng(0).permutation(len(words))
    steps, begin = [], time.process_time()
    for i in track(range(batches), description=f"published {kind}"):
        rows = order[i * size : (i + 1) * size]
        loss, forward, backward = model.loss(
            torch.from_numpy(words[rows]), torch.from_numpy(tags[rows])
        )
        optimiser.zero_grad()
        loss.backward()
        if kind == "fpi_nn":
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        steps.append((forward, backward))
    seconds = time.process_time() - begin
    forward, backward = np.array(steps).T
    return {
        "model": kind,
        "batches_run": batches,
        "cap": model.cap,
        "batches_at_the_cap": int(np.count_nonzero(forward == model.cap)),
        "mean_steps_forward": float(np.mean(forward)),
        "mean_steps_backward": float(np.mean(backward)),
        "cpu_seconds_an_epoch": round(seconds / batches * len(words) / size, 1),
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure both, print, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help=".npz or .arff")
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--cap", type=int, default=20000, help="for FPI_GD, which has none")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record")
    given = parser.parse_args(arguments)
    rows, _ = load(given.data)
    runs = []
    for kind, batches in (("fpi_nn", given.batches), ("fpi_gd", max(1, given.batches // 8))):
        runs.append(measure(kind, rows.words, rows.tags, batches, given.cap))
        print(json.dumps(runs[-1]))
    record = {"experiment": "bibtex, published", "machine": machine("torch"), "runs": runs}
    if given.json:
        given.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
