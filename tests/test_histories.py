"""Histories of eager frameworks: what is not in use is neither read nor counted."""

from typing import Any

import numpy as np
import pytest

from fpicore import Anderson, ArrayOps, Broyden

from .labs import Lab
from .problems import SOLVERS

pytestmark = [pytest.mark.framework("numpy"), pytest.mark.framework("torch")]


class Kind:
    """The Ops of a framework, and its arrays."""

    def __init__(self, name: str, batch_ndim: int) -> None:
        pytest.importorskip(name)
        self.lab = Lab(name)
        if name == "numpy":
            self.ops: Any = ArrayOps(batch_ndim, 2.0**-23)
        else:
            from fpicore_torch._ops import TorchOps

            self.ops = TorchOps(batch_ndim, 2.0**-23)

    def random(self, seed: int, *shape: int) -> Any:
        return self.lab.tensor(np.random.default_rng(seed).standard_normal(shape))


@pytest.fixture(params=["numpy", "torch"])
def framework(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("batch_ndim", [0, 1, 2])
def test_slots_not_in_use_are_zero_whatever_their_memory_holds(
    framework: str, batch_ndim: int
) -> None:
    kind = Kind(framework, batch_ndim)
    leaf = kind.random(0, 2, 3, 5)
    history = kind.ops.history(leaf, 4)
    history.whole[...] = float("nan")
    weights = kind.ops.numbers(leaf, 1.0, (4,))
    assert not np.any(kind.ops.project(history, leaf))
    assert not np.any(kind.lab.numpy(kind.ops.combine(weights, history, leaf)))
    history = kind.ops.store(history, 2.0, leaf)  # 0 and 1 were left out
    own = kind.ops.dot(leaf, leaf)
    np.testing.assert_allclose(
        kind.ops.project(history, leaf),
        np.stack([0.0 * np.asarray(own), 0.0 * np.asarray(own), own, 0.0 * np.asarray(own)], -1),
    )
    mixed = kind.ops.combine(2.0 * weights, history, leaf)
    np.testing.assert_allclose(kind.lab.numpy(mixed), 2.0 * kind.lab.numpy(leaf))


def test_difference_is_written_to_its_slot(framework: str) -> None:
    kind = Kind(framework, 0)
    a, b = kind.random(1, 3, 5), kind.random(2, 3, 5)
    history = kind.ops.store(kind.ops.history(a, 2), 0.0, a)
    found = kind.ops.difference(history, 1.0, a, b)
    assert found is history.slots[1]
    np.testing.assert_array_equal(kind.lab.numpy(found), kind.lab.numpy(a) - kind.lab.numpy(b))
    history = kind.ops.store(history, 1.0, found)
    expected = [float((kind.lab.numpy(x) * kind.lab.numpy(b)).sum()) for x in (a, found)]
    np.testing.assert_allclose(kind.ops.project(history, b), expected)


@pytest.mark.parametrize("solver", [*SOLVERS.values(), Anderson(2), Broyden(2)], ids=str)
def test_what_memory_held_before_does_not_matter(
    framework: str, solver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Buffers filled with NaN, a state that is too large for the way through arrays."""
    kind = Kind(framework, 0)
    slopes = kind.lab.tensor(np.linspace(-0.7, 0.7, 2**15 + 1))
    start = 0.0 * slopes
    options = {"solver": solver, "rtol": 1e-9, "max_steps": 200}
    expected = kind.lab.fpi.fixed_point(lambda z: slopes * z + 1.0, start, **options)
    for ops in {ArrayOps, type(kind.ops)}:
        plain = ops.history

        def spoilt(self: Any, leaf: Any, length: int, plain: Any = plain) -> Any:
            history = plain(self, leaf, length)
            history.whole[...] = float("nan")
            return history

        monkeypatch.setattr(ops, "history", spoilt)
    found = kind.lab.fpi.fixed_point(lambda z: slopes * z + 1.0, start, **options)
    assert found.stats.evaluations == expected.stats.evaluations
    np.testing.assert_array_equal(kind.lab.numpy(found.value), kind.lab.numpy(expected.value))
