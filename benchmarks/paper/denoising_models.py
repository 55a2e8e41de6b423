"""Models of a clean picture given a noisy one: FPI_GD, FPI_NN, and the same two cells unrolled.

Jeon, Lee, Choi, arXiv 2002.02868. Pictures are (pictures, height, width, channels) in units, see
pictures.py; a batch holds "noisy", "level", log(σ/25), one number a picture, and what
denoising_guide.py and denoising_clues.py find: "guess" and "clues".
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fpicore import Anderson

from .denoising_clues import CLUES, FILTERS, SIDE, clues, waves
from .denoising_guide import Guess, remembered
from .frameworks import Arrays, Framework

RTOL = 3e-4
HIDDEN = 32
"""Channels between clues and what they decide."""
MAX_STEPS, MOST_STEPS = 80, 200
"""In training, where one patch in thousands is not worth more, and in a test."""
Held = Callable[[Any], Any]
Posed = tuple[Callable[..., Any], Any, tuple[Any, ...]]


@dataclass(frozen=True)
class Cell:
    """A map whose fixed point, or whose k-fold image of the start, is the clean picture."""

    initial: Callable[[int], Arrays]
    """Parameters, given a seed."""
    pose: Callable[[Framework, Any, Any, Held], Posed]
    """(framework, parameters, batch, held) ↦ the map, its start and its further arguments; what
    does not matter for the derivative of a fixed point goes through ``held``."""


@dataclass(frozen=True)
class Model:
    """A cell at its fixed point, or unrolled over so many steps."""

    cell: Cell
    steps: int | None = None

    def restore(
        self, framework: Framework, p: Any, batch: Any, adjoint: Any, max_steps: int = MAX_STEPS
    ) -> tuple[Any, dict[str, Any]]:
        """The clean picture, and what the solve told; one system a picture."""
        held = framework.constant if self.steps is None else lambda x: x
        f, start, args = self.cell.pose(framework, p, batch, held)
        if self.steps is not None:
            for _ in range(min(self.steps, max_steps)):
                start = f(start, *args)
            return start, {}
        solution = framework.fpi.fixed_point(
            f,
            start,
            args,
            solver=Anderson(),
            adjoint=adjoint,
            rtol=RTOL,
            max_steps=max_steps,
            batch_ndim=1,
            on_failure="ignore",
        )
        figures = {"codes": solution.result.codes, "steps": solution.stats.steps}
        return solution.value, figures


def _initial(seed: int) -> Arrays:
    """The cosine basis and 1 % of noise, all filters alike and the same at every pixel.

    The penalties begin narrow, nearly |k ∗ z|: wide ones leave noise where the picture is smooth,
    and learn too slowly to be narrow.
    """
    basis, random = waves(), np.random.default_rng(seed)
    zeros = np.zeros(FILTERS)
    found = {
        "filters": basis + 0.01 * random.standard_normal(basis.shape),
        "look": 0.05 * random.standard_normal((3, 3, CLUES, HIDDEN)),
        "look_bias": np.zeros(HIDDEN),
        "judge": np.zeros((1, 1, HIDDEN, 2 * FILTERS + 2)),
        "mix": np.zeros((1, 1, CLUES, 2 * FILTERS + 2)),
        "weight_bias": zeros - 1.5,
        "weight_level_bias": zeros - 1.25,
        "width_bias": zeros + 2.5,
        "width_level_bias": zeros - 1.25,
        "trust_bias": np.zeros(1),
        "trust_level_bias": np.full(1, -2.0),
        "pull_bias": np.full(1, 0.5),
        "pull_level_bias": np.full(1, -2.0),
        "step_bias": np.zeros(1),
    }
    return {name: np.ascontiguousarray(x, np.float32) for name, x in found.items()}


def _gd_pose(framework: Framework, p: Any, batch: Any, held: Held) -> Posed:
    """One step down E(z), the sum over pixels of

        λ/2 (z − y)² + μ/2 (z − m)² + Σ_i w_i/c_i log(1 + c_i (k_i ∗ z)²).

    y is the noisy picture, m the guess; the step is `_step`'s times a learned
    factor, which has a gradient only where the cell is unrolled.
    """
    goal, trust, weight, width = _terms(framework, p, batch)

    def energy(z: Any, goal: Any, filters: Any, trust: Any, share: Any, width: Any) -> Any:
        u = framework.conv(z, filters)
        prior = share * framework.log1p(width * u * u)
        return 0.5 * framework.sum(trust * (z - goal) ** 2) + framework.sum(prior)

    def f(z: Any, pace: Any, weight: Any, *args: Any) -> Any:
        _, filters, trust, _, width = args
        u = framework.conv(z, filters)
        bends = weight / (1.0 + width * u * u)
        step = held(_step(framework, trust, filters, bends))
        return framework.fpi.gradient_step(energy, pace * step)(z, *args)

    args = (goal, p["filters"], trust, weight / width, width)
    return f, goal, (framework.exp(p["step_bias"]), weight, *args)


def _terms(framework: Framework, p: Any, batch: Any) -> tuple[Any, Any, Any, Any]:
    """(λ y + μ m)/(λ + μ), λ + μ, w and c.

    Their logarithms are linear in log σ and in the clues, plus what two layers make of the clues.
    """
    level, y, means = batch["level"], batch["noisy"], batch["guess"]
    hidden = framework.relu(framework.conv(batch["clues"], p["look"]) + p["look_bias"])
    mixed = framework.conv(batch["clues"], p["mix"]) + framework.conv(hidden, p["judge"])

    def positive(name: str, begin: int, end: int) -> Any:
        slope = level * p[f"{name}_level_bias"]
        return framework.exp(p[f"{name}_bias"] + slope + mixed[..., begin:end])

    weight = positive("weight", 0, FILTERS)
    width = positive("width", FILTERS, 2 * FILTERS)
    trust = positive("trust", 2 * FILTERS, 2 * FILTERS + 1)
    pull = positive("pull", 2 * FILTERS + 1, 2 * FILTERS + 2)
    return (trust * y + pull * means) / (trust + pull), trust + pull, weight, width


def _step(framework: Framework, trust: Any, filters: Any, bends: Any) -> Any:
    """One over the curvature at each pixel of the parabolas that bound E from above.

    They touch E at z and bend by λ + μ and 2 w/(1 + c u²), the latter given by ``bends``; the
    diagonal wants the filters' squares turned, which are nearly symmetric. A fixed point, and the
    gradient of FPI_GD's, does not depend on how the step changes with z.
    """
    squares = framework.reshape(filters * filters, (SIDE, SIDE, FILTERS, 1))
    return 1.0 / (trust + 2.0 * framework.conv(bends, squares))


def _nn_initial(seed: int) -> Arrays:
    """As FPI_GD begins, with a second layer that is free to leave it."""
    found = _initial(seed)
    turned = found["filters"][::-1, ::-1].transpose(0, 1, 3, 2)
    return {**found, "second": np.ascontiguousarray(turned)}


def _nn_pose(framework: Framework, p: Any, batch: Any, held: Held) -> Posed:
    """z = z + s (λ (y − z) + μ (m − z) − W₂ ∗ (2 w u/(1 + c u²))), u = W₁ ∗ z: two layers.

    It is FPI_GD's step where W₂ is W₁ turned, but at the borders.
    """
    goal, trust, weight, width = _terms(framework, p, batch)

    def f(z: Any, pace: Any, goal: Any, layers: Any, trust: Any, weight: Any, width: Any) -> Any:
        u = framework.conv(z, layers[0])
        bends = weight / (1.0 + width * u * u)
        step = pace * held(_step(framework, trust, layers[0], bends))
        return z + step * (trust * (goal - z) - framework.conv(2.0 * bends * u, layers[1]))

    layers, pace = (p["filters"], p["second"]), framework.exp(p["step_bias"])
    return f, goal, (pace, goal, layers, trust, weight, width)


_GD, _NN = Cell(_initial, _gd_pose), Cell(_nn_initial, _nn_pose)

MODELS = {
    "fpi_gd": Model(_GD),
    "fpi_nn": Model(_NN),
    "unrolled_gd_5": Model(_GD, 5),
    "unrolled_gd_10": Model(_GD, 10),
    "unrolled_nn_5": Model(_NN, 5),
    "unrolled_nn_10": Model(_NN, 10),
}


def as_batch(
    clean: np.ndarray, noisy: np.ndarray, sigma: np.ndarray, known: Guess | None = None
) -> Arrays:
    """What a model takes, of pictures (n, height, width), their σ in units, and their guess."""
    known = known or remembered(noisy, sigma)
    return {
        "clean": np.ascontiguousarray(clean[..., None]),
        "noisy": np.ascontiguousarray(noisy[..., None]),
        "guess": np.ascontiguousarray(known.means[..., None]),
        "clues": clues(noisy, sigma, known),
        "level": np.log(sigma).astype(np.float32)[:, None, None, None],
    }
