"""Norms and small linear systems where the common way to them has a shorter one beside it."""

import warnings
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from fpicore import HostNumbers, Picard

from .labs import Lab

GRAM = np.array([[2.0, 1.0, 0.0], [1.0, 3.0, 0.5], [0.0, 0.5, 1.0]])


@pytest.mark.parametrize("way", ["private", "public"])
def test_a_singular_system_on_the_host_is_its_own(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "public":
        monkeypatch.setattr("fpicore._host._solve", None)
    ops, right = HostNumbers(1, 1e-16), np.array([1.0, 2.0, 3.0])
    matrices = np.stack([GRAM, np.zeros((3, 3)), np.full((3, 3), np.nan), np.eye(3)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ops.solve(matrices, right)
        alone = ops.solve(np.zeros((3, 3)), right)
    assert np.isnan(alone).all()
    assert np.isnan(found[1:3]).all()
    np.testing.assert_allclose(found[0], np.linalg.solve(GRAM, right), rtol=1e-14)
    np.testing.assert_array_equal(found[3], right)
    np.testing.assert_array_equal(found[0], ops.solve(GRAM, right))


@pytest.mark.framework("tensorflow")
def test_one_system_in_a_graph() -> None:
    tf: Any = pytest.importorskip("tensorflow")
    systems = import_module("fpicore_tensorflow._systems")
    solve = tf.function(systems.solved_by_qr, autograph=False)
    right = np.array([1.0, 2.0, 3.0])
    exact = np.linalg.solve(GRAM, right)
    np.testing.assert_allclose(solve(GRAM, right), exact, rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(
        systems.solved_by_elimination(tf.constant(GRAM), right), exact, rtol=1e-14, atol=1e-15
    )
    for scale in (1e-24, 1e24):  # whose squares are out of float32's range
        small = [tf.constant(scale * x, tf.float32) for x in (GRAM, right)]
        np.testing.assert_allclose(solve(*small), exact, rtol=1e-5, atol=1e-6)
    for matrix in (np.zeros((3, 3)), np.ones((3, 3)) * np.nan, np.diag([1.0, 0.0, 1.0])):
        assert not np.isfinite(np.sum(solve(matrix, right)))


@pytest.mark.modes("jit", "graph", "xla")
@pytest.mark.parametrize("few", [0, 2**16])
def test_both_sides_of_the_test_far_from_one(
    lab: Lab, fpi: Any, mode: str, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Squares of one system overflow, of another underflow; few is what TensorFlow widens."""
    if lab.name == "tensorflow":
        monkeypatch.setattr(import_module("fpicore_tensorflow._ops"), "_FEW", few)
    elif few:
        pytest.skip("there is one way")
    level = np.array([1e25, 1.0, 1e-25])
    start = lab.tensor(np.zeros((3, 4)), "float32")
    add = lab.tensor(level[:, None] * np.ones(4), "float32")

    def solve(add: Any) -> Any:
        sol = fpi.fixed_point(
            lambda z: 0.5 * z + add, start, solver=Picard(), max_steps=1, batch_ndim=1
        )
        return sol.stats.residual, sol.stats.tolerance

    residual, tolerance = lab.numpy(lab.compiled(solve, mode)(add))
    np.testing.assert_allclose(residual, level, rtol=1e-6)  # half of four equal entries
    np.testing.assert_allclose(tolerance, 1e-4 * 3.0 * level, rtol=1e-6)
