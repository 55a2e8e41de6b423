"""PyTorch: a solve under autocast, checkpointing, saved-tensor hooks, torch.compile."""

import warnings
from typing import Any, TypeAlias

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch.utils.checkpoint import checkpoint  # noqa: E402

import fpicore_torch as fpi  # noqa: E402
from fpicore import Result  # noqa: E402

pytestmark = pytest.mark.framework("torch")
Tensor: TypeAlias = Any
MATRIX = 0.3 * torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double()
THETA = torch.tensor([0.4, -0.7, 0.2], dtype=torch.float64)
OPTIONS: dict[str, Any] = {"rtol": 1e-13, "max_steps": 300}


def zero() -> Tensor:
    return torch.zeros(3, dtype=torch.float64)


def cell(z: Tensor, theta: Tensor) -> Tensor:
    return theta * torch.sin(MATRIX @ z) + 1.0


def solve(theta: Tensor, **options: Any) -> Tensor:
    return fpi.fixed_point(cell, zero(), (theta,), **{**OPTIONS, **options}).value


def leaf() -> Tensor:
    return THETA.clone().requires_grad_()


def expected(order: int = 1) -> Tensor:
    theta, z = leaf(), zero()
    for _ in range(60):
        z = cell(z, theta)
    return derivative((z**2).sum(), theta, order)


def derivative(total: Tensor, theta: Tensor, order: int = 1) -> Tensor:
    slope = total
    for _ in range(order):
        (slope,) = torch.autograd.grad(total, theta, create_graph=order > 1)
        total = (slope**2).sum()
    return slope


def assert_right(found: Any, order: int = 1) -> None:
    torch.testing.assert_close(found, expected(order), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoint_around_a_layer(reentrant: bool) -> None:
    theta = leaf()
    value: Any = checkpoint(lambda t: solve(1.0 * t), theta, use_reentrant=reentrant)
    (value**2).sum().backward()
    assert_right(theta.grad)


@pytest.mark.parametrize("order", [1, 2])
def test_checkpoint_in_f(order: int) -> None:
    """f is computed again at most once for each product, whose value it does not change."""
    theta = leaf()
    value = fpi.fixed_point(
        lambda z, t: checkpoint(cell, z, t, use_reentrant=False), zero(), (theta,), **OPTIONS
    ).value
    assert_right(derivative((value**2).sum(), theta, order), order)


@pytest.mark.parametrize("order", [1, 2])
def test_saved_tensor_hooks(order: int) -> None:
    theta = leaf()
    with torch.autograd.graph.save_on_cpu():
        total = (solve(theta) ** 2).sum()
    assert_right(derivative(total, theta, order), order)


def test_saved_tensor_hooks_around_the_backward_pass() -> None:
    theta = leaf()
    with torch.autograd.graph.save_on_cpu():
        assert_right(derivative((solve(theta) ** 2).sum(), theta, 2), 2)


def test_first_order_after_second_order() -> None:
    """A recorded backward pass leaves the graph as it was."""
    theta = leaf()
    value = solve(theta)
    total = (value**2).sum()
    torch.autograd.grad(total, theta, create_graph=True)
    torch.autograd.grad(total, theta, retain_graph=True)
    assert_right(derivative(total, theta, 2), 2)


def test_value_used_twice_and_two_backward_passes() -> None:
    theta = leaf()
    value = solve(theta)
    first, second = (value * value).sum() / 2, (value * value.detach()).sum()
    (first + second - first.detach()).backward(retain_graph=True)
    assert_right(theta.grad)
    theta.grad = None
    (2 * second).backward()
    assert_right(theta.grad)


@pytest.mark.parametrize("computed", [True, False])
@pytest.mark.parametrize("order", [1, 2])
def test_start_gets_zero(computed: bool, order: int) -> None:
    start, theta = zero().requires_grad_(), leaf()
    z0 = 2.0 * start if computed else start
    value = fpi.fixed_point(cell, z0, (theta,), **OPTIONS).value
    slopes = torch.autograd.grad(
        (value**2).sum(), (theta, start), allow_unused=computed, create_graph=order > 1
    )
    assert slopes[1] is None or not slopes[1].any()
    if order == 1:
        assert_right(slopes[0])
    else:
        assert_right(torch.autograd.grad((slopes[0] ** 2).sum(), theta)[0], 2)


def test_everything_under_no_grad_and_inference_mode() -> None:
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            value = solve(THETA)
        assert not value.requires_grad
        torch.testing.assert_close(value, solve(THETA))


@pytest.mark.parametrize("order", [1, 2])
def test_autocast_ends_by_stagnation(order: int) -> None:
    """bfloat16 cannot resolve the tolerance: both solves end early, with a sane gradient."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(16, 16)
    with torch.no_grad():
        layer.weight *= 0.7 / torch.linalg.matrix_norm(layer.weight, 2)
    x = torch.randn(4, 16)
    f = lambda z: torch.tanh(layer(z) + x)  # noqa: E731
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sol = fpi.fixed_point(
            f, torch.zeros(4, 16), rtol=1e-6, max_steps=1000, on_failure="ignore",
            adjoint=fpi.Implicit(on_failure="ignore"),
        )  # fmt: skip
    z = torch.zeros(4, 16)
    for _ in range(60):
        z = f(z)
    slopes = [derivative((v**2).sum(), layer.weight, order) for v in (sol.value, z)]
    assert sol.result.flat() == [Result.STAGNATED]
    assert sol.stats.evaluations < 1000
    assert torch.linalg.vector_norm(slopes[0] - slopes[1]) < 0.1 * torch.linalg.vector_norm(
        slopes[1]
    )


@pytest.mark.timeout(240)
def test_one_graph_break_in_a_compiled_model() -> None:
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()

    def model(theta: Tensor) -> Tensor:
        value = fpi.fixed_point(cell, zero(), (torch.sin(theta),), **OPTIONS).value
        return (value * 2.0).sum()

    theta = leaf()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, about its compiler
        value = torch.compile(model, backend="eager")(theta)
    assert len(counters["graph_break"]) == 1  # one reason, met once in each frame on the way
    assert counters["stats"]["unique_graphs"] == 2  # before the solve, and after
    found = torch.autograd.grad(value, theta)
    torch.testing.assert_close(found, torch.autograd.grad(model(theta), theta))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("fullgraph", [False, True])
@pytest.mark.parametrize("attribute", [False, True])
def test_a_compiled_map(fullgraph: bool, attribute: bool) -> None:
    """The mode that tells what f captures would be compiled with it."""

    def by_attribute(z: Tensor, theta: Tensor) -> Tensor:
        return cell(z.mT.mT if z.ndim > 1 else z[None].T.T[0], theta)

    torch._dynamo.reset()
    f = by_attribute if attribute else cell
    compiled: Any = torch.compile(f, backend="aot_eager", fullgraph=fullgraph)
    for order in (1, 2):
        theta = leaf()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = fpi.fixed_point(compiled, zero(), (theta,), **OPTIONS).value
            assert_right(derivative((value**2).sum(), theta, order), order)
