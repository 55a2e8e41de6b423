"""Broyden with a line search: against a dense one, back from nowhere, by system, when traced."""

from typing import Any

import numpy as np
import pytest

import fpicore_numpy
from fpicore import Broyden, InputError, Leaves, Point, Result, Unrolled
from fpicore_numpy._ops import NumPyOps

from .labs import Lab

N = 4
WEIGHT = np.random.default_rng(9).standard_normal((N, N))
KINDS = ["good", "bad"]


def steep(z: Any) -> Any:
    return z - 3.0 * np.tanh(WEIGHT @ z) - 0.3 * z**3 + 2.0


def walled(z: Any) -> Any:
    return np.where(np.linalg.norm(z) < 3.4, steep(z), np.nan)


def dense(f: Any, kind: str, count: int) -> tuple[list[np.ndarray], set[str]]:
    """The points that are tried, from 0 with H = −I; and what happened on the way."""
    z, trial, r, inverse = np.zeros(N), np.zeros(N), np.full(N, np.inf), -np.eye(N)
    length, taken, seen, events = 1.0, 0, [], set[str]()
    for _ in range(count):
        seen.append(trial)
        new = f(trial) - trial
        size, before = np.linalg.norm(new), np.linalg.norm(r)
        if taken and np.isfinite(size):
            s, y = trial - z, new - r
            w = y if kind == "bad" else inverse.T @ s
            inverse = inverse + np.outer(s - inverse @ y, w) / (w @ y)
        allowed = (1.0 + 10.0 / (1.0 + taken) ** 2 - 1e-4 * length**2) * before
        if not taken or size <= allowed or (np.isfinite(size) and length <= 0.3):
            events.add("taken" if size <= allowed else "forced")
            z, r, length, taken = trial, new, 1.0, taken + 1
        elif np.isfinite(size):
            minimiser = length / ((size / before) ** 2 - 1.0 + 2.0 * length)
            length = length * min(max(minimiser, 0.1), 0.5)
            events.add("shortened")
        else:
            length = 0.25 * length
            events.add("lost")
        trial = z - length * inverse @ r
    return seen, events


def tried(f: Any, solver: Any, count: int) -> list[np.ndarray]:
    seen: list[np.ndarray] = []

    def watched(z: Any) -> Any:
        seen.append(z.copy())
        return f(z)

    options: dict[str, Any] = {"max_steps": count - 1, "rtol": 1e-14, "on_failure": "ignore"}
    fpicore_numpy.fixed_point(watched, np.zeros(N), solver=solver, **options)
    return seen


@pytest.mark.framework("numpy")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("f", "met"), [(steep, "forced"), (walled, "lost")])
def test_is_the_dense_method(f: Any, met: str, kind: str) -> None:
    ours = tried(f, Broyden(kind=kind, line_search=True), 16)
    points, events = dense(f, kind, 16)
    assert events >= {"taken", met}
    for a, b in zip(ours, points, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.framework("numpy")
@pytest.mark.parametrize("exponent", [-300, 300])
@pytest.mark.parametrize("kind", KINDS)
def test_units_do_not_matter(kind: str, exponent: int) -> None:
    scale, solver = 2.0**exponent, Broyden(kind=kind, line_search=True)
    plain = tried(steep, solver, 12)
    scaled = tried(lambda z: scale * steep(z / scale), solver, 12)
    np.testing.assert_array_equal(scaled, scale * np.array(plain))


@pytest.mark.framework("numpy")
@pytest.mark.parametrize("kind", KINDS)
def test_comes_back_from_where_f_is_not_finite(kind: str) -> None:
    """The first step runs into a wall."""
    f = lambda z: np.where(z < 1.0, z + 5.0 * (0.8 - z), np.nan)  # noqa: E731
    options: dict[str, Any] = {"rtol": 1e-10, "on_failure": "ignore"}
    sol = fpicore_numpy.fixed_point(
        f, np.zeros(3), solver=Broyden(kind=kind, line_search=True), **options
    )
    assert sol.converged
    np.testing.assert_allclose(sol.value, 0.8, rtol=1e-9)
    lost = fpicore_numpy.fixed_point(f, np.zeros(3), solver=Broyden(kind=kind), **options)
    assert lost.result.codes == Result.NONFINITE


def family(lab: Lab, shifts: Any) -> Any:
    matrix, shifts = lab.tensor(COUPLING.T), lab.tensor(shifts)
    return lambda z: z - 2.0 * lab.xp.tanh(lab.xp.matmul(z, matrix)) + shifts


COUPLING = np.random.default_rng(1).standard_normal((N, N))
SHIFTS = np.array([[0.1, 0.2, -0.1, 0.3], [1.0, -0.5, 0.7, 0.4], [-0.3, 0.6, 0.2, -0.4]])


@pytest.mark.parametrize("kind", KINDS)
def test_systems_are_independent(lab: Lab, fpi: Any, kind: str) -> None:
    """Each needs what it needs alone, and NaN in one harms no other."""
    options: dict[str, Any] = {"solver": Broyden(kind=kind, line_search=True), "rtol": 1e-9}
    options |= {"on_failure": "ignore", "max_steps": 200, "batch_ndim": 1}
    zero = lab.tensor(np.zeros((3, N)))
    together = fpi.fixed_point(family(lab, SHIFTS), zero, **options)
    assert lab.numpy(together.converged).all()
    broken = SHIFTS.copy()
    broken[1] = np.nan
    harmed = fpi.fixed_point(family(lab, broken), zero, **options)
    assert lab.numpy(harmed.result.codes).tolist() == [0, Result.NONFINITE, 0]
    for i in (0, 2):
        np.testing.assert_array_equal(lab.numpy(harmed.value)[i], lab.numpy(together.value)[i])


@pytest.mark.modes("jit", "graph")
def test_compiled(lab: Lab, mode: str) -> None:
    def run(start: Any) -> Any:
        options: dict[str, Any] = {"solver": Broyden(line_search=True), "rtol": 1e-10}
        options |= {"max_steps": 200, "batch_ndim": 1, "on_failure": "ignore"}
        sol = lab.fpi.fixed_point(family(lab, SHIFTS), start, **options)
        return sol.value, sol.stats.steps

    start = lab.tensor(np.zeros((3, N)))
    (value, steps), (expected, count) = lab.numpy((lab.compiled(run, mode)(start), run(start)))
    np.testing.assert_allclose(value, expected, rtol=1e-7, atol=1e-7)
    assert np.abs(steps - count).max() <= 3


@pytest.mark.framework("numpy")
@pytest.mark.parametrize("kind", KINDS)
def test_begins_anew_where_it_is_renewed(kind: str) -> None:
    ops, solver = NumPyOps(1, 2.0**-52), Broyden(kind=kind, line_search=True)

    def at(z: Leaves) -> Point:
        r = np.stack([steep(x) for x in z[0]]) - z[0]
        return Point(z, (z[0] + r,), (r,), np.linalg.norm(r, axis=-1))

    z: Leaves = (0.1 * SHIFTS[:2],)
    state: Any = solver.init(ops, z)
    with np.errstate(all="ignore"):
        for _ in range(4):
            z, state = solver.step(ops, at(z), state)
    far, point, mask = at((30.0 * SHIFTS[:2],)), at(z), np.array([False, True])
    state = solver.renew(ops, mask, far, state, state.memory.count)
    chosen: Any = [
        (np.where(mask[:, None], a[0], b[0]),) for a, b in zip(far[:3], point[:3], strict=True)
    ]
    both = Point(*chosen, error=np.where(mask, far.error, point.error))
    with np.errstate(all="ignore"):
        after, _ = solver.step(ops, both, state)
    np.testing.assert_allclose(after[0][1], far.f[0][1], rtol=1e-12)
    assert np.abs(after[0][0] - point.f[0][0]).max() > 1e-3


@pytest.mark.framework("numpy")
def test_unrolling_is_refused() -> None:
    with pytest.raises(InputError):
        fpicore_numpy.fixed_point(
            steep, np.zeros(N), solver=Broyden(line_search=True), adjoint=Unrolled()
        )
