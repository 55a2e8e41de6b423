"""Arrays that can be written to: the answer is the caller's own, and nothing of his is changed."""

from typing import Any

import numpy as np
import pytest

from fpicore import MapError

from .labs import Lab
from .problems import SOLVERS

pytestmark = [pytest.mark.framework("numpy"), pytest.mark.framework("torch")]


@pytest.fixture(params=["numpy", "torch"])
def writable(request: pytest.FixtureRequest) -> Lab:
    pytest.importorskip(request.param)
    return Lab(request.param)


@pytest.mark.parametrize("batch_ndim", [0, 1])
def test_answer_is_not_the_start(writable: Lab, batch_ndim: int) -> None:
    start = writable.tensor(np.ones((2, 3)))
    value = writable.fpi.fixed_point(lambda z: z, start, batch_ndim=batch_ndim).value
    value += 1.0
    np.testing.assert_array_equal(writable.numpy(start), 1.0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_answer_is_not_what_the_map_returned(writable: Lab, solver: str) -> None:
    """f may return an array that the caller holds."""
    held = writable.tensor(np.ones(3))
    value = writable.fpi.fixed_point(lambda z: held, 0.0 * held, solver=SOLVERS[solver]).value
    value += 1.0
    np.testing.assert_array_equal(writable.numpy(held), 1.0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_map_that_returns_one_buffer_again_and_again(writable: Lab, solver: str) -> None:
    """An f that writes into its own output array gives what a pure one gives, or is refused."""
    buffer = writable.tensor(np.zeros(3))

    def f(z: Any) -> Any:
        buffer[:] = 0.5 * z + 1.0
        return buffer

    options = {"solver": SOLVERS[solver], "rtol": 1e-9, "max_steps": 100}
    zero = writable.tensor(np.zeros(3))
    pure = writable.fpi.fixed_point(lambda z: 0.5 * z + 1.0, zero, **options)
    try:
        found = writable.fpi.fixed_point(f, zero, **options)
    except MapError:
        return
    np.testing.assert_array_equal(writable.numpy(found.value), writable.numpy(pure.value))
    assert found.stats.evaluations == pure.stats.evaluations


@pytest.mark.parametrize("batch_ndim", [0, 1])
@pytest.mark.parametrize("solver", SOLVERS)
def test_map_that_writes_to_its_argument(writable: Lab, solver: str, batch_ndim: int) -> None:
    """f(z) − z would be zero at once, and every point look converged."""

    def f(z: Any) -> Any:
        z *= 0.5
        z += 1.0
        return z

    zero = writable.tensor(np.zeros((2, 3)))
    with pytest.raises((MapError, ValueError), match=r"in place|read-only"):
        writable.fpi.fixed_point(f, zero, solver=SOLVERS[solver], batch_ndim=batch_ndim)


@pytest.mark.parametrize("solver", SOLVERS)
def test_start_is_not_written_to(writable: Lab, solver: str) -> None:
    start = writable.tensor(np.zeros((2, 3)))
    writable.fpi.fixed_point(lambda z: 0.5 * z + 1.0, start, solver=SOLVERS[solver], batch_ndim=1)
    np.testing.assert_array_equal(writable.numpy(start), 0.0)
