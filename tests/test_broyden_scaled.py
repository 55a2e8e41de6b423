"""Broyden's methods from −γI: against dense ones, on steep maps, in every framework, by system."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import fpicore_numpy
from fpicore import Broyden, InputError, Leaves, Point, Result, Unrolled
from fpicore_numpy._ops import NumPyOps

from .labs import Lab

N = 6
KINDS = ["good", "bad"]
COUPLING = np.random.default_rng(3).standard_normal((N, N)) / np.sqrt(N)
START = np.linspace(0.5, 1.5, N)


def steep(z: Any, power: Any = np.tanh) -> Any:
    """z − g(z) with a Jacobian of g of about 7."""
    return z - (6.0 * z + z**3 + power(z @ COUPLING) - 2.0)


def gentle(z: Any) -> Any:
    return 0.9 * np.tanh(z @ COUPLING) + 0.3


def dense(f: Any, kind: str, history: int, count: int) -> tuple[list[np.ndarray], list[float]]:
    """The iterates, and every γ: that of the first step, then of the pairs that begin a memory."""
    z, seen, pairs = START, [], 0
    r = f(z) - z
    scales = [min(1.0, 0.5 * float(np.linalg.norm(z) / np.linalg.norm(r)))]
    inverse = -scales[0] * np.eye(N)
    for k in range(count):
        seen.append(z)
        s = -inverse @ r
        z = z + s
        new = f(z) - z
        y, r = new - r, new
        if k == 0 or pairs == history:
            share = -(s @ y) / (y @ y)
            share = share if share > 0.0 else np.sqrt((s @ s) / (y @ y))
            scales.append(share if share < 0.5 else 1.0)
            inverse, pairs = -scales[-1] * np.eye(N), 0
        w = y if kind == "bad" else inverse.T @ s
        inverse, pairs = inverse + np.outer(s - inverse @ y, w) / (w @ y), pairs + 1
    return seen, scales


def tried(f: Any, solver: Any, count: int, start: Any = START) -> list[np.ndarray]:
    seen: list[np.ndarray] = []

    def watched(z: Any) -> Any:
        seen.append(z.copy())
        return f(z)

    options: dict[str, Any] = {"max_steps": count - 1, "rtol": 1e-14, "on_failure": "ignore"}
    fpicore_numpy.fixed_point(watched, start, solver=solver, **options)
    return seen


@pytest.mark.framework("numpy")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("history", [2, 4, 20])
@pytest.mark.parametrize("f", [steep, gentle])
def test_is_the_dense_method(f: Any, history: int, kind: str) -> None:
    ours = tried(f, Broyden(history, kind, scaled=True), 12)
    points, scales = dense(f, kind, history, 12)
    assert (scales[1] < 0.3) == (f is steep)
    for a, b in zip(ours, points, strict=False):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.framework("numpy")
@pytest.mark.parametrize("kind", KINDS)
def test_solves_what_plain_restarts_do_not(kind: str) -> None:
    options: dict[str, Any] = {"rtol": 1e-10, "on_failure": "ignore"}
    plain = fpicore_numpy.fixed_point(steep, START, solver=Broyden(10, kind), **options)
    sol = fpicore_numpy.fixed_point(steep, START, solver=Broyden(10, kind, scaled=True), **options)
    assert sol.converged
    assert sol.stats.evaluations < 25
    assert not plain.converged or plain.stats.evaluations > 2 * sol.stats.evaluations


@pytest.mark.framework("numpy")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0.0, 1e-20])
def test_a_start_without_size_says_nothing(kind: str, size: float) -> None:
    """The first step is the plain one."""
    start = np.full(N, size)
    points = tried(steep, Broyden(3, kind, scaled=True), 2, start)
    np.testing.assert_allclose(points[1], steep(start), rtol=1e-12)


@pytest.mark.framework("numpy")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("exponent", [-200, 200])
def test_units_do_not_matter(kind: str, exponent: int) -> None:
    scale, solver = 2.0**exponent, Broyden(3, kind, scaled=True)
    plain = tried(steep, solver, 12)
    scaled = tried(lambda z: scale * steep(z / scale), solver, 12, scale * START)
    np.testing.assert_array_equal(scaled, scale * np.array(plain))


@pytest.mark.framework("numpy")
@pytest.mark.parametrize("tangent", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_what_it_learned_of_the_inverse(kind: str, tangent: bool) -> None:
    """Of a linear map; −H stands one pair behind the newest step of the good method."""
    random = np.random.default_rng(2)
    matrix, shift = -5.0 * np.eye(4) + random.standard_normal((4, 4)), random.standard_normal(4)
    ops, solver = NumPyOps(0, 2.0**-52), Broyden(8, kind, scaled=True)
    z: Leaves = (np.ones(4),)
    state = solver.init(ops, z)
    steps: list[Any] = []
    for _ in range(5):
        f = (matrix @ z[0] + shift,)
        r = (f[0] - z[0],)
        steps.append((z[0], r[0]))
        z, state = solver.step(ops, Point(z, f, r, float(np.linalg.norm(r[0]))), state)
    s, y = (b - a for a, b in zip(*steps[-2:], strict=True))
    found = lambda v, way: solver.inverse(ops, state, (v,), way)[0]  # noqa: E731
    np.testing.assert_allclose(found(y, True), -s, rtol=1e-8)
    v = random.standard_normal(4)
    np.testing.assert_allclose(v @ found(y, tangent), y @ found(v, not tangent), rtol=1e-9)


@pytest.mark.framework("numpy")
@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scaled", [False, True])
def test_products_may_overflow(kind: str, scaled: bool) -> None:
    """The memory is emptied then; the solve ends as one that has no answer."""
    f = lambda z: z + 1e100 * (1.0 + z * z)  # noqa: E731
    for start in (START, 1e60 * START):
        solver = Broyden(3, kind, scaled=scaled)
        sol = fpicore_numpy.fixed_point(f, start, solver=solver, on_failure="ignore")
        assert not sol.converged
        assert np.isfinite(sol.value).all()


def family(lab: Lab, shifts: Any) -> Any:
    matrix, shifts = lab.tensor(COUPLING), lab.tensor(shifts)
    rates = lab.tensor(np.array([[0.2], [3.0], [6.0]]))
    return lambda z: shifts - rates * z - lab.xp.tanh(lab.xp.matmul(z, matrix))


SHIFTS = np.random.default_rng(5).standard_normal((3, N))


@pytest.mark.parametrize("kind", KINDS)
def test_systems_are_independent(lab: Lab, fpi: Any, kind: str) -> None:
    """Each needs what it needs alone, whatever γ the others have; NaN in one harms no other."""
    options: dict[str, Any] = {"solver": Broyden(4, kind, scaled=True), "rtol": 1e-9}
    options |= {"on_failure": "ignore", "max_steps": 200, "batch_ndim": 1}
    start = lab.tensor(np.ones((3, N)))
    together = fpi.fixed_point(family(lab, SHIFTS), start, **options)
    assert lab.numpy(together.converged).all()
    assert np.unique(lab.numpy(together.stats.steps)).size > 1
    broken = SHIFTS.copy()
    broken[1] = np.nan
    harmed = fpi.fixed_point(family(lab, broken), start, **options)
    assert lab.numpy(harmed.result.codes).tolist() == [0, Result.NONFINITE, 0]
    for i in (0, 2):
        np.testing.assert_array_equal(lab.numpy(harmed.value)[i], lab.numpy(together.value)[i])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.modes("jit", "graph")
def test_compiled(lab: Lab, mode: str, kind: str) -> None:
    def run(start: Any) -> Any:
        options: dict[str, Any] = {"solver": Broyden(4, kind, scaled=True), "rtol": 1e-10}
        sol = lab.fpi.fixed_point(
            family(lab, SHIFTS), start, max_steps=200, batch_ndim=1, on_failure="ignore", **options
        )
        return sol.value, sol.stats.steps

    start = lab.tensor(np.ones((3, N)))
    (value, steps), (expected, count) = lab.numpy((lab.compiled(run, mode)(start), run(start)))
    np.testing.assert_allclose(value, expected, rtol=1e-8)
    assert np.abs(steps - count).max() <= 2


@pytest.mark.framework("numpy")
@pytest.mark.filterwarnings("ignore:(divide by zero|invalid value) encountered:RuntimeWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_begins_anew_where_it_is_renewed(kind: str) -> None:
    """Half of z first, then by the γ of that step: the good method, without room for b, alone."""
    ops, solver = NumPyOps(1, 2.0**-52), Broyden(20, kind, scaled=True)

    def at(z: Any) -> Point:
        r = np.stack([steep(x) - x for x in z])
        return Point((z,), (z + r,), (r,), np.linalg.norm(r, axis=-1))

    z = np.stack([0.7 * START, 0.9 * START])
    state = solver.init(ops, (z,))
    for _ in range(5):
        (z,), state = solver.step(ops, at(z), state)
    points = [np.stack([START, z[1]])]
    renewed = np.array([True, False])
    state = solver.renew(ops, renewed, at(points[0]), state, 5.0)
    for _ in range(2):
        (z,), state = solver.step(ops, at(points[-1]), state)
        points.append(z)
    first, second = (b[0] - a[0] for a, b in pairwise(points))
    r, after = (at(z).residual[0][0] for z in points[:2])
    np.testing.assert_allclose(first, 0.5 * np.linalg.norm(START) / np.linalg.norm(r) * r)
    y = after - r
    gamma = -(first @ y) / (y @ y)
    expected = gamma * after
    if kind == "bad":
        expected = expected - (first + gamma * y) * (y @ after) / (y @ y)
    np.testing.assert_allclose(second, expected, rtol=1e-9)


@pytest.mark.gradients
@pytest.mark.only("torch", "jax")
@pytest.mark.parametrize("kind", KINDS)
def test_unrolled_steps_have_a_derivative(lab: Lab, kind: str) -> None:
    """√0, of a start of 0, would not: dz/dθ = 1/(1 + 8)."""
    options: dict[str, Any] = {"solver": Broyden(3, kind, scaled=True), "max_steps": 8}
    options |= {"adjoint": Unrolled(), "rtol": 1e-10}

    def loss(theta: Any) -> Any:
        f = lambda z, theta: theta - 8.0 * z  # noqa: E731
        found = lab.fpi.fixed_point(f, 0.0 * theta, (theta,), **options)
        return lab.xp.sum(found.value)

    found = lab.gradient(loss, np.linspace(0.5, 2.0, 4))[0]
    np.testing.assert_allclose(found, 1.0 / 9.0, rtol=1e-7)


def test_options_are_checked() -> None:
    with pytest.raises(InputError, match="expected scaled to be True or False, received 1"):
        Broyden(scaled=1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="line_search or scaled, received both"):
        Broyden(line_search=True, scaled=True)
