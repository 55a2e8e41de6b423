"""Maps with known fixed points and dense reference gradients, in array-API style.

Every problem is small and has its exact z*: it is chosen, and the map is shifted so that it
is the fixed point. Gradients come from the dense float64 reference of ``fpicore verify``; two
problems state theirs, which `test_problems` holds against it.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np

from fpicore import Anderson, Implicit, NewtonKrylov, Picard
from fpicore._bind import SOLVER
from fpicore.verify.problem import Problem
from fpicore.verify.reference import Reference, solve_reference
from fpicore.verify.run import Functions

SOLVERS = {
    "picard": Picard(),
    "anderson": Anderson(),
    "broyden": SOLVER,
    "newton_krylov": NewtonKrylov(restart=5),
}
LEAN = Implicit(fallback=None)
"""For where the fallback is not the subject: half of the loops to trace and to compile."""
EXPANSIVE = {"picard": "the spectral radius is above 1"}


def orthogonal(random: np.random.Generator, n: int) -> np.ndarray:
    return np.linalg.qr(random.standard_normal((n, n)))[0]


def symmetric(random: np.random.Generator, spectrum: Any) -> np.ndarray:
    """A symmetric matrix of this spectrum in a random basis."""
    basis = orthogonal(random, len(spectrum))
    return basis * np.asarray(spectrum) @ basis.T


def matvec(xp: Any, matrix: Any, x: Any) -> Any:
    return xp.matmul(matrix, x[..., None])[..., 0]


def _planted(name: str, g: Callable[..., Any], value: Any, *args: Any, **options: Any) -> Problem:
    """z = g(z, *args) + shift, with the shift that makes ``value`` the fixed point."""
    shift = value - g(np, value, *args)

    def f(xp: Any, z: Any, shift: Any, *args: Any) -> Any:
        return g(xp, z, *args) + shift

    return Problem(name, f, z0=np.zeros_like(value), args=(shift, *args), exact=value, **options)


def affine() -> Problem:
    """M symmetric of spectrum −0.8 … 0.9."""
    random = np.random.default_rng(1)
    spectrum = np.linspace(-0.8, 0.9, 5)
    matrix, value, weights = symmetric(random, spectrum), *random.standard_normal((2, 5))
    g = np.linalg.solve(np.eye(5) - matrix, weights)

    def f(xp: Any, z: Any, m: Any, b: Any) -> Any:
        return xp.matmul(m, z) + b

    return Problem(
        "affine",
        f,
        z0=np.zeros(5),
        args=(matrix, value - matrix @ value),
        cotangent=weights,
        exact=value,
        exact_gradients=(np.outer(g, value), g),
    )


def tanh() -> Problem:
    """An equilibrium layer of norm 0.9."""
    random = np.random.default_rng(2)
    weight = 0.9 * orthogonal(random, 5)
    g = lambda xp, z, w: xp.tanh(xp.matmul(w, z))  # noqa: E731
    return _planted("tanh", g, 0.5 * random.standard_normal(5), weight)


def scalar() -> Problem:
    """f(z) = θ − 1.5 z: z* = 0.4 θ."""
    return Problem(
        "scalar",
        lambda xp, z, theta: theta - 1.5 * z,
        z0=np.array(0.0),
        args=(np.array(2.0),),
        cotangent=np.array(1.0),
        exact=np.array(0.8),
        exact_gradients=(np.array(0.4),),
        excluded=EXPANSIVE,
    )


def expansive() -> Problem:
    """Spectral radius above 1, not symmetric, not linear."""
    random = np.random.default_rng(3)
    matrix = symmetric(random, [-1.5, -0.4, 0.2, 0.6])
    matrix[0, 1] += 0.2
    g = lambda xp, z, a: xp.matmul(a, z) + 0.1 * xp.sin(z)  # noqa: E731
    return _planted("expansive", g, random.standard_normal(4), matrix, excluded=EXPANSIVE)


def rotation() -> Problem:
    """Complex eigenvalues of modulus 0.9: a Jacobian far from its transpose."""
    random = np.random.default_rng(4)
    turn = [[np.cos(1.2), -np.sin(1.2)], [np.sin(1.2), np.cos(1.2)]]
    matrix = 0.9 * np.kron(np.eye(2), turn)
    g = lambda xp, z, m: xp.matmul(m, z)  # noqa: E731
    return _planted("rotation", g, random.standard_normal(4), matrix)


def constant() -> Problem:
    """f ignores z."""
    theta = np.array([0.5, -2.0, 1.5])
    f = lambda xp, z, theta: theta * theta  # noqa: E731
    return Problem("constant", f, z0=np.zeros(3), args=(theta,), exact=theta**2)


def twice() -> Problem:
    """f uses z twice, and its argument twice."""
    random = np.random.default_rng(5)
    g = lambda xp, z, t: t * z * xp.cos(z) + 0.2 * xp.sin(t * z)  # noqa: E731
    return _planted("twice", g, random.standard_normal(4), np.array([0.3, 0.1, -0.4, 0.2]))


def nested() -> Problem:
    """Three leaves in a dict and a tuple, each of another shape, that drive each other."""

    def f(xp: Any, z: dict[str, Any], p: list[Any], bias: dict[str, Any]) -> dict[str, Any]:
        (grid, line), level = z["field"], z["level"]
        new_grid = xp.tanh(0.4 * grid + xp.matmul(p[0], line)[:, None] + bias["grid"])
        new_line = 0.5 * xp.matmul(p[1], xp.sum(grid, axis=0)) + bias["line"] * xp.cos(level)
        new_level = bias["level"] + 0.3 * xp.sin(level) + xp.mean(line) - xp.mean(grid)
        return {"field": (new_grid, new_line), "level": new_level}

    random = np.random.default_rng(6)
    zero = {"field": (np.zeros((2, 3)), np.zeros(4)), "level": np.array(0.0)}
    couplings = [0.3 * random.standard_normal((2, 4)), 0.3 * random.standard_normal((4, 3))]
    bias = {"grid": random.standard_normal((2, 3)), "line": random.standard_normal(4)}
    return Problem("nested", f, z0=zero, args=(couplings, {**bias, "level": np.array(0.2)}))


def batch() -> Problem:
    """Three systems of spectral radius 0.1, 0.7 and 0.95."""
    random = np.random.default_rng(7)
    spectra = [np.linspace(-radius / 2, radius, 4) for radius in (0.1, 0.7, 0.95)]
    matrices = np.stack([symmetric(random, spectrum) for spectrum in spectra])
    g = lambda xp, z, m: matvec(xp, m, z) + 0.02 * xp.cos(z)  # noqa: E731
    return _planted("batch", g, random.standard_normal((3, 4)), matrices, batch_ndim=1)


def energy() -> Problem:
    """A gradient step on ½ xᵀS x + Σ log cosh x."""
    random = np.random.default_rng(8)
    matrix = symmetric(random, np.linspace(0.2, 1.5, 4))
    g = lambda xp, x, s, step: x - step * (xp.matmul(s, x) + xp.tanh(x))  # noqa: E731
    return _planted("energy", g, random.standard_normal(4), matrix, np.array(0.5))


PROBLEMS: Mapping[str, Callable[[], Problem]] = {
    make.__name__: make
    for make in (
        affine, tanh, scalar, expansive, rotation, constant, twice, nested, batch, energy,
    )
}  # fmt: skip


@cache
def problem(name: str) -> Problem:
    return PROBLEMS[name]()


@cache
def reference(name: str) -> Reference:
    """The dense float64 answer to a problem of the table."""
    found = problem(name)
    f, loss = found.bind("numpy", np)
    functions = Functions(f, loss, "numpy", may_be_complex=True)
    return solve_reference(found, functions, found.args, found.data)


def converging(name: str) -> list[str]:
    """The solvers that can solve a problem."""
    return [solver for solver in SOLVERS if solver not in problem(name).excluded]


def cases(*names: str) -> list[tuple[str, str]]:
    """All (problem, solver) that converge, for the named problems or for all."""
    return [(name, solver) for name in names or PROBLEMS for solver in converging(name)]


def sine_derivative(theta: np.ndarray, order: int) -> np.ndarray:
    """d^order z*/dθ^order of z = θ sin z + 1, by a contour integral of the solution."""
    points = 32
    circle = 0.05 * np.exp(2j * np.pi * np.arange(points) / points)
    z = np.ones((points, theta.size), complex)
    shifted = theta + circle[:, None]
    for _ in range(60):
        z = z - (shifted * np.sin(z) + 1 - z) / (shifted * np.cos(z) - 1)
    coefficient = (z / circle[:, None] ** order).mean(axis=0).real
    return coefficient * [1, 1, 2, 6, 24][order]
