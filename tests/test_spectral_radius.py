"""spectral_radius against dense eigenvalues."""

from typing import Any

import numpy as np
import pytest

from fpicore import ConvergenceError, ConvergenceWarning, DerivativeError, InputError
from fpicore._diagnostics import chirp

from .labs import Lab
from .problems import matvec, symmetric

RANDOM = np.random.default_rng(17)
ROTATION = np.kron(np.diag([1.1, 0.5, 0.3]), np.array([[0.6, -0.8], [0.8, 0.6]]))
BASIS = RANDOM.standard_normal((6, 6)) + 2 * np.eye(6)
SPECTRA = {
    "symmetric": symmetric(RANDOM, [0.9, 0.5, 0.1, -0.3, -0.4, -0.8]),
    "non-normal": np.triu(3 * RANDOM.standard_normal((6, 6)), 1)
    + np.diag([0.7, 0.2, 0.0, 0.0, 0.0, -0.9]),
    "complex": BASIS @ ROTATION @ np.linalg.inv(BASIS),
    "opposite": BASIS @ np.diag([0.8, -0.8, 0.5, 0.2, 0.0, 0.0]) @ np.linalg.inv(BASIS),
    "defective": np.diag([0.5, 0.5, 0.1, 0.2, 0.3, -0.2]) + np.outer(np.eye(6)[0], np.eye(6)[1]),
    "nilpotent": np.eye(6, k=3),
    "zero": np.zeros((6, 6)),
    "identity": 1.5 * np.eye(6),
}
MATRICES = np.stack(list(SPECTRA.values()))
EXACT = np.array([0.9, 0.9, 1.1, 0.8, 0.5, 0.0, 0.0, 1.5])


def radius(lab: Lab, **options: Any) -> Any:
    """Value, residual, tolerance, steps and codes at z = 0 of tanh(M z)."""

    def call(matrix: Any) -> Any:
        f = lambda z, m: lab.xp.tanh(matvec(lab.xp, m, z))  # noqa: E731
        sol = lab.fpi.spectral_radius(f, 0 * matrix[..., 0], (matrix,), **options)
        return sol.value, sol.stats.residual, sol.stats.tolerance, sol.stats.steps, sol.result.codes

    return call


@pytest.mark.gradients
def test_spectra(lab: Lab, mode: str) -> None:
    options: Any = {"rtol": 1e-8, "batch_ndim": 1, "on_failure": "ignore"}
    value, residual, tolerance, steps, codes = lab.run(radius(lab, **options), MATRICES, mode=mode)
    # Rounding moves double eigenvalues, of the defective and the nilpotent matrix, by its root.
    np.testing.assert_allclose(value, EXACT, rtol=1e-7, atol=1e-6)
    np.testing.assert_array_equal(codes, 0)
    assert (residual <= tolerance).all()
    assert (steps <= 7).all()
    assert steps[-2] == steps[-1] == 1


@pytest.mark.gradients
@pytest.mark.parametrize("name", SPECTRA)
def test_batch_is_one_by_one(lab: Lab, name: str) -> None:
    index = list(SPECTRA).index(name)
    together = lab.run(radius(lab, batch_ndim=1, on_failure="ignore"), MATRICES, mode=lab.swift)
    alone = lab.run(radius(lab, on_failure="ignore"), SPECTRA[name])
    np.testing.assert_allclose(alone[0], together[0][index], rtol=1e-7, atol=1e-6)
    assert alone[3] == together[3][index]


@pytest.mark.gradients
def test_random_matrices(lab: Lab) -> None:
    matrices = np.random.default_rng(5).standard_normal((30, 25, 25)) / 5
    value, _, _, _, codes = lab.run(
        radius(lab, batch_ndim=1, rtol=1e-9, max_steps=2000), matrices, mode=lab.swift
    )
    np.testing.assert_array_equal(codes, 0)
    np.testing.assert_allclose(value, abs(np.linalg.eigvals(matrices)).max(-1), rtol=1e-7)


@pytest.mark.gradients
@pytest.mark.parametrize("history", [8, 20])
def test_restarts(lab: Lab, history: int) -> None:
    random = np.random.default_rng(3)
    matrix = symmetric(random, [*np.linspace(-0.8, 0.88, 79), 0.9])
    found = lab.run(radius(lab, history=history, rtol=1e-3, max_steps=1000), matrix)
    assert found[0] == pytest.approx(0.9, rel=1e-3)
    assert history < found[3]


@pytest.mark.gradients
def test_residual_bounds_the_error_before_convergence(lab: Lab) -> None:
    random = np.random.default_rng(4)
    matrices = np.stack([symmetric(random, np.linspace(-0.9, 1.0, 40)) for _ in range(4)])
    options: Any = {"rtol": 1e-6, "max_steps": 6, "on_failure": "ignore", "batch_ndim": 1}
    value, residual, tolerance, steps, codes = lab.run(radius(lab, **options), matrices)
    nearest = abs(value[:, None] - abs(np.linalg.eigvalsh(matrices))).min(-1)
    assert (nearest <= residual).all()
    assert (residual > tolerance).all()
    np.testing.assert_array_equal(codes, 1)
    np.testing.assert_array_equal(steps, 6)


@pytest.mark.gradients
def test_residual_is_that_of_the_ritz_pair(lab: Lab) -> None:
    random = np.random.default_rng(4)
    matrix = symmetric(random, np.linspace(-0.7, 1.0, 40))
    found = lab.run(radius(lab, max_steps=6, on_failure="ignore"), matrix)
    krylov = [chirp(np.arange(1, 41)) / 2**31]
    for _ in range(5):
        krylov.append(matrix @ krylov[-1])
    basis = np.linalg.qr(np.stack(krylov, 1))[0]
    ritz, vectors = np.linalg.eigh(basis.T @ matrix @ basis)
    outer = np.argmax(abs(ritz))
    x = basis @ vectors[:, outer]
    assert found[0] == pytest.approx(abs(ritz[outer]), rel=1e-3)
    assert found[1] == pytest.approx(np.linalg.norm(matrix @ x - ritz[outer] * x), rel=1e-6)


@pytest.mark.gradients
def test_neighbour_that_ends_at_once_changes_nothing(lab: Lab) -> None:
    random = np.random.default_rng(4)
    matrix = symmetric(random, np.linspace(-0.7, 1.0, 40))
    call = radius(lab, rtol=0.5, batch_ndim=1)
    pair = lab.run(call, np.stack([matrix, 0 * matrix]))
    alone = lab.run(call, matrix[None])
    np.testing.assert_array_equal(pair[3], [5, 1])
    assert alone[3] == 5
    np.testing.assert_allclose(pair[0][0], alone[0][0], rtol=1e-12)


@pytest.mark.gradients
def test_nan_stays_in_its_system(lab: Lab) -> None:
    function = radius(lab, batch_ndim=1, on_failure="ignore")
    broken = MATRICES.copy()
    broken[2, 3, 3] = np.nan
    clean, found = lab.run(function, MATRICES), lab.run(function, broken)
    assert np.isnan(found[0][2])
    assert found[4][2] == 2
    for one, other in zip(clean, found, strict=True):
        np.testing.assert_array_equal(np.delete(one, 2), np.delete(other, 2))


@pytest.mark.gradients
@pytest.mark.parametrize("scale", [1.0, 1e-25])
@pytest.mark.parametrize(
    ("dtype", "rtol", "chosen"), [("float32", 1e-4, [0, 2, 3]), ("bfloat16", 0.05, [0, 7])]
)
def test_narrow_dtypes(
    lab: Lab, fpi: Any, dtype: str, rtol: float, chosen: list[int], scale: float
) -> None:
    matrix = lab.tensor(scale * MATRICES[chosen], dtype)
    f = lambda z: matvec(lab.xp, matrix, z)  # noqa: E731
    sol = fpi.spectral_radius(f, matrix[..., 0], rtol=1e-5, batch_ndim=1)
    np.testing.assert_allclose(lab.numpy(sol.value), scale * EXACT[chosen], rtol=rtol)


@pytest.mark.gradients
def test_complex_states(lab: Lab, fpi: Any) -> None:
    random = np.random.default_rng(4)
    matrix = random.standard_normal((9, 9)) + 1j * random.standard_normal((9, 9))
    m = lab.tensor(matrix)
    sol = fpi.spectral_radius(lambda z: matvec(lab.xp, m, z), 0 * m[0], rtol=1e-9)
    assert float(lab.numpy(sol.value)) == pytest.approx(abs(np.linalg.eigvals(matrix)).max())
    conj = lab.xp.conj if lab.name != "tensorflow" else __import__("tensorflow").math.conj
    f = lambda z: 0.3 * z - 0.5 * conj(z)  # noqa: E731  real part × −0.2, imaginary × 0.8
    sol = fpi.spectral_radius(f, 0 * m[0], rtol=1e-9)
    assert float(lab.numpy(sol.value)) == pytest.approx(0.8)


@pytest.mark.gradients
def test_nested_is_flat(lab: Lab, fpi: Any) -> None:
    random = np.random.default_rng(4)
    matrix = random.standard_normal((12, 12))
    m = lab.tensor(matrix)

    def f(z: Any) -> Any:
        flat = lab.xp.reshape(z[0], (6,))
        new = matvec(lab.xp, m[:, :6], flat) + matvec(lab.xp, m[:, 6:], z[1]["b"])
        return lab.xp.reshape(new[:6], (2, 3)), {"b": new[6:]}

    nested = fpi.spectral_radius(f, (m[:2, :3], {"b": m[0, :6]}), max_steps=10, on_failure="ignore")
    flat = fpi.spectral_radius(
        lambda z: matvec(lab.xp, m, z), m[0], max_steps=10, on_failure="ignore"
    )
    for one, other in ((nested.value, flat.value), (nested.stats.residual, flat.stats.residual)):
        np.testing.assert_allclose(lab.numpy(one), lab.numpy(other), rtol=1e-9)


@pytest.mark.gradients
def test_radius_carries_no_derivative(lab: Lab) -> None:
    def loss(matrix: Any) -> Any:
        return radius(lab)(matrix)[0] + lab.xp.sum(matrix)

    matrix = SPECTRA["symmetric"]
    np.testing.assert_array_equal(lab.gradient(loss, matrix, mode=lab.swift)[0], np.ones((6, 6)))


def test_start_is_orthogonal_to_no_wave() -> None:
    i = np.arange(1, 10_001)
    start = chirp(i) / 2**31
    assert 0.5 <= start.min() < 0.51 < 1.49 < start.max() < 1.5
    share = abs(np.fft.fft(start)) / np.linalg.norm(start) / len(i) ** 0.5
    assert share[0] > 0.9
    assert share.min() > 1e-5
    assert np.median(share) > 1e-3
    narrow = i.astype(np.uint32)
    np.testing.assert_array_equal(chirp(narrow * np.uint32(1)), chirp(i))


@pytest.mark.gradients
def test_failure_and_bad_input(lab: Lab, fpi: Any) -> None:
    z, f = lab.tensor(np.ones(4)), lambda z: z * z
    hard = lab.tensor(np.eye(40, k=1) + 0.1)
    g = lambda z: matvec(lab.xp, hard, z)  # noqa: E731
    with pytest.warns(ConvergenceWarning, match="spectral_radius did not converge: MAX_STEPS"):
        fpi.spectral_radius(g, hard[0], max_steps=2)
    with pytest.raises(ConvergenceError, match="spectral_radius"):
        fpi.spectral_radius(g, hard[0], max_steps=2, on_failure="raise")
    for options in ({"rtol": 0.0}, {"rtol": 2.0}, {"max_steps": 0}, {"history": 7}):
        with pytest.raises(InputError, match=r"expected .*received"):
            fpi.spectral_radius(f, z, **options)
    with pytest.raises(TypeError):
        fpi.spectral_radius(f, z, key=1)


@pytest.mark.only("numpy")
def test_numpy_refuses(lab: Lab, fpi: Any) -> None:
    with pytest.raises(DerivativeError, match="expected a framework that differentiates"):
        fpi.spectral_radius(np.tanh, np.ones(3))
