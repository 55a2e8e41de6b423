"""The real problem: an equilibrium classifier trained on scikit-learn's handwritten digits."""

from typing import Any

import numpy as np

from .arrays import Array
from .extras import require
from .problem import Problem
from .training import Training

UNITS, BATCH, STEPS, CLASSES = 16, 32, 5, 10


def digits_training() -> Training:
    """Five steps of gradient descent with momentum on batches of 32 images.

    z = tanh(z W + x U + b) with one system per image, logits = z V + c, softmax cross-entropy.

    Raises:
        InputError: scikit-learn is not installed.
    """
    images, labels = _load(BATCH * STEPS)
    batches = [
        (images[start : start + BATCH], labels[start : start + BATCH])
        for start in range(0, BATCH * STEPS, BATCH)
    ]
    problem = Problem(
        "digits",
        cell,
        z0=np.zeros((BATCH, UNITS)),
        args=(_parameters(images.shape[1]),),
        data=batches[0],
        loss=cross_entropy,
        batch_ndim=1,
    )
    return Training(problem, tuple(batches), learning_rate=0.2, momentum=0.9)


def cell(xp: Any, z: Any, p: dict[str, Any], images: Any, labels: Any) -> Any:
    """The map of the equilibrium layer."""
    del labels
    hidden = p["hidden"]
    return xp.tanh(xp.matmul(z, hidden["W"]) + xp.matmul(images, hidden["U"]) + hidden["b"])


def cross_entropy(xp: Any, z: Any, p: dict[str, Any], images: Any, labels: Any) -> Any:
    """Mean cross-entropy of softmax(z V + c) against one-hot labels."""
    del images
    logits = xp.matmul(z, p["output"]["V"]) + p["output"]["c"]
    logits = logits - xp.max(logits, axis=-1, keepdims=True)
    total = xp.log(xp.sum(xp.exp(logits), axis=-1))
    return xp.mean(total - xp.sum(labels * logits, axis=-1))


def _load(count: int) -> tuple[Array, Array]:
    data: Any = require("sklearn.datasets", "the digits problem", "scikit-learn").load_digits()
    order = np.random.default_rng(7).permutation(len(data.images))[:count]
    images = data.images.reshape(len(data.images), -1)[order] / 16.0
    return images - 0.5, np.eye(CLASSES)[data.target[order]]


def _parameters(inputs: int) -> dict[str, dict[str, Array]]:
    random = np.random.default_rng(8)
    recurrent = random.standard_normal((UNITS, UNITS))
    return {
        "hidden": {
            "W": recurrent * (0.9 / np.linalg.norm(recurrent, 2)),
            "U": random.standard_normal((inputs, UNITS)) / np.sqrt(inputs),
            "b": np.zeros(UNITS),
        },
        "output": {
            "V": random.standard_normal((UNITS, CLASSES)) / np.sqrt(UNITS),
            "c": np.zeros(CLASSES),
        },
    }
