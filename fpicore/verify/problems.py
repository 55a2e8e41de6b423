"""The built-in problems, in array-API style: each f(xp, z, *args) runs in every framework."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .arrays import Array
from .problem import Problem
from .training import Subject

EXPANSIVE = "the spectral radius of the Jacobian is above 1"


def affine() -> Problem:
    """f(z) = M z + b with symmetric M of spectrum −0.9 … 0.95; z* is chosen, b follows from it.

    g = (I − M)⁻¹ v from the eigenvectors, ∂L/∂M = g z*ᵀ, ∂L/∂b = g.
    """
    random = np.random.default_rng(1)
    n, spectrum = 60, np.linspace(-0.9, 0.95, 60)
    basis = _orthogonal(random, n)
    matrix = basis * spectrum @ basis.T
    value, weights = random.standard_normal(n), random.standard_normal(n)
    adjoint = basis @ ((basis.T @ weights) / (1.0 - spectrum))

    def f(xp: Any, z: Any, m: Any, b: Any) -> Any:
        return xp.matmul(m, z) + b

    return Problem(
        "affine",
        f,
        z0=np.zeros(n),
        args=(matrix, value - matrix @ value),
        cotangent=weights,
        exact=value,
        exact_gradients=(np.outer(adjoint, value), adjoint),
    )


def tanh_layer() -> Problem:
    """f(z) = tanh(W z + U x + b), an equilibrium layer; ‖W‖₂ = 0.95."""
    random = np.random.default_rng(2)
    n, inputs = 40, 12
    weight = random.standard_normal((n, n))
    weight *= 0.95 / np.linalg.norm(weight, 2)

    def f(xp: Any, z: Any, p: dict[str, Any], x: Any) -> Any:
        return xp.tanh(xp.matmul(p["W"], z) + xp.matmul(p["U"], x) + p["b"])

    parameters = {
        "W": weight,
        "U": 0.3 * random.standard_normal((n, inputs)),
        "b": 0.1 * random.standard_normal(n),
    }
    return Problem("tanh", f, z0=np.zeros(n), args=(parameters, random.standard_normal(inputs)))


def scalar_expansive() -> Problem:
    """f(z) = θ − 1.5 z, a single number: z* = 0.4 θ, and dz*/dθ = 0.4."""

    def f(xp: Any, z: Any, theta: Any) -> Any:
        del xp
        return theta - 1.5 * z

    return Problem(
        "expansive-1",
        f,
        z0=np.array(0.0),
        args=(np.array(2.0),),
        cotangent=np.array(1.0),
        exact=np.array(0.8),
        exact_gradients=(np.array(0.4),),
        excluded={"picard": EXPANSIVE},
    )


def matrix_expansive() -> Problem:
    """f(z) = A z + ⅒ sin z + b, A with eigenvalues −1.5 … 0.8 and a skew part: not normal."""
    random = np.random.default_rng(3)
    n = 20
    basis, skew = _orthogonal(random, n), random.standard_normal((n, n))
    matrix = basis * np.linspace(-1.5, 0.8, n) @ basis.T
    matrix += 0.1 * (skew - skew.T) / np.linalg.norm(skew - skew.T, 2)

    def f(xp: Any, z: Any, a: Any, b: Any) -> Any:
        return xp.matmul(a, z) + 0.1 * xp.sin(z) + b

    return Problem(
        "expansive-20",
        f,
        z0=np.zeros(n),
        args=(matrix, random.standard_normal(n)),
        excluded={"picard": EXPANSIVE},
    )


def nested() -> Problem:
    """A state {"field": (3×5, 7), "level": scalar} whose three leaves drive each other."""
    random = np.random.default_rng(4)

    def f(xp: Any, z: dict[str, Any], p: list[Any], bias: dict[str, Any]) -> dict[str, Any]:
        (grid, line), level = z["field"], z["level"]
        across, along = p
        new_grid = xp.tanh(0.4 * grid + 0.5 * xp.matmul(across, line)[:, None] + bias["grid"])
        new_line = 0.5 * xp.matmul(along, xp.sum(grid, axis=0)) + bias["line"] * xp.cos(level)
        new_level = 0.3 * xp.sin(level) + xp.mean(line) - xp.mean(grid)
        return {"field": (new_grid, new_line), "level": new_level}

    zero = {"field": (np.zeros((3, 5)), np.zeros(7)), "level": np.array(0.0)}
    across, along = random.standard_normal((3, 7)), random.standard_normal((7, 5))
    bias = {"grid": random.standard_normal((3, 5)), "line": random.standard_normal(7)}
    coupling = [across / np.linalg.norm(across, 2), along / np.linalg.norm(along, 2)]
    return Problem("nested", f, z0=zero, args=(coupling, bias))


def batch() -> Problem:
    """Six systems of very different difficulty: f(z) = M z + 0.005 cos z + β b in each.

    M is symmetric, its spectrum reaching from −c/2 to c with c = 0.1, 0.5, 0.8, 0.9, 0.95, 0.99.
    """
    random = np.random.default_rng(5)
    n, radii = 12, (0.1, 0.5, 0.8, 0.9, 0.95, 0.99)
    bases = [_orthogonal(random, n) for _ in radii]
    spectra = [np.linspace(-radius / 2, radius, n) for radius in radii]
    matrices = np.stack([q * s @ q.T for q, s in zip(bases, spectra, strict=True)])

    def f(xp: Any, z: Any, m: Any, b: Any, beta: Any) -> Any:
        return xp.matmul(m, z[..., None])[..., 0] + 0.005 * xp.cos(z) + beta * b

    return Problem(
        "batch",
        f,
        z0=np.zeros((len(radii), n)),
        args=(matrices, random.standard_normal((len(radii), n)), np.array(0.5)),
        batch_ndim=1,
    )


def energy() -> Problem:
    """f(x) = x − γ ∂E/∂x for E(x) = ½ xᵀS x − bᵀx + Σ log(1 + exp(C x)), S = ½ (A + Aᵀ).

    S has eigenvalues 0.2 … 2, so that E is smooth and strictly convex; z* is its minimiser.
    """
    random = np.random.default_rng(6)
    n, terms = 30, 10
    basis, mixing = _orthogonal(random, n), random.standard_normal((terms, n))
    matrix = basis * np.linspace(0.2, 2.0, n) @ basis.T
    mixing /= np.linalg.norm(mixing, 2)

    def f(xp: Any, x: Any, a: Any, b: Any, c: Any, gamma: Any) -> Any:
        quadratic = 0.5 * (xp.matmul(a, x) + xp.matmul(xp.matrix_transpose(a), x))
        logistic = 1.0 / (1.0 + xp.exp(-xp.matmul(c, x)))
        return x - gamma * (quadratic - b + xp.matmul(xp.matrix_transpose(c), logistic))

    bias = random.standard_normal(n)
    return Problem("energy", f, z0=np.zeros(n), args=(matrix, bias, mixing, np.array(0.6)))


def digits() -> Subject:
    """An equilibrium classifier, trained for five steps on handwritten digits."""
    from .digits import digits_training  # needs scikit-learn, which no other problem does

    return digits_training()


BUILT_IN: Mapping[str, Callable[[], Subject]] = {
    "affine": affine,
    "tanh": tanh_layer,
    "expansive-1": scalar_expansive,
    "expansive-20": matrix_expansive,
    "nested": nested,
    "batch": batch,
    "energy": energy,
    "digits": digits,
}
"""The problems by name, built on demand."""


def _orthogonal(random: np.random.Generator, n: int) -> Array:
    return np.linalg.qr(random.standard_normal((n, n)))[0]
