"""PyTorch: dropout and batch normalisation inside f."""

import contextlib
import functools
import warnings
from typing import Any, TypeAlias

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import nn  # noqa: E402

import fpicore_torch as fpi  # noqa: E402

pytestmark = pytest.mark.framework("torch")
Tensor: TypeAlias = Any
OPTIONS: dict[str, Any] = {"rtol": 1e-12, "max_steps": 300, "batch_ndim": 0}
DROP = nn.Dropout(0.5)
NORM: Any = nn.BatchNorm1d(3, dtype=torch.float64)


def zero() -> Tensor:
    return torch.zeros(4, 3, dtype=torch.float64)


def leaf() -> Tensor:
    return torch.linspace(-1.0, 1.0, 12, dtype=torch.float64).view(4, 3).requires_grad_()


def with_dropout(z: Tensor, theta: Tensor) -> Tensor:
    return torch.sin(0.4 * DROP(z)) * theta + 0.1


def masked(theta: Tensor, seed: int) -> Tensor:
    """The same with the mask drawn once."""
    torch.manual_seed(seed)
    mask, z = DROP(torch.ones_like(zero())), zero()
    for _ in range(150):
        z = torch.sin(0.4 * mask * z) * theta + 0.1
    return z


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("adjoint", [None, fpi.Implicit(order=2), fpi.Unrolled()], ids=str)
def test_dropout_has_one_mask(order: int, adjoint: Any) -> None:
    theta, answers = leaf(), []
    # The derivatives of unrolled steps arrive with the steps: not with the few of the default.
    options = {**OPTIONS, "solver": fpi.Anderson(), "adjoint": adjoint}
    for solve in (
        lambda: fpi.fixed_point(with_dropout, zero(), (theta,), **options).value,
        lambda: masked(theta, 3),
    ):
        torch.manual_seed(3)
        total = (solve() ** 2).sum()
        torch.rand(5)  # what happens in between does not matter
        for _ in range(order):
            (slope,) = torch.autograd.grad(total, theta, create_graph=True)
            total = (slope**2).sum()
        answers.append(total)
    torch.testing.assert_close(*answers, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("recording", [True, False])
def test_the_generator_advances_by_one_evaluation(recording: bool) -> None:
    with torch.set_grad_enabled(recording):
        torch.manual_seed(0)
        sol = fpi.fixed_point(with_dropout, zero(), (leaf(),), **OPTIONS)
        after = torch.get_rng_state()
        if recording:
            sol.value.sum().backward()
        torch.testing.assert_close(torch.get_rng_state(), after)
        torch.manual_seed(0)
        with_dropout(zero(), leaf())
    assert bool(sol.converged)
    torch.testing.assert_close(after, torch.get_rng_state())


def test_dropout_under_torch_func() -> None:
    def solve(theta: Tensor) -> Tensor:
        torch.manual_seed(3)
        return fpi.fixed_point(with_dropout, zero(), (theta,), **OPTIONS).value.sum()

    found = torch.func.grad(solve)(leaf().detach())
    expected = torch.func.grad(lambda t: masked(t, 3).sum())(leaf().detach())
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


class Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm: Any = nn.BatchNorm1d(3, dtype=torch.float64)

    def forward(self, z: Tensor, theta: Tensor) -> Tensor:
        return 0.3 * self.norm(z + theta) + theta

    def method(self, z: Tensor, theta: Tensor) -> Tensor:
        return self(z, theta)


def global_module(z: Tensor, theta: Tensor) -> Tensor:
    return 0.3 * NORM(z + theta) + theta


def _wrapped(cell: Any) -> Any:
    @functools.wraps(cell.method)
    def outer(z: Tensor, theta: Tensor) -> Tensor:
        return inner(z, theta)

    inner = lambda z, theta: cell(z, theta)  # noqa: E731
    return outer


WAYS: dict[str, Any] = {
    "module": lambda cell: cell,
    "method": lambda cell: cell.method,
    "closure": lambda cell: lambda z, theta: cell(z, theta),
    "closure of a closure": _wrapped,
    "partial": lambda cell: functools.partial(lambda c, z, theta: c(z, theta), cell),
    "list": lambda cell: lambda z, theta, parts=[cell]: parts[0](z, theta),
}


CONTEXTS: dict[str, Any] = {"no_grad": torch.no_grad, "inference": torch.inference_mode}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("context", ["recording", "no_grad", "inference", "unrolled", "func"])
def test_statistics_are_updated_once(way: str, context: str) -> None:
    cell, once = Cell(), Cell()
    mean, count = cell.norm.running_mean, cell.norm.num_batches_tracked
    theta = leaf()
    f = WAYS[way](cell)
    if context == "func":
        value = fpi.fixed_point(f, zero(), (theta,), **OPTIONS).value.detach()
        cell.norm.reset_running_stats()
        solve = lambda t: fpi.fixed_point(f, zero(), (t,), **OPTIONS).value.sum()  # noqa: E731
        torch.func.grad(solve)(theta.detach())
    else:
        adjoint = fpi.Unrolled() if context == "unrolled" else None
        with CONTEXTS.get(context, contextlib.nullcontext)():
            sol = fpi.fixed_point(f, zero(), (theta,), adjoint=adjoint, **OPTIONS)
        value = sol.value.detach().clone()
        if context in ("recording", "unrolled"):
            (slope,) = torch.autograd.grad((sol.value**2).sum(), theta, create_graph=True)
            torch.autograd.grad(slope.sum(), theta)
    with torch.no_grad():
        once(value, theta)
    assert cell.norm.running_mean is mean
    assert cell.norm.num_batches_tracked is count
    assert int(count) == 1
    torch.testing.assert_close(mean, once.norm.running_mean)


def test_a_global_module_is_found() -> None:
    NORM.reset_running_stats()
    fpi.fixed_point(global_module, zero(), (leaf(),), **OPTIONS)
    assert int(NORM.num_batches_tracked) == 1


def test_batch_normalisation_gradient() -> None:
    theta, cell = leaf(), Cell()
    z = zero()
    for _ in range(150):
        z = cell(z, theta)
    value = fpi.fixed_point(cell, zero(), (theta,), **OPTIONS).value
    weights = leaf().detach() ** 2
    expected = torch.autograd.grad((weights * z).sum(), [theta, *cell.parameters()])
    found = torch.autograd.grad((weights * value).sum(), [theta, *cell.parameters()])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def test_a_module_that_is_not_found_warns() -> None:
    box: Any = type("Box", (), {"cell": Cell()})
    with pytest.warns(UserWarning, match=r"writes to a tensor of shape .*name its module"):
        fpi.fixed_point(lambda z, t: box.cell(z, t), zero(), (leaf(),), **OPTIONS)


def test_evaluation_mode_is_left_alone() -> None:
    cell = Cell().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fpi.fixed_point(cell, zero(), (leaf(),), **OPTIONS)
    assert int(cell.norm.num_batches_tracked) == 0
