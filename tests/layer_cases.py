"""The layers with fixed weights, and what they shall give: a dense float64 reference in NumPy.

Matrices are (features in, features out), as in Keras and Flax; PyTorch's are their transposes.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from fpicore.verify.problem import Problem
from fpicore.verify.reference import Reference, solve_reference
from fpicore.verify.run import Functions

from .problems import LEAN

BATCH, INPUTS, FEATURES, HIDDEN = 3, 4, 3, 5
RADIUS, STEP = 0.8, 0.4
OPTIONS: dict[str, Any] = {"rtol": 1e-12, "max_steps": 300, "adjoint": LEAN}
CASES = ("FixedPoint", "FPINN", "FPIGD", "Equilibrium")


class Case(NamedTuple):
    """z = f(z, x, *parameters), and the loss Σ cotangent·z."""

    x: np.ndarray
    parameters: dict[str, np.ndarray]
    cotangent: np.ndarray
    reference: Reference

    def check(self, value: Any, slope: Any, gradients: dict[str, Any]) -> None:
        """z*, the gradient of x and those of the parameters, to 1e-8."""
        np.testing.assert_allclose(value, self.reference.value, rtol=1e-9)
        expected = dict(zip(("x", *self.parameters), self.reference.gradients, strict=True))
        assert set(gradients) == set(self.parameters)
        for name, found in {"x": slope, **gradients}.items():
            scale = np.abs(expected[name]).max()
            assert scale > 1e-3, name
            np.testing.assert_allclose(found, expected[name], rtol=1e-8, atol=1e-8 * scale)


def cell(xp: Any, z: Any, x: Any, kernel: Any, inject: Any, bias: Any) -> Any:
    return xp.tanh(xp.matmul(z, kernel) + xp.matmul(x, inject) + bias)


def network(xp: Any, z: Any, x: Any, w1: Any, b1: Any, w2: Any, b2: Any) -> Any:
    hidden = xp.tanh(xp.matmul(xp.concat([x, z], axis=-1), w1) + b1)
    return xp.matmul(hidden, w2) + b2


def descent(xp: Any, z: Any, x: Any, w: Any, b: Any) -> Any:
    """Of ½‖z‖² + Σ log cosh([x, z] w + b)."""
    slope = xp.tanh(xp.matmul(xp.concat([x, z], axis=-1), w) + b)
    return z - STEP * (z + xp.matmul(slope, xp.matrix_transpose(w[INPUTS:])))


def singular(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The vectors of the largest singular value: on the side of the outputs, and of the inputs."""
    u, _, vt = np.linalg.svd(kernel.T)
    return u[:, 0], vt[0]


def block(xp: Any, z: Any, x: Any, kernel: Any, inject: Any, bias: Any) -> Any:
    u, v = singular(np.real(kernel))
    top = xp.sum(v[:, None] * kernel * u[None, :])
    return cell(xp, z, x, kernel * (RADIUS / top), inject, bias)


_MAPS: dict[str, Callable[..., Any]] = dict(
    zip(CASES, (cell, network, descent, block), strict=True)
)


def _shapes(name: str) -> dict[str, tuple[int, ...]]:
    both = INPUTS + FEATURES
    if name == "FPINN":
        return {"w1": (both, HIDDEN), "b1": (HIDDEN,), "w2": (HIDDEN, FEATURES), "b2": (FEATURES,)}
    if name == "FPIGD":
        return {"w": (both, HIDDEN), "b": (HIDDEN,)}
    return {"kernel": (FEATURES, FEATURES), "inject": (INPUTS, FEATURES), "bias": (FEATURES,)}


def weights(name: str, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    random = np.random.default_rng([seed, CASES.index(name)])
    shapes = _shapes(name)
    scale = 0.35
    return random.standard_normal((BATCH, INPUTS)), {
        key: scale * random.standard_normal(shape) for key, shape in shapes.items()
    }


@cache
def case(name: str, seed: int = 0) -> Case:
    x, parameters = weights(name, seed)
    problem = Problem(
        name, _MAPS[name], z0=np.zeros((BATCH, FEATURES)), args=(x, *parameters.values()),
        batch_ndim=1,
    )  # fmt: skip
    f, loss = problem.bind("numpy", np)
    functions = Functions(f, loss, "numpy", may_be_complex=True)
    reference = solve_reference(problem, functions, problem.args, problem.data)
    return Case(x, parameters, np.asarray(problem.cotangent), reference)
