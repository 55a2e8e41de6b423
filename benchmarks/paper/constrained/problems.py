"""Programs made so that their solution, and the constraints that hold with equality, are known.

A solution x and multipliers are drawn, and the linear part c is what makes them satisfy
Qx + c + Rᵀm = 0 with the active rows R; every other row has room to spare.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..frameworks import Arrays
from . import exact, layers

SIZE = 20


class Problem(NamedTuple):
    """A layer, what it is given, and what it should give."""

    layer: Callable[..., Any]
    parameters: Arrays
    batch: Arrays
    """Constants, the start, and "slope": the loss is ⟨slope, x⟩."""
    value: np.ndarray
    gradients: Arrays
    """Of the loss."""


def box(seed: int) -> Problem:
    """A third of the entries at the lower bound, a third at the upper; projected gradient."""
    random, quadratic = _begin(seed)
    lower, upper = -random.uniform(0.5, 1.5, SIZE), random.uniform(0.5, 1.5, SIZE)
    kind = np.arange(SIZE) % 3
    inside = random.uniform(-0.4, 0.4, SIZE)
    x = np.where(kind == 0, lower, np.where(kind == 1, upper, inside))
    active = kind < 2
    m = np.where(kind == 0, -1.0, 1.0)[active] * random.uniform(0.1, 1.0, active.sum())
    slope, found = _solve(random, quadratic, np.eye(SIZE)[active], x, m)
    offsets = np.zeros(SIZE)
    offsets[active] = found.offsets
    linear = -quadratic @ x
    linear[active] -= m
    return Problem(
        layers.projected_gradient,
        {"quadratic": quadratic, "linear": linear[None], "lower": lower, "upper": upper},
        {**_batch(slope), "step": np.array(1.0 / np.linalg.eigvalsh(quadratic)[-1])},
        x[None],
        {
            "quadratic": found.quadratic,
            "linear": found.linear[None],
            "lower": np.where(kind == 0, offsets, 0.0),
            "upper": np.where(kind == 1, offsets, 0.0),
        },
    )


def equality(seed: int) -> Problem:
    """Six equations; ADMM, which is then the method of multipliers."""
    random, quadratic = _begin(seed)
    rows = random.standard_normal((6, SIZE)) * SIZE**-0.5
    return _admm(random, quadratic, rows, np.arange(6), random.standard_normal(6), layers.onto)


def polytope(seed: int) -> Problem:
    """Thirty half-spaces, eight of which hold with equality; ADMM."""
    random, quadratic = _begin(seed)
    rows = random.standard_normal((30, SIZE)) * SIZE**-0.5
    return _admm(random, quadratic, rows, np.arange(8), random.uniform(0.1, 1, 8), layers.below)


def simplex(seed: int) -> Problem:
    """The nearest point of x ≥ 0, Σx = 1, half of its entries zero; ADMM on rows [1ᵀ; I]."""
    random = np.random.default_rng(seed)
    rows = np.vstack([np.ones(SIZE), np.eye(SIZE)])
    zero = np.arange(SIZE) % 2 == 0
    x = np.where(zero, 0.0, random.uniform(0.5, 1.5, SIZE))
    x /= x.sum()
    active = np.concatenate([[0], 1 + np.flatnonzero(zero)])
    m = np.concatenate([random.standard_normal(1), -random.uniform(0.1, 1.0, zero.sum())])
    slope, found = _solve(random, np.eye(SIZE), rows[active], x, m)
    gradient = np.zeros_like(rows)
    gradient[active] = found.normals
    return Problem(
        layers.admm(layers.share),
        {
            "quadratic": np.eye(SIZE),
            "linear": -(x + rows[active].T @ m)[None],
            "normals": rows,
            "total": np.ones(1),
        },
        {**_batch(slope), "first": np.eye(SIZE + 1)[0]},
        x[None],
        {
            "quadratic": found.quadratic,
            "linear": found.linear[None],
            "normals": gradient,
            "total": found.offsets[:1],
        },
    )


PROBLEMS: dict[str, Callable[[int], Problem]] = {
    "box": box,
    "equality": equality,
    "polytope": polytope,
    "simplex": simplex,
}


def _begin(seed: int) -> tuple[np.random.Generator, np.ndarray]:
    """Q with eigenvalues from 1 to 20."""
    random = np.random.default_rng(seed)
    basis = np.linalg.qr(random.standard_normal((SIZE, SIZE)))[0]
    quadratic = basis @ np.diag(np.geomspace(1.0, 20.0, SIZE)) @ basis.T
    return random, 0.5 * (quadratic + quadratic.T)


def _admm(
    random: np.random.Generator,
    quadratic: np.ndarray,
    rows: np.ndarray,
    active: np.ndarray,
    m: np.ndarray,
    project: layers.Project,
) -> Problem:
    x = random.standard_normal(SIZE)
    upper = rows @ x + random.uniform(0.1, 1.0, len(rows))
    upper[active] = rows[active] @ x
    slope, found = _solve(random, quadratic, rows[active], x, m)
    normals, offsets = np.zeros_like(rows), np.zeros(len(rows))
    normals[active], offsets[active] = found.normals, found.offsets
    linear = -(quadratic @ x + rows[active].T @ m)
    return Problem(
        layers.admm(project),
        {"quadratic": quadratic, "linear": linear[None], "normals": rows, "upper": upper},
        _batch(slope),
        x[None],
        {
            "quadratic": found.quadratic,
            "linear": found.linear[None],
            "normals": normals,
            "upper": offsets,
        },
    )


def _solve(
    random: np.random.Generator,
    quadratic: np.ndarray,
    rows: np.ndarray,
    x: np.ndarray,
    m: np.ndarray,
) -> tuple[np.ndarray, exact.Slopes]:
    slope = random.standard_normal(SIZE)
    return slope, exact.slopes(quadratic, rows, x, m, slope)


def _batch(slope: np.ndarray) -> Arrays:
    return {"start": np.zeros((1, SIZE)), "slope": slope[None]}
