"""Handwritten digits, and a convolutional equilibrium network that tells them apart."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .frameworks import Arrays, Framework

CHANNELS = 24
CONTRACTION = 0.9
RTOL = 1e-3
MAX_STEPS = 50
TEST, HELD_OUT = 360, 180


class Rows(NamedTuple):
    """Pictures (n, 8, 8), from 0 to 1, and which digits they show."""

    pictures: np.ndarray
    digits: np.ndarray


def load() -> tuple[Rows, Rows, Rows]:
    """Training, held-out and test rows of scikit-learn's digits; the same at every call."""
    from sklearn.datasets import load_digits

    held: Any = load_digits()
    pictures, digits = (held.images / 16.0).astype(np.float32), held.target
    order = np.random.default_rng(100).permutation(len(digits))
    parts = np.split(order, [TEST, TEST + HELD_OUT])
    test, held_out, train = (Rows(pictures[part], digits[part]) for part in parts)
    return train, held_out, test


def as_batch(rows: Rows) -> Arrays:
    """What the model takes."""
    return {
        "picture": np.ascontiguousarray(rows.pictures[..., None]),
        "digit": np.eye(10, dtype=np.float32)[rows.digits],
        "start": np.zeros((*rows.pictures.shape, CHANNELS), np.float32),
    }


def batches(rows: Rows, size: int, seed: int, epoch: int) -> Iterator[Arrays]:
    """One epoch in random order, half of it moved by up to a pixel; a last short batch is left."""
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(rows.digits))
    for begin in range(0, len(order) - size + 1, size):
        chosen = order[begin : begin + size]
        around = np.pad(rows.pictures[chosen], ((0, 0), (1, 1), (1, 1)))
        corners = random.integers(3, size=(size, 2))
        corners[random.random(size) < 0.5] = 1
        moved = [
            p[top : top + 8, left : left + 8]
            for p, (top, left) in zip(around, corners, strict=True)
        ]
        yield as_batch(Rows(np.stack(moved), rows.digits[chosen]))


def initial(seed: int) -> Arrays:
    """Normal weights of variance 1/inputs; biases 0."""
    random = np.random.default_rng(seed)
    shapes = {
        "picture": (3, 3, 1, CHANNELS),
        "state": (3, 3, CHANNELS, CHANNELS),
        "out": (64 * CHANNELS, 10),
    }
    found = {
        name: random.standard_normal(shape) * np.prod(shape[:-1]) ** -0.5
        for name, shape in shapes.items()
    }
    found |= {"state_bias": np.zeros(CHANNELS), "out_bias": np.zeros(10)}
    return {name: x.astype(np.float32) for name, x in found.items()}


def logits(framework: Framework, p: Any, batch: Any, adjoint: Any) -> tuple[Any, dict[str, Any]]:
    """Linear in the equilibrium z = relu(W ∗ z + U ∗ x + b), one system a picture.

    The weights of W into a channel have absolute values that sum to 0.9, so that the map contracts
    by that factor in the maximum norm, whatever the parameters are.
    """
    known = framework.conv(batch["picture"], p["picture"]) + p["state_bias"]
    size = framework.relu(p["state"]) + framework.relu(-p["state"])
    for _ in range(3):
        size = framework.sum(size, axis=0)
    kernel = CONTRACTION * p["state"] / size

    def f(z: Any, known: Any, kernel: Any) -> Any:
        return framework.relu(framework.conv(z, kernel) + known)

    solution = framework.fpi.fixed_point(
        f,
        batch["start"],
        (known, kernel),
        adjoint=adjoint,
        rtol=RTOL,
        max_steps=MAX_STEPS,
        batch_ndim=1,
        on_failure="ignore",
    )
    flat = framework.reshape(solution.value, (-1, 64 * CHANNELS))
    figures = {
        "codes": solution.result.codes,
        "steps": solution.stats.steps,
        "evaluations": solution.stats.evaluations,
    }
    return flat @ p["out"] + p["out_bias"], figures
