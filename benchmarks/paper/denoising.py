"""Image denoising: FPI_GD and FPI_NN beside the same cells unrolled and classical methods.

``python -m benchmarks.paper.denoising [--framework torch] [--model fpi_gd] [--sigma 15 25 50]``

One model serves all σ between the smallest and the largest. All models see the same patches and
the same noise, the number of batches is fixed beforehand, and the averaged weights at the end are
tested, once. ``--quick`` trains for seconds on small patches.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from fpicore import Implicit

from . import denoising_plot
from .denoising_classical import CLASSICAL, pick
from .denoising_models import MODELS, MOST_STEPS, Model, as_batch
from .denoising_pool import cuts, pool
from .frameworks import NAMES, Framework, open_framework
from .optimiser import AdamW, clipped, cosine
from .pictures import TEST, TRAINING, UNIT, VALIDATION, Picture, load, middle, noisy
from .pictures import psnr as psnr_of
from .pictures import ssim as ssim_of
from .records import done, machine, resumed
from .tally import Tally

Restore = Callable[[np.ndarray, float], np.ndarray]
"""(noisy, σ in grey levels) ↦ clean, one picture in units."""


@dataclass(frozen=True)
class Options:
    """How a model is trained and tested; the same for all models and frameworks."""

    sigmas: tuple[float, ...] = (15.0, 25.0, 50.0)
    batches: int = 500
    batch: int = 8
    patch: int = 40
    rate: float = 3e-3
    average: float = 0.98
    """Decay of the moving average of the weights."""
    adjoint_rtol: float = 1e-2
    windows: int = 224
    side: int = 96
    """Of the windows that patches are cut from, see denoising_pool.py."""
    window: int = 192
    """Side of the middle square that is tested."""


QUICK = Options(
    sigmas=(25.0,),
    batches=12,
    batch=2,
    patch=24,
    rate=1e-2,
    average=0.5,
    windows=8,
    side=32,
    window=64,
)


def make_loss(framework: Framework, model: Model, adjoint: Any) -> Any:
    """Squared error over σ, so that every noise weighs about the same, of parameters and batch."""

    def loss(parameters: Any, batch: Any) -> tuple[Any, dict[str, Any]]:
        found, figures = model.restore(framework, parameters, batch, adjoint)
        errors = (found - batch["clean"]) ** 2 / framework.exp(batch["level"])
        return framework.sum(errors) / float(np.prod(batch["clean"].shape)), figures

    return loss


def train(
    framework: Framework,
    name: str,
    options: Options,
    seed: int,
    watch: Callable[[Iterable[Any], str, int], Iterable[Any]] = lambda x, *_: x,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The averaged weights, and the record of the training."""
    model, tally, losses = MODELS[name], Tally(), []
    adjoint = Implicit(rtol=options.adjoint_rtol, on_failure="ignore", callback=tally.backward)
    step = framework.step(make_loss(framework, model, adjoint))
    start = model.cell.initial(seed)
    optimiser = AdamW(start, options.rate, 0.0, options.average)
    windows = pool(options.windows, options.side, options.sigmas, seed)
    stream = cuts(windows, options.patch, options.batch, seed)
    begin = time.process_time()
    for number, drawn in enumerate(watch(islice(stream, options.batches), name, options.batches)):
        batch = as_batch(*drawn)
        value, figures, gradients = step(optimiser.parameters, batch)
        tally.forward(figures)
        optimiser.rate = cosine(options.rate, number / options.batches)
        optimiser.update(clipped(gradients, 1.0))
        losses.append(value)
    part = max(len(losses) // 6, 1)
    return optimiser.average, {
        "model": name,
        "seed": seed,
        "parameters": int(sum(x.size for x in start.values())),
        "cpu_seconds": round(time.process_time() - begin, 1),
        "first_loss": round(float(np.mean(losses[:part])), 4),
        "last_loss": round(float(np.mean(losses[-part:])), 4),
        **tally.figures(),
    }


def restorer(framework: Framework, name: str, weights: Any, tally: Tally) -> Restore:
    """A trained model as a function of a noisy picture; its solves are counted."""
    model = MODELS[name]

    def found(p: Any, batch: Any) -> tuple[Any, ...]:
        clean, figures = model.restore(framework, p, batch, None, MOST_STEPS)
        return clean, *figures.values()

    run = framework.forward(found)

    def restore(pixels: np.ndarray, sigma: float) -> np.ndarray:
        size = np.array([sigma / UNIT], np.float32)
        clean, *solve = run(weights, as_batch(pixels[None], pixels[None], size))
        tally.forward(dict(zip(("codes", "steps"), solve, strict=True)) if solve else {})
        return clean[0, ..., 0]

    return restore


def scores(restore: Restore, pictures: list[Picture], sigmas: tuple[float, ...]) -> dict[str, Any]:
    """PSNR of every picture, and mean PSNR and SSIM, for each σ."""
    found = {}
    for sigma in sigmas:
        clean = [restore(noisy(picture, sigma), sigma) for picture in pictures]
        pairs = list(zip(pictures, clean, strict=True))
        values = {p.name: round(psnr_of(p.pixels, x), 2) for p, x in pairs}
        found[f"{sigma:g}"] = {
            "psnr": round(float(np.mean(list(values.values()))), 2),
            "ssim": round(float(np.mean([ssim_of(p.pixels, x) for p, x in pairs])), 4),
            "pictures": values,
        }
    return found


def windows(names: tuple[str, ...], options: Options) -> list[Picture]:
    """The middle of each picture."""
    return [middle(picture, options.window) for picture in load(names)]


def learned(
    framework: Framework, name: str, options: Options, seed: int, watch: Any
) -> dict[str, Any]:
    """Train and test a model."""
    weights, run = train(framework, name, options, seed, watch)
    tally = Tally()
    restore = restorer(framework, name, weights, tally)
    run["test"] = scores(restore, windows(TEST, options), options.sigmas)
    run["test_solves"] = tally.figures()
    run["validation"] = scores(restore, windows(VALIDATION, options), options.sigmas)
    return run


def classical(name: str, options: Options) -> dict[str, Any]:
    """Pick a choice for every σ on the middle of four training pictures, and test it."""
    begin, tuning = time.process_time(), replace(options, window=min(options.window, 128))
    pictures = windows(TRAINING[:4], tuning)
    choices = {s: pick(name, pictures, s) for s in options.sigmas}

    def restore(pixels: np.ndarray, sigma: float) -> np.ndarray:
        return CLASSICAL[name][0](pixels, sigma / UNIT, choices[sigma])

    return {
        "model": name,
        "choices": {f"{sigma:g}": choice for sigma, choice in choices.items()},
        "test": scores(restore, windows(TEST, options), options.sigmas),
        "cpu_seconds": round(time.process_time() - begin, 1),
    }


def nothing(options: Options) -> dict[str, Any]:
    """The noisy pictures themselves."""
    test = windows(TEST, options)
    return {"model": "noisy", "test": scores(lambda pixels, _: pixels, test, options.sigmas)}


def progress(items: Iterable[Any], name: str, total: int) -> Iterable[Any]:
    """A bar."""
    return track(items, description=name, total=total)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--framework", choices=NAMES, default="torch")
    names = [*CLASSICAL, *MODELS]
    parser.add_argument("--model", choices=names, metavar="NAME", nargs="+", default=names)
    parser.add_argument("--sigma", type=float, nargs="+", metavar="LEVELS")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--batches", type=int, metavar="NUMBER")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the record, written or added to")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the gains")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Train, test, print, and write the record and the plot."""
    given = parse(arguments)
    options = QUICK if given.quick else Options()
    options = replace(options, sigmas=tuple(given.sigma or options.sigmas))
    options = replace(options, batches=given.batches or options.batches)
    framework = open_framework(given.framework)
    record: dict[str, Any] = {
        "experiment": "denoising",
        "framework": given.framework,
        "machine": machine(given.framework),
        "options": asdict(options),
        "runs": [nothing(options)],
    }
    record = resumed(record, given.json)
    jobs: dict[tuple[str, int | None], Callable[[], dict[str, Any]]] = {
        (name, None): partial(classical, name, options) for name in CLASSICAL
    }
    jobs |= {
        (name, seed): partial(learned, framework, name, options, seed, progress)
        for name in MODELS
        for seed in range(given.seeds)
    }
    for (name, seed), job in jobs.items():
        if name not in given.model or done(record, name, seed):
            continue
        record["runs"].append(job())
        print(json.dumps(record["runs"][-1]), flush=True)
        if given.json:
            given.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if given.plot:
        denoising_plot.draw(given.plot, record)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
