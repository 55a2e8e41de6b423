"""Anderson that leaves out columns: against dense distances and least squares."""

from typing import Any

import numpy as np
import pytest

from fpicore import Anderson
from fpicore._numbers import filtered, independent
from fpicore_numpy._ops import NumPyOps

from .test_solver_formulas import iterates, linear, nonlinear

pytestmark = pytest.mark.framework("numpy")

N = 30


def far(columns: list[np.ndarray], bound: float) -> list[int]:
    """Which columns stay, the newest first: those far from the span of the ones before."""
    kept: list[int] = []
    for j, column in enumerate(columns):
        rest = column
        if kept:
            basis = np.stack([columns[i] for i in kept], 1)
            rest = column - basis @ np.linalg.lstsq(basis, column, rcond=None)[0]
        if np.linalg.norm(rest) >= bound * np.linalg.norm(column) > 0.0:
            kept.append(j)
    return kept


def dense_filtered(f: Any, history: int, bound: float, count: int) -> tuple[list[np.ndarray], int]:
    """Least squares on those differences of successive residuals that stay; how many did not."""
    z, seen, values, residuals, mixed, left_out = np.zeros(N), [], [], [], False, 0
    for _ in range(count):
        seen.append(z)
        values.append(f(z))
        residuals.append(values[-1] - z)
        values, residuals = values[-history - 1 :], residuals[-history - 1 :]
        worse = len(seen) > 1 and np.linalg.norm(residuals[-1]) > np.linalg.norm(residuals[-2])
        mixed, z = not (mixed and worse), values[-1]
        apart = list(np.diff(residuals, axis=0))[::-1]
        moved = list(np.diff(values, axis=0))[::-1]
        kept = far(apart, bound)
        if mixed and kept:
            left_out += len(apart) - len(kept)
            columns = np.stack([apart[j] for j in kept], 1)
            gamma = np.linalg.lstsq(columns, residuals[-1], rcond=None)[0]
            z = z - sum(g * moved[j] for g, j in zip(gamma, kept, strict=True))
    return seen, left_out


@pytest.mark.parametrize("make", [linear, nonlinear])
@pytest.mark.parametrize(("history", "bound"), [(3, 0.8), (5, 0.6), (5, 0.8), (5, 1.0)])
def test_is_the_dense_method(make: Any, history: int, bound: float) -> None:
    solver = Anderson(history=history, regularization=1e-15, filtering=bound)
    ours = iterates(make(0), solver, 12)
    dense, left_out = dense_filtered(make(0), history, bound, 12)
    assert left_out > 0
    for a, b in zip(ours, dense, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * max(1.0, float(np.linalg.norm(b))))


@pytest.mark.parametrize("kind", [1, 2])
def test_a_bound_near_zero_keeps_all(kind: int) -> None:
    f = nonlinear(1)
    kept = iterates(f, Anderson(kind=kind, filtering=1e-12), 8)
    np.testing.assert_allclose(kept, iterates(f, Anderson(kind=kind), 8), rtol=1e-6)


@pytest.mark.parametrize("newest", range(5))
def test_which_columns_stay(newest: int) -> None:
    """In two systems at once, in a ring, with a column of zeros and one that is not finite."""
    random = np.random.default_rng(newest)
    columns = random.standard_normal((3, 4, 5)) * 10.0 ** random.integers(-3, 4, 5)
    columns[0, :, 3] = columns[0, :, 1] + 1e-3 * np.abs(columns[0, :, 1]).max()
    columns[1, :, 2], columns[2, :, 0] = 0.0, np.nan
    with np.errstate(all="ignore"):
        gram = columns.swapaxes(-1, -2) @ columns
    with np.errstate(all="ignore"):
        found = independent(NumPyOps(1, 2.0**-52), gram, float(newest), 0.2)
    order = [(newest - age) % 5 for age in range(5)]
    for system in (0, 1):
        stays = [order[j] for j in far([columns[system, :, j] for j in order], 0.2)]
        assert np.flatnonzero(found[system]).tolist() == sorted(stays)
    assert not found[2].any()


def test_the_ridge_hides_no_dependence() -> None:
    """It is in the minimum, not in the angles: r₂ − r₁ and r₃ − r₂ are parallel, but for a hair."""
    residuals = np.random.default_rng(0).standard_normal((6, 4))
    residuals[:, 1] = 2.0 * residuals[:, 2] - residuals[:, 3] + 0.01 * residuals[:, 0]
    gram = residuals.T @ residuals
    gram += 0.5 * np.diag(np.diag(gram))
    found = filtered(NumPyOps(0, 2.0**-52), gram, np.ones(4), 3.0, 0.2, 0.5)
    moves = np.array([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]])  # not r₁ − r₂
    gamma = np.linalg.solve(moves @ gram @ moves.T, -moves @ gram[3])
    np.testing.assert_allclose(found, np.eye(4)[3] + gamma @ moves, rtol=1e-10)


def test_type_one_leaves_out_pairs() -> None:
    """Steps of a map of two unknowns lie in a plane: two pairs stay, and as many as they are."""
    matrix = np.array([[0.5, 0.3], [-0.2, 0.6]])
    matrix = np.kron(np.eye(N // 2), matrix)  # the same map N/2 times, all alike
    f = lambda z: np.tanh(matrix @ z) + 1.0  # noqa: E731
    filtered = iterates(f, Anderson(history=5, kind=1, filtering=1e-6), 6)
    short = iterates(f, Anderson(history=2, kind=1), 6)
    np.testing.assert_allclose(filtered, short, rtol=1e-6)
