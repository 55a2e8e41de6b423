"""Models of a clean picture given a noisy one: FPI_GD, FPI_NN, and the same two cells unrolled.

Jeon, Lee, Choi, arXiv 2002.02868. Pictures are (pictures, height, width, channels) in units, see
pictures.py; a batch holds "noisy" and "level", log(σ/25), one number a picture.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .frameworks import Arrays, Framework

SIDE = 5
"""Of the filters of FPI_GD, 24 in number."""
WIDE, CHANNELS = 7, 24
"""Of the filters of FPI_NN, and their number: a step costs about as much as one of FPI_GD."""
RTOL = 3e-4
MAX_STEPS, MOST_STEPS = 60, 200
"""In training, where one patch in thousands is not worth more, and in a test."""

Posed = tuple[Callable[..., Any], Any, tuple[Any, ...]]


@dataclass(frozen=True)
class Cell:
    """A map whose fixed point, or whose k-fold image of the start, is the clean picture."""

    initial: Callable[[int], Arrays]
    """Parameters, given a seed."""
    pose: Callable[[Framework, Any, Any], Posed]
    """(framework, parameters, batch) ↦ the map, its start and its further arguments."""


@dataclass(frozen=True)
class Model:
    """A cell at its fixed point, or unrolled over so many steps."""

    cell: Cell
    steps: int | None = None

    def restore(
        self, framework: Framework, p: Any, batch: Any, adjoint: Any, max_steps: int = MAX_STEPS
    ) -> tuple[Any, dict[str, Any]]:
        """The clean picture, and what the solve told; one system a picture."""
        f, start, args = self.cell.pose(framework, p, batch)
        if self.steps is not None:
            for _ in range(min(self.steps, max_steps)):
                start = f(start, *args)
            return start, {}
        solution = framework.fpi.fixed_point(
            f,
            start,
            args,
            adjoint=adjoint,
            rtol=RTOL,
            max_steps=max_steps,
            batch_ndim=1,
            on_failure="ignore",
        )
        figures = {"codes": solution.result.codes, "steps": solution.stats.steps}
        return solution.value, figures


def _waves(side: int, seed: int) -> np.ndarray:
    """The cosine basis of a square but its constant, low frequencies first, and 1 % of noise."""
    i = np.arange(side)
    waves = np.cos(np.pi * np.outer(i, 2 * i + 1) / (2 * side))
    waves /= np.linalg.norm(waves, axis=1, keepdims=True)
    basis = np.einsum("ai,bj->ijab", waves, waves).reshape(side, side, 1, -1)
    frequencies = np.add.outer(i**2, i**2).ravel()
    basis = basis[..., np.argsort(frequencies, kind="stable")[1:]]
    return basis + 0.01 * np.random.default_rng(seed).standard_normal(basis.shape)


def _gd_initial(seed: int) -> Arrays:
    """The cosine basis, all filters alike; the rest fits training patches at each σ."""
    basis = _waves(SIDE, seed)
    zeros = np.zeros(basis.shape[-1])
    found = {
        "filters": basis,
        "weight_bias": zeros - 1.65,
        "weight_level_bias": zeros - 1.25,
        "width_bias": zeros + 1.35,
        "width_level_bias": zeros - 1.25,
        "trust_bias": np.array([0.0, -2.0]),
        "step_bias": np.zeros(1),
    }
    return {name: x.astype(np.float32) for name, x in found.items()}


def _gd_pose(framework: Framework, p: Any, batch: Any) -> Posed:
    """One step down E(z) = λ/2 ‖z − y‖² + Σ_i w_i/c_i Σ_pixels log(1 + c_i (k_i ∗ z)²).

    Weights, widths and λ are exponentials of linear functions of log σ. The step is that of the
    curvature λ + 2 Σ_i w_i ‖k_i‖² times a learned factor, which has a gradient only where the
    cell is unrolled: the fixed point does not depend on it.
    """
    level, filters = batch["level"], p["filters"]
    weight = framework.exp(p["weight_bias"] + level * p["weight_level_bias"])
    width = framework.exp(p["width_bias"] + level * p["width_level_bias"])
    trust = framework.exp(p["trust_bias"][0] + level * p["trust_bias"][1])
    squares = framework.sum(framework.sum(filters * filters, axis=0), axis=0)
    curvature = trust + 2.0 * framework.sum(weight * squares, axis=3)[..., None]
    step = framework.exp(p["step_bias"]) / curvature

    def energy(z: Any, y: Any, filters: Any, trust: Any, weight: Any, width: Any) -> Any:
        u = framework.conv(z, filters)
        prior = weight / width * framework.log1p(width * u * u)
        return 0.5 * framework.sum(trust * (z - y) ** 2) + framework.sum(prior)

    move = framework.fpi.gradient_step(energy, 1.0)

    def f(z: Any, step: Any, *args: Any) -> Any:
        return z + step * (move(z, *args) - z)

    return f, batch["noisy"], (step, batch["noisy"], filters, trust, weight, width)


def _nn_initial(seed: int) -> Arrays:
    """As FPI_GD begins, with larger filters, and with a second layer that is free to leave it."""
    first = _waves(WIDE, seed)[..., :CHANNELS]
    found = {
        "first": first,
        "second": first[::-1, ::-1].transpose(0, 1, 3, 2),
        "width_bias": np.full(CHANNELS, 0.7),
        "width_level_bias": np.full(CHANNELS, -0.6),
        "gain_bias": np.full(CHANNELS, -4.5),
        "gain_level_bias": np.full(CHANNELS, 0.7),
        "trust_bias": np.array([-2.3, -0.7]),
    }
    return {name: np.ascontiguousarray(x, np.float32) for name, x in found.items()}


def _nn_pose(framework: Framework, p: Any, batch: Any) -> Posed:
    """z = z + t (y − z) − W₂ ∗ (b ψ(a W₁ ∗ z)), ψ(u) = u/(1 + u²): a network of two layers.

    a, b and t are exponentials of linear functions of log σ.
    """
    level = batch["level"]
    width = framework.exp(p["width_bias"] + level * p["width_level_bias"])
    gain = framework.exp(p["gain_bias"] + level * p["gain_level_bias"])
    trust = framework.exp(p["trust_bias"][0] + level * p["trust_bias"][1])

    def f(z: Any, y: Any, first: Any, second: Any, width: Any, gain: Any, trust: Any) -> Any:
        u = width * framework.conv(z, first)
        return z + trust * (y - z) - framework.conv(gain * u / (1.0 + u * u), second)

    y = batch["noisy"]
    return f, y, (y, p["first"], p["second"], width, gain, trust)


_GD, _NN = Cell(_gd_initial, _gd_pose), Cell(_nn_initial, _nn_pose)

MODELS = {
    "fpi_gd": Model(_GD),
    "fpi_nn": Model(_NN),
    "unrolled_gd_5": Model(_GD, 5),
    "unrolled_gd_10": Model(_GD, 10),
    "unrolled_nn_5": Model(_NN, 5),
    "unrolled_nn_10": Model(_NN, 10),
}


def as_batch(clean: np.ndarray, noisy: np.ndarray, sigma: np.ndarray) -> Arrays:
    """What a model takes, of pictures (n, height, width) and their σ in units."""
    return {
        "clean": np.ascontiguousarray(clean[..., None]),
        "noisy": np.ascontiguousarray(noisy[..., None]),
        "level": np.log(sigma).astype(np.float32)[:, None, None, None],
    }
