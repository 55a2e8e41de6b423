"""Three models of tags given words, of equal size: an MLP, FPI_NN and FPI_GD.

Jeon, Lee, Choi, arXiv 2002.02868. Each gives logits z; a tag is predicted where z > 0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .frameworks import Arrays, Framework

HIDDEN = 600
UNITS = 512
COUPLING = 0.1
"""The weights from the tags back into the map begin this much smaller; 1 has the lower F1 on the
held-out rows, for both models."""
RTOL = 1e-4
MAX_STEPS = 200

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Model:
    """Parameters and logits; what varies between the three."""

    shapes: Callable[[int, int], dict[str, Shape]]
    """Of the parameters, for so many words and tags."""
    logits: Callable[[Framework, Any, Any, Any], tuple[Any, dict[str, Any]]]
    """(framework, parameters, batch, adjoint) ↦ logits, and what the solve told. A batch holds
    "words" and "start", zeros like the logits."""


def initial(model: Model, words: int, tags: int, seed: int) -> Arrays:
    """Weights uniform within ±1/√(inputs), as in PyTorch's Linear; biases 0."""
    random, found = np.random.default_rng(seed), {}
    for name, shape in model.shapes(words, tags).items():
        bound = 0.0 if name.endswith("bias") else shape[0] ** -0.5
        if name == "tags":
            bound *= COUPLING
        found[name] = random.uniform(-bound, bound, shape).astype(np.float32)
    return found


def _mlp_shapes(words: int, tags: int) -> dict[str, Shape]:
    return {
        "words": (words, HIDDEN),
        "hidden_bias": (HIDDEN,),
        "out": (HIDDEN, tags),
        "out_bias": (tags,),
    }


def _mlp(framework: Framework, p: Any, batch: Any, adjoint: Any) -> tuple[Any, dict[str, Any]]:
    """z = W₂ relu(W₁ y)."""
    del adjoint
    hidden = framework.relu(batch["words"] @ p["words"] + p["hidden_bias"])
    return hidden @ p["out"] + p["out_bias"], {}


def _fpi_nn_shapes(words: int, tags: int) -> dict[str, Shape]:
    return {**_mlp_shapes(words, tags), "tags": (tags, HIDDEN)}


def _fpi_nn(framework: Framework, p: Any, batch: Any, adjoint: Any) -> tuple[Any, dict[str, Any]]:
    """z = W₂ relu(W₁ [y, σ(z)]): the published network, in logits."""
    known = batch["words"] @ p["words"] + p["hidden_bias"]

    def f(z: Any, known: Any, tags: Any, out: Any, bias: Any) -> Any:
        return framework.relu(known + framework.sigmoid(z) @ tags) @ out + bias

    return _solve(
        framework, f, batch["start"], (known, p["tags"], p["out"], p["out_bias"]), adjoint
    )


def _fpi_gd_shapes(words: int, tags: int) -> dict[str, Shape]:
    return {
        "words": (words, UNITS),
        "hidden_bias": (UNITS,),
        "tags": (tags, UNITS),
        "out_bias": (tags,),
    }


def _fpi_gd(framework: Framework, p: Any, batch: Any, adjoint: Any) -> tuple[Any, dict[str, Any]]:
    """z = −∂E/∂p at p = σ(z), with E = mean over units of relu(W [y, p] + b)²/2 − bias·p.

    That is the minimum of E plus the entropy Σ p log p + (1 − p) log(1 − p), and the map is a
    step of unit length down its gradient with respect to p, taken in z (mirror descent). The
    published energy lacks the entropy; its minimum lies at infinite logits, where no iteration
    arrives.
    """
    known = batch["words"] @ p["words"] + p["hidden_bias"]

    def energy(tags: Any, known: Any, weight: Any, bias: Any) -> Any:
        active = framework.relu(known + tags @ weight)
        return 0.5 * framework.sum(active * active) - framework.sum(tags * bias)

    step = framework.fpi.gradient_step(energy, 1.0)

    def f(z: Any, known: Any, weight: Any, bias: Any) -> Any:
        tags = framework.sigmoid(z)
        return step(tags, known, weight, bias) - tags

    return _solve(framework, f, batch["start"], (known, p["tags"], p["out_bias"]), adjoint)


def _solve(
    framework: Framework, f: Callable[..., Any], start: Any, args: tuple[Any, ...], adjoint: Any
) -> tuple[Any, dict[str, Any]]:
    """One system a document."""
    solution = framework.fpi.fixed_point(
        f,
        start,
        args,
        adjoint=adjoint,
        rtol=RTOL,
        max_steps=MAX_STEPS,
        batch_ndim=1,
        on_failure="ignore",
    )
    return solution.value, {"codes": solution.result.codes, "steps": solution.stats.steps}


MODELS = {
    "mlp": Model(_mlp_shapes, _mlp),
    "fpi_nn": Model(_fpi_nn_shapes, _fpi_nn),
    "fpi_gd": Model(_fpi_gd_shapes, _fpi_gd),
}
