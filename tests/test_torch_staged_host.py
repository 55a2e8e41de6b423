"""PyTorch: staged solves on the CPU, whose numbers lie on the host between programs.

Programs run as FX graphs: inductor takes seconds.
"""

import importlib
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import fpicore_torch as fpi  # noqa: E402
from fpicore_torch import _frozen, _programs, _staged  # noqa: E402
from fpicore_torch._packing import Packing  # noqa: E402

from .torch_staged import Layer, both, check, check_independence, given, start  # noqa: E402

pytestmark = pytest.mark.framework("torch")


@pytest.fixture(autouse=True)
def graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_staged, "TOGETHER", {"compiled": 2})
    monkeypatch.setattr(_programs, "compiled", lambda graph, examples: graph.forward)


CASES = [
    (fpi.Picard(), 0),
    (fpi.Anderson(2, 0.9), 1),
    (fpi.Broyden(4, "bad", scaled=True), 1),
]


@pytest.mark.parametrize(("solver", "batch_ndim"), CASES, ids=str)
def test_as_the_eager_step(solver: Any, batch_ndim: int) -> None:
    layer = Layer()
    sol = check(layer, fpi.Staged(layer), given(), solver=solver, batch_ndim=batch_ndim)
    eager = both(layer, given(), layer.weight, solver=solver, batch_ndim=batch_ndim)[0]
    for name in ("steps", "evaluations", "residual", "tolerance"):
        there, here = (getattr(s.stats, name) for s in (eager, sol))
        assert type(here) is type(there), name
        if isinstance(here, torch.Tensor):
            assert (here.dtype, here.shape) == (there.dtype, there.shape), name


@pytest.mark.parametrize(
    ("adjoint", "batch_ndim"),
    [
        (fpi.Neumann(4), 1),
        (fpi.Implicit(reuse=True), 0),
        (fpi.Implicit(solver=fpi.GMRES(3)), 1),
        (fpi.Implicit(solver=fpi.Picard(), max_steps=12, rtol=1e-11), 1),
    ],
    ids=str,
)
def test_adjoints(adjoint: Any, batch_ndim: int) -> None:
    """The last one fails, and is taken up by its fallback."""
    layer = Layer()
    check(layer, fpi.Staged(layer), given(), adjoint=adjoint, batch_ndim=batch_ndim)


@pytest.mark.parametrize("batch_ndim", [0, 1])
def test_trace_callback_and_budget(batch_ndim: int) -> None:
    layer, told = Layer(), []
    for f in (layer, fpi.Staged(layer)):
        seen: list[Any] = []
        options = {"trace": True, "budget": 5, "on_failure": "ignore", "callback": seen.append}
        with torch.no_grad():
            sol = fpi.fixed_point(
                f, start(), (given(),), rtol=1e-12, batch_ndim=batch_ndim, **options
            )
        residuals = np.array([p.residual for p in seen])
        told.append((torch.as_tensor(sol.stats.trace).numpy(), [p.step for p in seen], residuals))
    assert told[0][1] == told[1][1] == list(range(6))
    for there, here in ((told[0][i], told[1][i]) for i in (0, 2)):
        np.testing.assert_allclose(here, there, rtol=1e-6)


def test_broken_system() -> None:
    check_independence()


@pytest.mark.parametrize(("dtype", "size", "batch_ndim"), [
    (torch.float32, 1e25, 0), (torch.float32, 1e25, 1), (torch.bfloat16, 1e-25, 1),
    (torch.complex64, 1e25, 0), (torch.float64, 1e200, 1),
], ids=str)  # fmt: skip
def test_dtypes_and_sizes(dtype: Any, size: float, batch_ndim: int) -> None:
    """Squares leave the range of the dtype."""
    shift = torch.full((3,), size, dtype=dtype, requires_grad=True)
    f = fpi.Staged(lambda z, x: 0.5 * z + x)
    sol = fpi.fixed_point(f, torch.zeros(3, dtype=dtype), (shift,), batch_ndim=batch_ndim)
    (found,) = torch.autograd.grad(sol.value.abs().sum() * size, shift)
    assert torch.as_tensor(sol.converged).all()
    expected, slack = torch.full((3,), 2.0, dtype=dtype), 0.1 if dtype is torch.bfloat16 else 1e-3
    torch.testing.assert_close(sol.value / size, expected, rtol=slack, atol=0.0)
    torch.testing.assert_close(found / size, expected, rtol=slack, atol=0.0)


def test_a_search_for_modules_does_not_meet_programs() -> None:
    layer = Layer()
    f = fpi.Staged(layer)
    check(layer, f, given())
    assert list(_frozen.modules(f)) == [layer]


def test_what_cannot_be_entered_by_its_own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations that inductor's C++ cannot call are called by Python."""
    monkeypatch.undo()
    asked = []

    def make(graph: Any, examples: Any, options: Any) -> Any:
        asked.append("cpp_wrapper" in options)
        if asked[-1]:
            raise NotImplementedError
        return graph.forward

    monkeypatch.setattr(importlib.import_module("torch._inductor"), "compile", make)
    sol = fpi.fixed_point(fpi.Staged(lambda z: 0.5 * z + 1.0), torch.zeros(3), rtol=1e-5)
    torch.testing.assert_close(sol.value, torch.full((3,), 2.0), rtol=1e-4, atol=0.0)
    assert asked == [True, False]


def test_numbers_come_back_as_they_were() -> None:
    numbers = (3.0, True, np.array([1.0, 2.0]), np.array([True, False]))
    packing, tensors = Packing.of((torch.ones(2), *numbers), (), torch.float64, host=True)
    z, number, flag, vector, mask = packing.carry(tensors, host=True)
    assert torch.equal(z, torch.ones(2))
    assert (number, flag) == (3.0, True)
    assert type(flag) is bool
    np.testing.assert_array_equal(vector, numbers[2])
    np.testing.assert_array_equal(mask, numbers[3], strict=True)
