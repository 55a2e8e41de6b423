"""Training and evaluation: the same for every framework."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fpicore import Implicit

from ..frameworks import Arrays, Framework
from ..optimiser import AdamW
from ..tally import Tally
from . import model
from .pictures import Pairs
from .pyramid import Schedule, refine

IN_TRAINING = Schedule(least=10, warps=4, median=5)


@dataclass(frozen=True)
class Options:
    """How a model is trained."""

    passes: int = 48
    """Batches, each taken from coarse to fine once; every refinement is a step of AdamW."""
    batch: int = 2
    pool: int = 160
    """Pairs that batches are drawn from."""
    size: int = 96
    rate: float = 3e-4
    adjoint_rtol: float = 1e-2
    every: int = 12
    """Passes between looks at the held-out pairs."""
    schedule: Schedule = IN_TRAINING
    """In training, and at the looks."""


def train(
    framework: Framework,
    pairs: Pairs,
    held: Pairs,
    options: Options,
    seed: int,
    watch: Callable[[Any], Any] = lambda passes: passes,
) -> tuple[Arrays, dict[str, Any]]:
    """Parameters of the least held-out error among the looks, and the record of the run."""
    tally, random = Tally(), np.random.default_rng(seed)
    adjoint = Implicit(
        rtol=options.adjoint_rtol,
        max_steps=2 * model.MAX_STEPS,
        on_failure="ignore",
        callback=tally.backward,
    )
    step = framework.step(model.make_loss(framework, adjoint))
    optimiser = AdamW(model.initial(seed), options.rate, 0.0, decay=0.99)
    estimate = estimator(framework, options.batch)
    chosen, curve, losses = optimiser.average, [], []

    def solve(batch: Arrays) -> np.ndarray:
        value, figures, gradients = step(optimiser.parameters, batch)
        tally.forward(figures)
        optimiser.update(clipped(gradients))
        losses.append(value)
        return np.asarray(figures["flow"])

    def look(n: int) -> None:
        nonlocal chosen
        error = float(np.mean(errors(estimate(optimiser.average, held, options.schedule), held)))
        if all(error < point["held_out"] for point in curve):
            chosen = {name: x.copy() for name, x in optimiser.average.items()}
        loss = float(np.mean(losses)) if losses else None
        curve.append({"pass": n, "loss": loss, "held_out": error})
        losses.clear()

    begin = time.process_time()
    look(0)
    for n in watch(range(1, options.passes + 1)):
        rows = random.choice(len(pairs.first), options.batch, replace=False)
        refine(turned(pairs.some(rows), random), options.schedule, solve)
        if n % options.every == 0 or n == options.passes:
            look(n)
    figures = {
        "seed": seed,
        "parameters": int(sum(x.size for x in chosen.values())),
        "cpu_seconds": round(time.process_time() - begin, 1),
        "curve": curve,
        **tally.figures(),
    }
    return chosen, figures


def clipped(gradients: Arrays) -> Arrays:
    """Of norm 1 at most."""
    norm = float(np.sqrt(sum(np.sum(g.astype(np.float64) ** 2) for g in gradients.values())))
    if not np.isfinite(norm):
        raise FloatingPointError(f"expected finite gradients, received a norm of {norm}")
    return {name: g / np.float32(max(norm, 1.0)) for name, g in gradients.items()}


def turned(pairs: Pairs, random: np.random.Generator) -> Pairs:
    """Mirrored and transposed at random, all alike."""
    first, second, flow, known = pairs
    for axis in (1, 2):
        if random.random() < 0.5:
            first, second, known = (np.flip(x, axis) for x in (first, second, known))
            flow = np.flip(flow, axis + 1) * np.array([1.0, -1.0] if axis == 1 else [-1.0, 1.0])[
                :, None, None
            ].astype(np.float32)
    if random.random() < 0.5:
        first, second, known = (x.transpose(0, 2, 1) for x in (first, second, known))
        flow = flow.transpose(0, 1, 3, 2)[:, ::-1]
    return Pairs(first, second, flow, known)


def estimator(framework: Framework, chunk: int = 4) -> Callable[..., np.ndarray]:
    """(parameters, pairs, schedule) ↦ flows, (n, 2, rows, columns), so many pairs at a time."""
    run = framework.forward(lambda p, batch: model.refined(framework, p, batch, None)[0])

    def estimate(parameters: Arrays, pairs: Pairs, schedule: Schedule) -> np.ndarray:
        found = []
        for rows in np.split(np.arange(len(pairs.first)), range(chunk, len(pairs.first), chunk)):
            flow = refine(pairs.some(rows), schedule, lambda batch: run(parameters, batch))
            found.append(flow.transpose(0, 3, 1, 2))
        return np.concatenate(found)

    return estimate


def errors(flow: np.ndarray, pairs: Pairs) -> np.ndarray:
    """The mean end-point error of each pair, in pixels, where the flow is known."""
    off = np.sqrt(np.sum((flow - pairs.flow) ** 2, axis=1)) * pairs.known
    return off.sum((1, 2)) / pairs.known.sum((1, 2))
