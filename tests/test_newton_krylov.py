"""NewtonKrylov: its formulas against dense ones, what it alone solves, and what it costs."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import fpicore_numpy
from fpicore import Anderson, Broyden, InputError, NewtonKrylov, Result

from .labs import Lab

N = 6


def smooth(z: Any) -> Any:
    """A map of R⁶ with a known Jacobian."""
    return np.tanh(WEIGHT @ z) + 0.5 * np.cos(z) + 1.0


def jacobian(z: np.ndarray) -> np.ndarray:
    return (1 - np.tanh(WEIGHT @ z) ** 2)[:, None] * WEIGHT - np.diag(0.5 * np.sin(z))


WEIGHT = np.random.default_rng(0).standard_normal((N, N))


def visited(f: Any, start: Any, solver: Any, count: int) -> list[np.ndarray]:
    """The first points at which f is evaluated."""
    seen: list[np.ndarray] = []

    def watched(z: Any) -> Any:
        seen.append(z.copy())
        return f(z)

    options: dict[str, Any] = {"max_steps": count - 1, "rtol": 1e-14, "on_failure": "ignore"}
    fpicore_numpy.fixed_point(watched, start, solver=solver, **options)
    return seen


@pytest.mark.framework("numpy")
def test_steps_are_those_of_newton() -> None:
    """With GMRES run to the end: start, N probes, z − (J − I)⁻¹ r, N probes, …"""
    start = smooth(np.full(N, 0.3))
    seen = visited(smooth, start, NewtonKrylov(restart=N, forcing=1e-9), 1 + 2 * (N + 1))
    for place in (0, N + 1):
        z = seen[place]
        newton = z + np.linalg.solve(np.eye(N) - jacobian(z), smooth(z) - z)
        np.testing.assert_allclose(seen[place + N + 1], newton, rtol=2e-4)


@pytest.mark.framework("numpy")
def test_probes_are_as_far_as_promised() -> None:
    start = np.full(N, 0.3)
    seen = visited(smooth, start, NewtonKrylov(restart=N, forcing=1e-9), 1 + N)
    z, r = start, smooth(start) - start
    spacing = 2.0**-26 * (np.linalg.norm(z) + np.linalg.norm(r))
    for probe in seen[1:]:
        assert np.linalg.norm(probe - z) == pytest.approx(spacing, rel=1e-6)
    first = (seen[1] - z) / spacing
    np.testing.assert_allclose(first, r / np.linalg.norm(r), atol=1e-6)


@pytest.mark.framework("numpy")
def test_gmres_ends_at_the_forcing_term() -> None:
    """One direction will do if what it leaves is below η₀; the step is minimal in its space."""
    z = np.full(N, 0.3)
    r = smooth(z) - z
    image = (np.eye(N) - jacobian(z)) @ r
    step = (image @ r) / (image @ image)
    left = float(np.linalg.norm(r - step * image) / np.linalg.norm(r))
    for forcing, enough in ((1.01 * left, True), (0.99 * left, False)):
        seen = visited(smooth, z, NewtonKrylov(restart=N, forcing=forcing), 3)
        assert np.allclose(seen[2], z + step * r, rtol=1e-5) == enough


@pytest.mark.framework("numpy")
def test_gmres_does_no_more_than_the_tolerance_asks_for() -> None:
    """A linear map: half the tolerance is what one step leaves."""
    matrix = 0.5 * WEIGHT / np.linalg.norm(WEIGHT, 2)
    for rtol in (1e-1, 1e-2):
        sol = fpicore_numpy.fixed_point(
            lambda z: matrix @ z + 1.0, np.zeros(N), solver=NewtonKrylov(forcing=1e-9), rtol=rtol
        )
        assert sol.converged
        assert sol.stats.evaluations < N + 2
        assert 1e-2 * sol.stats.tolerance < sol.stats.residual < 0.6 * sol.stats.tolerance


@pytest.mark.framework("numpy")
def test_backtracking_minimises_the_parabola() -> None:
    """r = −arctan(z): the full step from 3 goes to −9.49; λ from φ(0), φ′(0) and φ(1)."""
    f = lambda z: z - np.arctan(z)  # noqa: E731
    z = np.array([3.0])
    seen = visited(f, z, NewtonKrylov(forcing=1e-3), 5)
    full = -np.arctan(z) * (1 + z * z)
    np.testing.assert_allclose(seen[2], z + full, rtol=1e-5)
    ratio = np.arctan(z + full) / np.arctan(z)
    share = np.clip(1.0 / (ratio**2 + 1.0), 0.1, 0.5)
    np.testing.assert_allclose(seen[3], z + share * full, rtol=1e-5)
    sol = fpicore_numpy.fixed_point(f, np.array([30.0]), solver=NewtonKrylov(), atol=1e-9)
    assert abs(sol.value[0]) < 1e-9


def bellman(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Transitions of 500 states by 3 actions, each to 5 near or far states, and rewards."""
    random = np.random.default_rng(seed)
    states, actions = 500, 3
    moves = np.zeros((actions, states, states))
    for action, state in np.ndindex(actions, states):
        near = (state + random.integers(-3, 4, 5)) % states
        targets = random.integers(0, states, 5) if action == 0 else near
        np.add.at(moves[action, state], targets, random.dirichlet(np.ones(5)))
    return moves, random.random((actions, states))


@pytest.mark.framework("numpy")
@pytest.mark.parametrize("seed", range(2))
def test_policy_iteration_falls_out(seed: int) -> None:
    """Value iteration at discount 0.99: a trial is a policy's value, and there are few of them."""
    moves, rewards = bellman(seed)
    f = lambda v: (rewards + 0.99 * moves @ v).max(axis=0)  # noqa: E731
    start, solver = rewards.max(axis=0), NewtonKrylov(restart=200, forcing=1e-6)
    seen = visited(f, start, solver, 600)
    sol = fpicore_numpy.fixed_point(f, start, solver=solver, rtol=1e-8, max_steps=600)
    assert sol.converged
    points = seen[: sol.stats.evaluations]
    spacing = 1e-6 * np.linalg.norm(sol.value)
    newton = sum(np.linalg.norm(b - a) > spacing for a, b in pairwise(points[1:]))
    print("Newton steps", newton // 2, "evaluations", sol.stats.evaluations)
    assert newton // 2 <= 12


RATES = np.logspace(0, 3, 8)


def stiff(lab: Lab) -> Any:
    """z + 1 − a z − b z³ with a from 1 to 10³ and b from 10³ to 1: far from a contraction."""
    linear, cubic = lab.tensor(RATES), lab.tensor(RATES[::-1].copy())
    return lambda z: z + 1.0 - linear * z - cubic * z * z * z


def test_solves_a_stiff_map_that_others_do_not(lab: Lab, fpi: Any) -> None:
    start = lab.tensor(np.full(8, 3.0))
    options: dict[str, Any] = {"rtol": 1e-10, "max_steps": 150, "on_failure": "ignore"}
    for solver in (Anderson(), Broyden()):
        assert not lab.numpy(fpi.fixed_point(stiff(lab), start, solver=solver, **options).converged)
    sol = fpi.fixed_point(stiff(lab), start, solver=NewtonKrylov(), **options)
    z = lab.numpy(sol.value)
    assert lab.numpy(sol.converged)
    np.testing.assert_allclose(RATES * z + RATES[::-1] * z**3, 1.0, rtol=1e-9)


@pytest.mark.modes("jit", "graph")
def test_compiled(lab: Lab, mode: str) -> None:
    """The same answer where state is data and no branch is taken."""

    def run(start: Any) -> Any:
        options: dict[str, Any] = {"rtol": 1e-10, "max_steps": 150}
        sol = lab.fpi.fixed_point(stiff(lab), start, solver=NewtonKrylov(8), **options)
        return sol.value, sol.result.codes, sol.stats.evaluations

    value, code, evaluations = lab.numpy(lab.compiled(run, mode)(lab.tensor(np.full(8, 3.0))))
    eager, _, expected = lab.numpy(run(lab.tensor(np.full(8, 3.0))))
    assert code == Result.CONVERGED
    assert abs(int(evaluations) - int(expected)) <= 10
    np.testing.assert_allclose(value, eager, rtol=1e-6)


def logarithm(lab: Lab) -> Any:
    """z = z − log z − shift, NaN for z < 0: a full step from 5 leaves the domain."""
    shift = lab.tensor(np.array([[0.5], [-0.5]]))
    return lambda z: z - lab.xp.log(z) - shift


def test_goes_back_from_where_f_is_not_finite(lab: Lab, fpi: Any) -> None:
    start = lab.tensor(np.array([[9.0, 20.0], [1.0, 2.0]]))
    sol = fpi.fixed_point(logarithm(lab), start, solver=NewtonKrylov(), rtol=1e-9, batch_ndim=1)
    assert lab.numpy(sol.converged).all()
    np.testing.assert_allclose(lab.numpy(sol.value), np.exp([[-0.5] * 2, [0.5] * 2]), rtol=1e-7)


def test_single_precision(lab: Lab, fpi: Any) -> None:
    rates = lab.tensor(np.linspace(-0.9, 0.88, 8), "float32")
    sol = fpi.fixed_point(
        lambda z: rates * z + 0.1 * lab.xp.sin(z) + 1.0,
        lab.tensor(np.zeros(8), "float32"),
        solver=NewtonKrylov(),
        rtol=3e-6,
        max_steps=200,
    )
    z = lab.numpy(sol.value).astype(float)
    assert lab.numpy(sol.converged)
    assert str(z.dtype) == "float64"
    residual = np.linspace(-0.9, 0.88, 8) * z + 0.1 * np.sin(z) + 1.0 - z
    assert np.linalg.norm(residual) < 4e-6 * np.linalg.norm(z)


def test_half_precision_probes_are_no_smaller_than_its_unit(lab: Lab, fpi: Any) -> None:
    sol = fpi.fixed_point(
        lambda z: 2.0 - 1.5 * z,
        lab.tensor(np.zeros(4), "float16"),
        solver=NewtonKrylov(),
        rtol=1e-2,
    )
    assert lab.numpy(sol.converged)
    np.testing.assert_allclose(lab.numpy(sol.value).astype(float), 0.8, rtol=1e-2)


@pytest.mark.framework("numpy")
def test_without_a_fixed_point_the_best_point_is_returned() -> None:
    """r has no zero: the search gives up, and the best point is the minimum of ‖r‖."""
    sol = fpicore_numpy.fixed_point(
        lambda z: z + 1.0 + z * z, np.array([2.0]), solver=NewtonKrylov(), on_failure="ignore",
        max_steps=400,
    )  # fmt: skip
    assert not sol.converged
    assert abs(sol.value[0]) < 0.1


@pytest.mark.gradients
def test_the_adjoint_is_solved_by_gmres(lab: Lab) -> None:
    """No difference quotients there: N products at most, and one that certifies."""
    weight = 0.4 * np.random.default_rng(1).standard_normal((4, 4))
    found = []

    def loss(w: Any) -> Any:
        sol = lab.fpi.fixed_point(
            lambda z: lab.xp.tanh(lab.xp.matmul(w, z)) + 1.0,
            lab.tensor(np.zeros(4)),
            solver=NewtonKrylov(),
            adjoint=lab.fpi.Implicit(callback=lambda results, stats: found.append(stats)),
            rtol=1e-10,
        )
        return lab.xp.sum(sol.value)

    lab.gradient(loss, weight)
    lab.wait()
    assert int(lab.numpy(found[-1].evaluations)) <= 5


@pytest.mark.gradients
def test_unrolling_is_refused(lab: Lab, fpi: Any) -> None:
    with pytest.raises(InputError, match=r"whose every step can be differentiated.*NewtonKrylov"):
        fpi.fixed_point(
            lambda z: 0.5 * z, lab.tensor(np.ones(2)), solver=NewtonKrylov(), adjoint=fpi.Unrolled()
        )


@pytest.mark.modes("graph")
def test_leaves_of_different_shapes_in_a_graph(lab: Lab, mode: str) -> None:
    """TensorFlow's graph optimiser must leave the answer as it is, value and gradient."""
    start = {"a": np.zeros((2, 3)), "b": np.array(0.0)}

    def f(z: Any, shift: Any) -> Any:
        cos, sin, mean = lab.xp.cos, lab.xp.sin, lab.xp.mean
        return {
            "a": 0.5 * cos(z["a"]) + 0.1 * z["b"],
            "b": 0.3 * sin(z["b"]) + mean(z["a"]) + shift,
        }

    def loss(shift: Any) -> Any:
        sol = lab.fpi.fixed_point(f, lab.tensor(start), (shift,), solver=NewtonKrylov(3), rtol=1e-9)
        return lab.xp.sum(sol.value["a"]) + sol.value["b"]

    slope = lab.gradient(loss, np.array(0.2), mode=mode)[0]
    values = [lab.run(loss, np.array(0.2 + h), mode="eager") for h in (-1e-4, 1e-4)]
    np.testing.assert_allclose(slope, (values[1] - values[0]) / 2e-4, rtol=1e-5)
