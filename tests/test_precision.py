"""Every dtype a state may have: norms without overflow, tolerances that it can meet, status."""

import warnings
from functools import cache
from typing import Any

import numpy as np
import pytest

from fpicore import PrecisionWarning, Result

from .labs import Lab
from .problems import SOLVERS

N = 5


def solve(lab: Lab, f: Any, z0: Any, **options: Any) -> list[np.ndarray]:
    """value, codes, residual."""
    sol = lab.fpi.fixed_point(f, z0, on_failure="ignore", **options)
    found = sol.value, sol.result.codes, sol.stats.residual
    return [np.asarray(part) for part in lab.numpy(found)]


@pytest.mark.parametrize("scale", [1e30, 1e-30, 1e35, 1e-31])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("batch_ndim", [0, 1])
def test_float32_far_from_one(lab: Lab, solver: str, scale: float, batch_ndim: int) -> None:
    """z = −½ z + s has z* = s/1.5; its squares overflow or underflow float32."""
    shift = lab.tensor(np.full((2, N), scale), "float32")
    value, codes, residual = solve(
        lab,
        lambda z: shift - 0.5 * z,
        lab.xp.zeros_like(shift),
        solver=SOLVERS[solver],
        rtol=1e-5,
        batch_ndim=batch_ndim,
    )
    assert not codes.any()
    np.testing.assert_allclose(value, scale / 1.5, rtol=2e-5)
    assert np.all(residual <= 1e-5 * scale * np.sqrt(2 * N))


@pytest.mark.modes("jit", "graph", "xla")
@pytest.mark.parametrize("scale", [1e30, 1e-30])
@pytest.mark.parametrize("solver", ["anderson", "broyden"])
def test_float32_far_from_one_compiled(lab: Lab, mode: str, solver: str, scale: float) -> None:
    value, codes = lab.numpy(_far(lab, mode, solver)(lab.tensor(np.full(N, scale), "float32")))
    assert codes == Result.CONVERGED
    np.testing.assert_allclose(value, scale / 1.5, rtol=2e-5)


@cache
def _far(lab: Lab, mode: str, solver: str) -> Any:
    """Compiled once for every scale."""

    def run(shift: Any) -> Any:
        sol = lab.fpi.fixed_point(
            lambda z: shift - 0.5 * z, lab.xp.zeros_like(shift), solver=SOLVERS[solver],
            rtol=1e-5, on_failure="ignore",
        )  # fmt: skip
        return sol.value, sol.result.codes

    return lab.compiled(run, mode)


@pytest.mark.parametrize("solver", ["anderson", "broyden"])
def test_mixed_scales_in_a_batch(lab: Lab, solver: str) -> None:
    """Systems of very different size: the small and the large get what they would get alone."""
    scales = np.array([[1e-30], [1.0], [1e30]])
    shift = lab.tensor(np.tile(scales, (1, N)), "float32")
    value, codes, _ = solve(
        lab, lambda z: shift - 0.5 * z, lab.xp.zeros_like(shift), solver=SOLVERS[solver],
        rtol=1e-5, batch_ndim=1,
    )  # fmt: skip
    assert not codes.any()
    np.testing.assert_allclose(value / scales, 1 / 1.5, rtol=2e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("batch_ndim", [0, 1])
def test_half_precision(lab: Lab, dtype: str, solver: str, batch_ndim: int) -> None:
    if lab.name == "numpy" and dtype == "bfloat16":
        pytest.skip("NumPy has no bfloat16")
    shift = lab.tensor(np.linspace(-1.0, 1.0, 2 * N).reshape(2, N), dtype)
    eps = {"float16": 2.0**-10, "bfloat16": 2.0**-7}[dtype]
    sol = lab.fpi.fixed_point(
        lambda z: shift - 0.5 * z,
        lab.xp.zeros_like(shift),
        solver=SOLVERS[solver],
        rtol=8 * eps,
        batch_ndim=batch_ndim,
    )
    assert sol.value.dtype == shift.dtype
    assert "16" not in str(getattr(sol.stats.residual, "dtype", "float"))
    assert np.all(lab.numpy(sol.converged))
    exact = lab.numpy(shift).astype(float) / 1.5
    np.testing.assert_allclose(lab.numpy(sol.value).astype(float), exact, atol=16 * eps)


def test_half_precision_sum_of_squares(lab: Lab) -> None:
    """4096 entries of 200: ‖z‖² = 1.6e8 is above float16's largest number, 65504."""
    zero = lab.tensor(np.zeros(4096), "float16")
    value, codes, _ = solve(lab, lambda z: 0.5 * z + 100.0, zero, rtol=0.01)
    assert codes == Result.CONVERGED
    np.testing.assert_allclose(value.astype(float), 200.0, rtol=0.02)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_rtol_is_raised_to_what_the_dtype_resolves(lab: Lab, fpi: Any, dtype: str) -> None:
    zero = lab.tensor(np.zeros(N), dtype)
    eps = float(np.finfo(dtype).eps)
    with pytest.warns(PrecisionWarning, match=r"expected rtol >= .*received rtol=1e-18") as caught:
        sol = fpi.fixed_point(lambda z: 1.0 - 0.25 * z, zero, rtol=1e-18)
    assert caught[0].filename == __file__
    assert bool(lab.numpy(sol.converged))
    size = np.linalg.norm(lab.numpy(sol.value).astype(float))
    assert float(lab.numpy(sol.stats.tolerance)) == pytest.approx(4 * eps * size, rel=1e-2)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_default_rtol_never_warns(lab: Lab, fpi: Any, dtype: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fpi.fixed_point(lambda z: 1.0 - 0.25 * z, lab.tensor(np.zeros(N), dtype))


def test_coarsest_leaf_decides(lab: Lab, fpi: Any) -> None:
    """A float64 leaf beside a float32 one: the tolerance is float32's, both keep their dtype."""
    zero = {"a": lab.tensor(np.zeros(N)), "b": lab.tensor(np.zeros(N), "float32")}
    with pytest.warns(PrecisionWarning):
        sol = fpi.fixed_point(
            lambda z: {"a": 1.0 - 0.25 * z["a"], "b": 1.0 - 0.5 * z["b"]}, zero, rtol=1e-12
        )
    assert sol.value["a"].dtype == zero["a"].dtype
    assert sol.value["b"].dtype == zero["b"].dtype
    np.testing.assert_allclose(lab.numpy(sol.value)["b"], 1 / 1.5, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("batch_ndim", [0, 1])
def test_complex_state(lab: Lab, fpi: Any, dtype: str, solver: str, batch_ndim: int) -> None:
    shift = np.exp(1j * np.arange(2 * N)).reshape(2, N)
    slope = 0.6 * np.exp(0.7j)
    s, m = lab.tensor(shift, dtype), lab.tensor(np.array(slope), dtype)
    sol = fpi.fixed_point(
        lambda z: m * z + s, 0.0 * s, solver=SOLVERS[solver], rtol=1e-5, batch_ndim=batch_ndim
    )
    assert np.all(lab.numpy(sol.converged))
    assert not np.iscomplexobj(lab.numpy(sol.stats.residual))
    np.testing.assert_allclose(lab.numpy(sol.value), shift / (1 - slope), rtol=1e-4)


@pytest.mark.gradients
@pytest.mark.modes("eager", "jit", "graph")
def test_gradient_through_a_complex_state(lab: Lab, mode: str) -> None:
    """Real θ, complex z = i·0.6·z + θ·c, loss Σ |z|²: free of any convention for the gradient."""
    slope, c = 0.6j, np.array([1.0 + 1.0j, 2.0 - 0.5j])

    def loss(theta: Any) -> Any:
        wide = lab.tensor(c) * _complex(lab, theta)
        sol = lab.fpi.fixed_point(
            lambda z: lab.tensor(np.array(slope)) * z + wide, 0.0 * wide, rtol=1e-12
        )
        return lab.xp.sum(lab.xp.abs(sol.value) ** 2)

    theta = np.array([0.7, -0.3])
    (found,) = lab.gradient(loss, theta, mode=mode)
    np.testing.assert_allclose(found, 2 * theta * np.abs(c / (1 - slope)) ** 2, rtol=1e-9)


def _complex(lab: Lab, x: Any) -> Any:
    if lab.name == "tensorflow":
        import tensorflow as tf

        return tf.cast(x, tf.complex128)
    return x + 0j


@pytest.mark.gradients
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_gradient_in_half_precision(lab: Lab, dtype: str) -> None:
    def loss(theta: Any) -> Any:
        sol = lab.fpi.fixed_point(lambda z: theta - 0.5 * z, lab.xp.zeros_like(theta), rtol=0.05)
        return lab.xp.sum(sol.value)

    (found,) = lab.numpy(tuple(lab.gradient_function(loss)(lab.tensor(np.ones(N), dtype))))
    np.testing.assert_allclose(found.astype(float), 1 / 1.5, rtol=0.05)
