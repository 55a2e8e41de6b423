"""Broyden's bad method: against the dense one, in every framework, by system."""

from typing import Any

import numpy as np
import pytest

import fpicore_numpy
from fpicore import Broyden, Leaves, Point
from fpicore_numpy._ops import NumPyOps

from .labs import Lab
from .problems import symmetric
from .test_anderson_kinds import family, three
from .test_solver_formulas import iterates, linear, nonlinear

N = 30


def dense_bad_broyden(f: Any, count: int, history: int) -> list[np.ndarray]:
    """H ← H + (s − H y) yᵀ/‖y‖² from H = −I, which is where a full memory returns to."""
    z, inverse, pairs, seen = np.zeros(N), -np.eye(N), 0, []
    r = f(z) - z
    for _ in range(count):
        seen.append(z)
        s = -inverse @ r
        z = z + s
        new = f(z) - z
        y, r = new - r, new
        if pairs == history:
            inverse, pairs = -np.eye(N), 0
        inverse, pairs = inverse + np.outer(s - inverse @ y, y) / (y @ y), pairs + 1
    return seen


@pytest.mark.framework("numpy")
@pytest.mark.parametrize("make", [linear, nonlinear])
@pytest.mark.parametrize("history", [1, 2, 4, 20])
def test_is_the_dense_method(make: Any, history: int) -> None:
    ours = iterates(make(0), Broyden(history=history, kind="bad"), 12)
    dense = dense_bad_broyden(make(0), 12, history)
    for a, b in zip(ours, dense, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-7)


@pytest.mark.framework("numpy")
@pytest.mark.parametrize("history", [1, 3, 10, 20])
def test_keeps_converging_when_its_memory_wraps(history: int) -> None:
    random = np.random.default_rng(0)
    matrix, shift = symmetric(random, np.linspace(0.0, 0.99, 100)), random.standard_normal(100)
    sol = fpicore_numpy.fixed_point(
        lambda z: matrix @ z + shift,
        np.zeros(100),
        solver=Broyden(history=history, kind="bad"),
        rtol=1e-10,
        max_steps=3000,
    )
    assert sol.converged
    assert sol.stats.steps > 2 * history


@pytest.mark.framework("numpy")
@pytest.mark.parametrize("exponent", [-300, 300])
def test_units_do_not_matter(exponent: int) -> None:
    f, start, solver = linear(0), np.zeros(N), Broyden(kind="bad")
    scale = 2.0**exponent
    plain = fpicore_numpy.fixed_point(f, start, solver=solver, rtol=1e-9)
    scaled = fpicore_numpy.fixed_point(
        lambda z: scale * f(z / scale), start, solver=solver, rtol=1e-9
    )
    np.testing.assert_array_equal(scaled.value, scale * plain.value)


@pytest.mark.framework("numpy")
@pytest.mark.parametrize("tangent", [False, True])
def test_what_it_learned_of_the_inverse(tangent: bool) -> None:
    """H maps every change y to its step s where those are orthogonal; −H here is dense −H."""
    random = np.random.default_rng(2)
    matrix, shift = 0.3 * random.standard_normal((4, 4)), random.standard_normal(4)
    ops, solver = NumPyOps(0, 2.0**-52), Broyden(kind="bad")
    z: Leaves = (np.zeros(4),)
    state, inverse, last = solver.init(ops, z), -np.eye(4), None
    for _ in range(4):
        f = (matrix @ z[0] + shift,)
        r = (f[0] - z[0],)
        if last is not None:
            s, y = z[0] - last[0], r[0] - last[1]
            inverse = inverse + np.outer(s - inverse @ y, y) / (y @ y)
        last = z[0], r[0]
        z, state = solver.step(ops, Point(z, f, r, float(np.linalg.norm(r[0]))), state)
    v = random.standard_normal(4)
    found = solver.inverse(ops, state, (v,), tangent)[0]
    np.testing.assert_allclose(found, -(inverse if tangent else inverse.T) @ v, rtol=1e-9)


@pytest.mark.modes("jit", "graph")
def test_compiled(lab: Lab, mode: str) -> None:
    def run(start: Any) -> Any:
        options: dict[str, Any] = {"solver": Broyden(5, "bad"), "rtol": 1e-10, "batch_ndim": 1}
        return lab.fpi.fixed_point(family(lab, three()), start, max_steps=200, **options).value

    start = lab.tensor(np.zeros((3, 6)))
    value, expected = lab.numpy((lab.compiled(run, mode)(start), run(start)))
    np.testing.assert_allclose(value, expected, rtol=1e-8)
