"""A constraint learned from the solutions of programs under it, by descent through the layer."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from fpicore import Implicit

from ..frameworks import Arrays, Framework
from ..optimiser import AdamW
from ..tally import Tally
from . import exact, layers

HELD_OUT = 64


@dataclass(frozen=True)
class Options:
    """How a constraint is learned."""

    programs: int = 256
    batch: int = 32
    epochs: int = 60
    rate: float = 0.02


class Task(NamedTuple):
    """Programs with their solutions, and the constraint that made them."""

    layer: Callable[..., Any]
    batch: Arrays
    """"linear" and "seen" have a row for each program; the rest is common to all."""
    start: Arrays
    true: Arrays


def bounds(programs: int, seed: int) -> Task:
    """The box of a quadratic program of four unknowns; projected gradient."""
    random = np.random.default_rng(seed)
    square = random.standard_normal((4, 4))
    quadratic = np.eye(4) + 0.25 * square @ square.T
    lower, upper = -random.uniform(0.3, 1.0, 4), random.uniform(0.3, 1.0, 4)
    rows = np.vstack([np.eye(4), -np.eye(4)])
    linear = 3.0 * random.standard_normal((programs, 4))
    step = np.array(1.0 / np.linalg.eigvalsh(quadratic)[-1])
    batch = _programs(quadratic, linear, rows, np.concatenate([upper, -lower]))
    return Task(
        layers.projected_gradient,
        {**batch, "step": step},
        {"lower": np.full(4, -2.0), "upper": np.full(4, 2.0)},
        {"lower": lower, "upper": upper},
    )


def polygon(programs: int, seed: int) -> Task:
    """Five half-planes; a program asks for the nearest point of their common part. ADMM."""
    random = np.random.default_rng(seed)
    angles = 2 * np.pi * np.arange(5) / 5
    turned = angles + random.uniform(-0.35, 0.35, 5)
    upper = random.uniform(0.6, 1.2, 5)
    normals = np.stack([np.cos(turned), np.sin(turned)], 1)
    linear = 2.0 * random.standard_normal((programs, 2))
    return Task(
        layers.admm(layers.below),
        _programs(np.eye(2), linear, normals, upper),
        {"normals": np.stack([np.cos(angles), np.sin(angles)], 1), "upper": np.full(5, 1.5)},
        {"normals": normals, "upper": upper},
    )


TASKS = {"bounds": bounds, "polygon": polygon}


def learn(
    framework: Framework,
    name: str,
    options: Options,
    seed: int,
    watch: Callable[[Any, str], Any] = lambda epochs, _: epochs,
) -> dict[str, Any]:
    """The record of a run: the error of the constraint, and of held-out solutions, by epoch."""
    task, tally = TASKS[name](options.programs + HELD_OUT, seed), Tally()
    adjoint = Implicit(rtol=1e-6, on_failure="ignore", callback=tally.backward)
    step = framework.step(make_loss(framework, task.layer, adjoint))
    predict = framework.forward(lambda p, batch: task.layer(framework, p, batch, None)[0])
    optimiser = AdamW(task.start, options.rate, 0.0, decay=0.9)
    held = _rows(task.batch, np.arange(options.programs, options.programs + HELD_OUT))
    curve, begin = [], time.process_time()
    for epoch in watch(range(options.epochs + 1), name):
        off = predict(optimiser.average, held) - held["seen"]
        point = {"epoch": epoch, "constraint": distance(optimiser.average, task.true)}
        curve.append({**point, "solution": float(np.sqrt(np.mean(np.sum(off**2, 1))))})
        if epoch == options.epochs:
            break
        order = np.random.default_rng([seed, epoch]).permutation(options.programs)
        for rows in order.reshape(-1, options.batch):
            _, figures, gradients = step(optimiser.parameters, _rows(task.batch, rows))
            tally.forward(figures)
            optimiser.update(gradients)
    return {
        "task": name,
        "seed": seed,
        "cpu_seconds": round(time.process_time() - begin, 1),
        **tally.figures(),
        "curve": curve,
        "found": {key: x.tolist() for key, x in optimiser.average.items()},
        "true": {key: x.tolist() for key, x in task.true.items()},
        "start": {key: x.tolist() for key, x in task.start.items()},
    }


def make_loss(framework: Framework, layer: Callable[..., Any], adjoint: Any) -> Any:
    """Half the mean square of what a solution is off."""

    def loss(parameters: Any, batch: Any) -> tuple[Any, dict[str, Any]]:
        x, figures = layer(framework, parameters, batch, adjoint)
        return 0.5 * framework.sum((x - batch["seen"]) ** 2) / batch["seen"].shape[0], figures

    return loss


def distance(found: Arrays, true: Arrays) -> float:
    """The largest error of a bound; of half-planes, of (g, h)/|g|, each beside its own."""
    if "lower" in true:
        return max(float(np.max(np.abs(found[key] - true[key]))) for key in true)
    one, two = _unit(found), _unit(true)
    apart = np.linalg.norm(one[:, None] - two[None], axis=2)
    return float(np.max(apart[linear_sum_assignment(apart)]))


def _unit(constraint: Arrays) -> np.ndarray:
    rows = np.column_stack([constraint["normals"], constraint["upper"]])
    return rows / np.linalg.norm(constraint["normals"], axis=1)[:, None]


def _programs(
    quadratic: np.ndarray, linear: np.ndarray, rows: np.ndarray, offsets: np.ndarray
) -> Arrays:
    seen = np.stack([exact.minimum(quadratic, c, rows, offsets) for c in linear])
    return {"quadratic": quadratic, "linear": linear, "seen": seen, "start": np.zeros_like(linear)}


def _rows(batch: Arrays, rows: np.ndarray) -> Arrays:
    chosen = {name: batch[name][rows] for name in ("linear", "seen", "start")}
    return {**batch, **chosen}
