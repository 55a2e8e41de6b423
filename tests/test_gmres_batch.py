"""GMRES on a batch: every system has its own Krylov space, its own cycles and its own end."""

import numpy as np
import pytest

from fpicore import Result

from .labs import Lab
from .problems import orthogonal, symmetric
from .test_gmres import compiled, outcome, solve, stagnating

SYSTEMS, N = 5, 12
pytestmark = pytest.mark.filterwarnings(
    "ignore:(overflow|invalid value) encountered:RuntimeWarning"
)


def systems(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """One product, then more and more of them; cycles of four end at different times."""
    random = np.random.default_rng(seed)
    matrices = [
        0.5 * np.eye(N),
        symmetric(random, [0.5] * 6 + [-1.0] * 6),
        symmetric(random, np.linspace(-0.5, 0.6, N)),
        0.5 * orthogonal(random, N),
        symmetric(random, np.linspace(-3.0, 0.8, N)),
    ]
    return np.stack(matrices), random.standard_normal((SYSTEMS, N))


def test_batch_equals_its_systems(lab: Lab) -> None:
    matrices, v = systems()
    together = outcome(lab, solve(lab, matrices, v, 4, batch_ndim=1, max_steps=300))
    assert not together[1].any()
    assert len(set(together[2].tolist())) == SYSTEMS
    for i in range(SYSTEMS):
        alone = outcome(lab, solve(lab, matrices[i], v[i], 4, max_steps=300))
        assert alone[2] == together[2][i]
        np.testing.assert_allclose(together[0][i], alone[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["matrix", "right"])
@pytest.mark.parametrize("victim", [0, 3])
def test_a_broken_system_harms_no_other(lab: Lab, bad: float, where: str, victim: int) -> None:
    matrices, v = systems(1)
    healthy = outcome(lab, solve(lab, matrices, v, 4, batch_ndim=1, max_steps=300))
    (matrices if where == "matrix" else v)[victim] = bad
    broken = outcome(lab, solve(lab, matrices, v, 4, batch_ndim=1, max_steps=300))
    others = np.arange(SYSTEMS) != victim
    assert broken[1][victim] == Result.NONFINITE
    assert np.isfinite(broken[0][victim]).all() == (where == "matrix")
    for got, expected in zip(broken, healthy, strict=True):
        np.testing.assert_array_equal(got[others], expected[others])


def test_zero_singular_and_stagnating_systems_harm_no_other(lab: Lab) -> None:
    shift, first = stagnating(N)
    matrices, v = systems(2)
    matrices[0], v[0] = shift, first
    v[1] = 0.0
    matrices[2] = np.eye(N)
    found = outcome(lab, solve(lab, matrices, v, 4, batch_ndim=1, max_steps=300))
    assert found[1].tolist() == [Result.STAGNATED, 0, Result.STAGNATED, 0, 0]
    assert found[2][1] == 0
    for i in range(SYSTEMS):
        alone = outcome(lab, solve(lab, matrices[i], v[i], 4, max_steps=300))
        assert (alone[1], alone[2]) == (found[1][i], found[2][i])
        np.testing.assert_allclose(found[0][i], alone[0], rtol=1e-9, atol=1e-12)


@pytest.mark.modes("jit", "graph", "xla")
def test_compiled_equals_eager(lab: Lab, mode: str) -> None:
    """With a system that is broken, one that is zero, and cycles that end at different times."""
    matrices, v = systems(3)
    matrices[1, 0, 0] = np.nan
    v[2] = 0.0
    eager = outcome(lab, solve(lab, matrices, v, 4, batch_ndim=1))
    staged = compiled(lab, mode, matrices, v, batch_ndim=1)
    np.testing.assert_array_equal(staged[1], eager[1])
    np.testing.assert_array_equal(staged[2], eager[2])
    np.testing.assert_allclose(staged[0], eager[0], rtol=1e-8, atol=1e-10)


@pytest.mark.modes("eager", "jit", "graph")
def test_one_system_without_a_batch_axis(lab: Lab, mode: str) -> None:
    matrices, v = systems(4)
    value, code, _, residual = compiled(lab, mode, matrices[4], v[4], max_steps=200)
    assert code == Result.CONVERGED
    assert residual <= 1e-9
    expected = np.linalg.solve(np.eye(N) - matrices[4], v[4])
    np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-8)


def test_two_batch_axes(lab: Lab) -> None:
    matrices, v = systems(5)
    flat = outcome(lab, solve(lab, matrices[:4], v[:4], 4, batch_ndim=1))
    square = outcome(
        lab, solve(lab, matrices[:4].reshape(2, 2, N, N), v[:4].reshape(2, 2, N), 4, batch_ndim=2)
    )
    assert square[1].shape == square[3].shape == (2, 2)
    np.testing.assert_array_equal(square[2].ravel(), flat[2])
    np.testing.assert_allclose(square[0].reshape(4, N), flat[0], rtol=1e-9, atol=1e-12)


def test_every_entry_a_system(lab: Lab) -> None:
    rates, v = np.array([[0.5, -1.5], [0.0, 3.0]]), np.array([[1.0, 2.0], [3.0, 0.0]])
    sol = solve(lab, rates[..., None, None], v[..., None], batch_ndim=2)
    np.testing.assert_allclose(lab.numpy(sol.value)[..., 0], v / (1 - rates), rtol=1e-12)
    np.testing.assert_array_equal(lab.numpy(sol.stats.steps), [[1, 1], [1, 0]])


def test_a_stopped_system_is_fed_its_own_result(lab: Lab) -> None:
    if lab.name == "jax":
        pytest.skip("the product is traced once; its later inputs cannot be looked at from Python")
    seen: list[np.ndarray] = []
    matrices, v = systems(6)
    m = lab.tensor(matrices)

    def watched(g):
        seen.append(np.array(lab.numpy(g)))
        return lab.xp.matmul(m, g[..., None])[..., 0]

    adjoint = lab.fpi.Implicit(solver=lab.fpi.GMRES(4), fallback=None, rtol=1e-9)
    sol = lab.fpi.adjoint_solve(
        watched, lab.tensor(v), adjoint=adjoint, batch_ndim=1, max_steps=300
    )
    steps, size = lab.numpy(sol.stats.steps), np.linalg.norm(v, axis=1)
    for i in range(SYSTEMS):
        for g in seen[steps[i] :]:
            np.testing.assert_allclose(g[i] * size[i], lab.numpy(sol.value)[i], rtol=1e-12)
