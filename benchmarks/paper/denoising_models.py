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
CHANNELS = 32
RTOL = 3e-4
MAX_STEPS = 100

Posed = tuple[Callable[..., Any], Any, tuple[Any, ...]]


@dataclass(frozen=True)
class Cell:
    """A map whose fixed point, or whose k-fold image of the start, tells the clean picture."""

    factor: int
    """Squares of factor × factor pixels are the channels of one."""
    rate: float
    """Learning rate."""
    initial: Callable[[int], Arrays]
    """Parameters, given a seed."""
    pose: Callable[[Framework, Any, Any], Posed]
    """(framework, parameters, batch) ↦ the map, its start and its further arguments."""
    read: Callable[[Framework, Any, Any, Any], Any]
    """(framework, parameters, batch, state) ↦ the clean picture."""


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
            return self.cell.read(framework, p, batch, start), {}
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
        return self.cell.read(framework, p, batch, solution.value), figures


def _gd_initial(seed: int) -> Arrays:
    """The cosine basis without its constant, all filters alike, turned about by 1 % of noise."""
    i = np.arange(SIDE)
    waves = np.cos(np.pi * np.outer(i, 2 * i + 1) / (2 * SIDE))
    waves /= np.linalg.norm(waves, axis=1, keepdims=True)
    basis = np.einsum("ai,bj->ijab", waves, waves).reshape(SIDE, SIDE, 1, -1)[..., 1:]
    noise = 0.01 * np.random.default_rng(seed).standard_normal(basis.shape)
    zeros = np.zeros(basis.shape[-1])
    found = {
        "filters": basis + noise,
        "weight_bias": zeros - 3.0,
        "weight_level_bias": zeros,
        "width_bias": zeros + 1.0,
        "width_level_bias": zeros,
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


def _gd_read(framework: Framework, p: Any, batch: Any, z: Any) -> Any:
    del framework, p, batch
    return z


def _nn_initial(seed: int) -> Arrays:
    random = np.random.default_rng(seed)

    def kernel(inputs: int, outputs: int, gain: float) -> np.ndarray:
        scale = gain * (9 * inputs) ** -0.5
        return (scale * random.standard_normal((3, 3, inputs, outputs))).astype(np.float32)

    found = {
        "inject": kernel(4, CHANNELS, 1.0),
        "first": kernel(CHANNELS, CHANNELS, 1.0),
        "second": kernel(CHANNELS, CHANNELS, 0.5),
        "out": kernel(CHANNELS, 4, 0.2),
    }
    for name in ("first_bias", "first_level_bias", "second_bias", "second_level_bias"):
        found[name] = np.zeros(CHANNELS, np.float32)
    return found


def _nn_pose(framework: Framework, p: Any, batch: Any) -> Posed:
    """z = W₂ ∗ relu(W₁ ∗ relu(z)) + U ∗ y/σ, at half the resolution; biases linear in log σ."""
    level = batch["level"]
    known = framework.conv(batch["noisy"] / framework.exp(level), p["inject"]) + p["second_bias"]
    known = known + level * p["second_level_bias"]
    bias = p["first_bias"] + level * p["first_level_bias"]

    def f(z: Any, known: Any, bias: Any, first: Any, second: Any) -> Any:
        hidden = framework.relu(framework.conv(framework.relu(z), first) + bias)
        return known + framework.conv(hidden, second)

    return f, 0.0 * known, (known, bias, p["first"], p["second"])


def _nn_read(framework: Framework, p: Any, batch: Any, z: Any) -> Any:
    """What is left of y without σ times the noise."""
    noise = framework.conv(framework.relu(z), p["out"])
    return batch["noisy"] - framework.exp(batch["level"]) * noise


_GD = Cell(1, 1e-2, _gd_initial, _gd_pose, _gd_read)
_NN = Cell(2, 4e-3, _nn_initial, _nn_pose, _nn_read)

MODELS = {
    "fpi_gd": Model(_GD),
    "fpi_nn": Model(_NN),
    "unrolled_gd_5": Model(_GD, 5),
    "unrolled_gd_10": Model(_GD, 10),
    "unrolled_nn_5": Model(_NN, 5),
    "unrolled_nn_10": Model(_NN, 10),
}


def as_batch(model: Model, clean: np.ndarray, noisy: np.ndarray, sigma: np.ndarray) -> Arrays:
    """What a model takes, of pictures (n, height, width) and their σ in units."""
    return {
        "clean": packed(clean, model.cell.factor),
        "noisy": packed(noisy, model.cell.factor),
        "level": np.log(sigma).astype(np.float32)[:, None, None, None],
    }


def packed(pixels: np.ndarray, factor: int) -> np.ndarray:
    """(n, height, width) as (n, height/factor, width/factor, factor²)."""
    n, height, width = pixels.shape
    parts = pixels.reshape(n, height // factor, factor, width // factor, factor)
    shape = (n, height // factor, width // factor, factor**2)
    return np.ascontiguousarray(parts.transpose(0, 1, 3, 2, 4).reshape(shape))


def unpacked(channels: np.ndarray, factor: int) -> np.ndarray:
    """The inverse of ``packed``."""
    n, height, width, _ = channels.shape
    parts = channels.reshape(n, height, width, factor, factor).transpose(0, 1, 3, 2, 4)
    return parts.reshape(n, height * factor, width * factor)
