"""The operations for accelerators, run on the CPU: the same answers as those for the CPU."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import fpicore_torch as fpi  # noqa: E402
from fpicore_torch import _device, _programs  # noqa: E402
from fpicore_torch._backend import TorchBackend  # noqa: E402
from fpicore_torch._device import TorchDeviceOps  # noqa: E402

from .accelerators import Stand  # noqa: E402

pytestmark = pytest.mark.framework("torch")

SOLVERS = [
    fpi.Picard(),
    fpi.Picard(0.7),
    fpi.Anderson(),
    fpi.Anderson(2, 0.8),
    fpi.Anderson(filtering=0.3),
    fpi.Broyden(4),
    fpi.Broyden(line_search=True),
    fpi.Auto(4),
]


@pytest.fixture
def on_device(monkeypatch):
    """Let the backend treat the CPU as an accelerator."""

    def switch() -> list[TorchDeviceOps]:
        made = []

        def ops(self, leaves, batch_ndim):
            made.append(TorchDeviceOps(batch_ndim, 2.0**-23, leaves[0].device))
            return made[-1]

        monkeypatch.setattr(TorchBackend, "ops", ops)
        return made

    return switch


def layer(size: int, dtype):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(size, size, generator=generator, dtype=dtype) * (0.6 / size**0.5)
    shift = torch.randn(5, size, generator=generator, dtype=dtype)
    return weight.requires_grad_(), shift


def solve(solver, batch_ndim, dtype, rtol):
    weight, shift = layer(8, dtype)
    sol = fpi.fixed_point(
        lambda z: {"a": torch.tanh(z["a"] @ weight + shift), "b": 0.3 * z["b"] + z["a"].sum(-1)},
        {"a": torch.zeros(5, 8, dtype=dtype), "b": torch.zeros(5, dtype=dtype)},
        solver=solver,
        rtol=rtol,
        batch_ndim=batch_ndim,
        max_steps=400,
    )
    (gradient,) = torch.autograd.grad(sol.value["a"].square().sum() + sol.value["b"].sum(), weight)
    return sol, gradient


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
@pytest.mark.parametrize("batch_ndim", [0, 1])
def test_same_answers_as_on_the_host(solver, batch_ndim, on_device):
    expected, expected_gradient = solve(solver, batch_ndim, torch.float64, 1e-11)
    made = on_device()
    sol, gradient = solve(solver, batch_ndim, torch.float64, 1e-11)
    assert made
    assert isinstance(sol.stats.residual, torch.Tensor)
    assert torch.as_tensor(sol.converged).all()
    for key in ("a", "b"):
        torch.testing.assert_close(sol.value[key], expected.value[key], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-8, atol=1e-9)
    steps = torch.as_tensor(sol.stats.steps) - torch.as_tensor(expected.stats.steps)
    assert steps.abs().max() <= 3  # products are summed in another order


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_a_broken_system_harms_no_other(solver, on_device):
    slope = torch.tensor([[0.5], [float("nan")], [-0.9], [10.0]])
    on_device()
    with pytest.warns(fpi.ConvergenceWarning):
        sol = fpi.fixed_point(
            lambda z: slope * z + 1.0, torch.zeros(4, 3), solver=solver, batch_ndim=1, max_steps=300
        )
    assert sol.converged.tolist()[0]
    assert sol.converged.tolist()[2]
    assert sol.result.codes.tolist()[1] == fpi.Result.NONFINITE
    assert torch.isfinite(sol.value).all()
    torch.testing.assert_close(sol.value[0], torch.full((3,), 2.0), rtol=1e-3, atol=0.0)


@pytest.mark.parametrize("batch_ndim", [0, 1])
def test_gmres_as_on_the_host(batch_ndim, on_device):
    """Cycles of six, one system that is not finite, one whose right-hand side is zero."""
    generator = torch.Generator().manual_seed(1)
    matrix = 0.3 * torch.randn(5, 8, 8, generator=generator, dtype=torch.float64)
    v = torch.randn(5, 8, generator=generator, dtype=torch.float64)
    if batch_ndim:
        matrix[1, 0, 0] = float("nan")
        v[2] = 0.0

    def run():
        return fpi.adjoint_solve(
            lambda g: {"a": (matrix @ g["a"][..., None])[..., 0], "b": -1.5 * g["b"]},
            {"a": v, "b": v[:, 0]},
            adjoint=fpi.Implicit(solver=fpi.GMRES(6), rtol=1e-9),
            batch_ndim=batch_ndim,
            max_steps=300,
            on_failure="ignore",
        )

    expected = run()
    made = on_device()
    sol = run()
    assert made
    assert isinstance(sol.stats.residual, torch.Tensor)
    codes, steps = torch.as_tensor(sol.result.codes), torch.as_tensor(sol.stats.steps)
    assert codes.tolist() == torch.as_tensor(expected.result.codes).tolist()
    assert codes.any() == batch_ndim
    assert (steps - torch.as_tensor(expected.stats.steps)).abs().max() <= 1
    for key in ("a", "b"):
        torch.testing.assert_close(sol.value[key], expected.value[key], rtol=1e-7, atol=1e-7)


def test_norms_of_float32_do_not_overflow(on_device):
    on_device()
    sol = fpi.fixed_point(lambda z: 0.5 * z + 1e30, torch.zeros(3), solver=fpi.Picard(), rtol=1e-5)
    assert bool(sol.converged)
    torch.testing.assert_close(sol.value, torch.full((3,), 2e30), rtol=1e-4, atol=0.0)


def test_trace_callback_and_budget(on_device):
    """As on the host: numbers leave the device for the callback alone."""

    def run():
        seen = []
        slopes = torch.tensor([[0.5], [0.0], [0.9]], dtype=torch.float64)
        sol = fpi.fixed_point(
            lambda z: slopes * z + 1.0, 0 * slopes, solver=fpi.Picard(), rtol=1e-3, batch_ndim=1,
            max_steps=20, budget=7, on_failure="ignore", trace=True, callback=seen.append,
        )  # fmt: skip
        return sol, seen

    expected, expected_seen = run()
    made = on_device()
    sol, seen = run()
    assert made
    torch.testing.assert_close(sol.stats.trace, expected.stats.trace, equal_nan=True)
    assert sol.stats.steps.tolist() == expected.stats.steps.tolist() == [7, 1, 7]
    assert [p.step for p in seen] == [p.step for p in expected_seen] == list(range(8))
    assert all(type(p.residual) is np.ndarray for p in seen)


class Reads(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts what makes the host wait for a device: values of tensors that Python asks for."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.count += name in ("_local_scalar_dense", "is_nonzero", "equal", "nonzero")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("solver", [*SOLVERS, fpi.Anderson(kind=1), fpi.Broyden(3, "bad")], ids=str)
@pytest.mark.parametrize("batch_ndim", [0, 1])
def test_no_step_waits_for_the_device(solver, batch_ndim, on_device, monkeypatch):
    """The flag is read behind the next step; answer and counts are those of a test at each step."""
    weight, shift = layer(8, torch.float32)
    calls = []

    def f(z):
        calls.append(reads.count)
        return torch.tanh(z @ weight.detach() + shift)

    def run():
        calls.clear()
        with torch.no_grad(), reads:
            sol = fpi.fixed_point(f, torch.zeros(5, 8), solver=solver, batch_ndim=batch_ndim)
        return sol, list(calls)

    on_device()
    reads = Reads()
    expected, counted = run()
    stand = Stand()
    monkeypatch.setattr(_device, "accelerator", lambda device: stand)
    sol, seen = run()
    assert len(seen) == len(counted) + _programs.AHEAD == sol.stats.evaluations + _programs.AHEAD
    assert min(stand.behind) > _programs.AHEAD
    assert seen[1] == seen[-1]  # the first evaluation looks for random numbers
    assert counted[1] < counted[-1]
    assert torch.equal(sol.value, expected.value)
    for one, other in zip(sol.stats[:4], expected.stats[:4], strict=True):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))


@pytest.mark.parametrize("solver", [fpi.Anderson(2), fpi.Broyden(3)], ids=str)
def test_memory_after_steps_behind_the_last(solver, on_device, monkeypatch):
    """What Implicit(reuse=True) takes from the solve is not touched by a step too many."""
    weight, shift = layer(8, torch.float64)

    def run():
        sol = fpi.fixed_point(
            lambda z: torch.tanh(z @ weight + shift),
            torch.zeros(5, 8, dtype=torch.float64),
            solver=solver,
            adjoint=fpi.Implicit(reuse=True),
        )
        gradient = torch.autograd.grad(sol.value.sum(), weight)[0]
        assert sol.backward is not None
        assert sol.backward.stats is not None
        return gradient, sol.backward.stats.steps

    on_device()
    expected, steps = run()
    monkeypatch.setattr(_device, "accelerator", lambda device: Stand())
    gradient, again = run()
    assert torch.equal(gradient, expected)
    assert torch.equal(torch.as_tensor(again), torch.as_tensor(steps))


@pytest.mark.parametrize(("eps", "roomy"), [(2.0**-23, True), (2.0**-52, False)])
def test_whether_squares_may_overflow(eps, roomy):
    assert TorchDeviceOps(0, eps, torch.device("cpu")).roomy == roomy
