"""PyTorch: derivatives of every order by plain autograd, whatever f captures and how."""

import time
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch.func import functional_call  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

import fpicore_torch as fpi  # noqa: E402
from fpicore import DerivativeError  # noqa: E402

pytestmark = pytest.mark.framework("torch")
Tensor: TypeAlias = Any
Solve: TypeAlias = Callable[..., Tensor]

MATRIX = 0.3 * torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double()
THETA = torch.tensor([0.4, -0.7, 0.2], dtype=torch.float64)
MODULE = torch.nn.Linear(3, 3, dtype=torch.float64)
OPTIONS: dict[str, Any] = {"rtol": 1e-13, "max_steps": 300}


def zero() -> Tensor:
    return torch.zeros(3, dtype=torch.float64)


def exact(f: Any, z: Tensor, args: Any = ()) -> Tensor:
    """By very many plain steps, which autograd records."""
    for _ in range(50):
        z = f(z, *args)
    return z


def ours(adjoint: Any = None) -> Solve:
    return lambda f, z, args=(): fpi.fixed_point(f, z, args, adjoint=adjoint, **OPTIONS).value


class Sine(torch.autograd.Function):
    """w·sin x, in the style without setup_context."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return w * x.sin()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, w = ctx.saved_tensors
        return g * w * x.cos(), g * x.sin()


def closure(solve: Solve, t: Tensor) -> Tensor:
    return solve(lambda z: t * torch.sin(MATRIX @ z) + 1.0, zero())


def argument(solve: Solve, t: Tensor) -> Tensor:
    return solve(lambda z, t: t * torch.sin(MATRIX @ z) + 1.0, zero(), (t,))


def computed(solve: Solve, t: Tensor) -> Tensor:
    """θ itself and tensors made of it."""
    u = 0.3 * t.exp()
    return solve(lambda z: u * torch.sin(MATRIX @ z) + t * u, zero(), ())


def module(solve: Solve, t: Tensor) -> Tensor:
    return solve(lambda z: 0.5 * torch.tanh(MODULE(z)) + t, zero())


def called_with_others(solve: Solve, t: Tensor) -> Tensor:
    """functional_call has put the parameters back before the backward pass."""

    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = MODULE

        def forward(self, x: Tensor) -> Tensor:
            return solve(lambda z: 0.5 * torch.tanh(self.inner(z)) + x, zero())

    others = {f"inner.{k}": 1.5 * p + t.sum() for k, p in MODULE.named_parameters()}
    return functional_call(Layer(), others, (t,))


def nested(solve: Solve, t: Tensor) -> Tensor:
    def outer(z: Tensor) -> Tensor:
        return t * torch.sin(solve(lambda y: 0.3 * torch.cos(y) * t + 0.2 * z, zero())) + 1.0

    return solve(outer, zero())


def chained(solve: Solve, t: Tensor) -> Tensor:
    first = closure(solve, t)
    return solve(lambda z: t * torch.cos(z) + 0.2 * first * z, zero()) + first


def custom_function(solve: Solve, t: Tensor) -> Tensor:
    one = torch.ones_like(t).detach()
    return solve(lambda z: t * Sine.apply(MATRIX @ z, one) + 1.0, zero())


def checkpointed(solve: Solve, t: Tensor) -> Tensor:
    f = lambda z: t * torch.sin(MATRIX @ z) + 1.0  # noqa: E731
    return solve(lambda z: checkpoint(f, z, use_reentrant=False), zero())


def checkpointed_layer(solve: Solve, t: Tensor) -> Tensor:
    return checkpoint(lambda t: closure(solve, t), t, use_reentrant=False)


def energy(solve: Solve, t: Tensor) -> Tensor:
    """f is itself made of a gradient."""

    def f(z: Tensor) -> Tensor:
        with torch.enable_grad():
            x = z if z.requires_grad else z.detach().requires_grad_()
            value = (t * torch.cos(MATRIX @ x)).sum()
            (slope,) = torch.autograd.grad(value, x, create_graph=True)
        return 0.8 * slope + 1.0 + 0.3 * t

    return solve(f, zero())


def ignores_z(solve: Solve, t: Tensor) -> Tensor:
    return solve(lambda z: t**3, zero())


def start(solve: Solve, t: Tensor) -> Tensor:
    """The start requires a gradient, which is zero."""
    return solve(lambda z: t * torch.sin(MATRIX @ z) + 1.0, t if solve is not exact else zero())


CASES = [
    closure, argument, computed, module, called_with_others, nested, chained, custom_function,
    checkpointed, checkpointed_layer, energy, ignores_z, start,
]  # fmt: skip


def derivative(value: Tensor, inputs: list[Tensor], order: int) -> Any:
    """Of Σ value², along a fixed direction after each derivative."""
    total: Any = (value**2).sum()
    found: Any = []
    for _ in range(order):
        found = torch.autograd.grad(
            total, inputs, create_graph=True, allow_unused=True, materialize_grads=True
        )
        total = sum(
            (g * torch.linspace(-1.0, 1.0, g.numel(), dtype=g.dtype).view_as(g)).sum()
            for g in found
        )
    return list(found)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@pytest.mark.parametrize("order", [1, 2, 3])
def test_order(case: Any, order: int) -> None:
    theta = THETA.clone().requires_grad_()
    inputs = [theta, *MODULE.parameters()]
    found = derivative(case(ours(), theta), inputs, order)
    for a, b in zip(found, derivative(case(exact, theta), inputs, order), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_fourth_order() -> None:
    theta = THETA.clone().requires_grad_()
    found = derivative(closure(ours(), theta), [theta], 4)
    expected = derivative(closure(exact, theta), [theta], 4)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_second_order_through_value_and_aux() -> None:
    theta = THETA.clone().requires_grad_()

    def f(z: Tensor) -> Any:
        return theta * torch.sin(MATRIX @ z) + 1.0, z * theta

    sol = fpi.fixed_point(f, zero(), has_aux=True, **OPTIONS)
    found = derivative(sol.value + sol.aux, [theta], 2)
    z = exact(lambda z: f(z)[0], zero())
    torch.testing.assert_close(found, derivative(z + z * theta, [theta], 2), rtol=1e-9, atol=1e-9)


def test_complex_second_order() -> None:
    theta = torch.complex(THETA, 0.2 * THETA.flip(0)).requires_grad_()

    def answer(solve: Solve) -> Tensor:
        matrix = MATRIX.to(theta.dtype)
        z = solve(lambda z: theta * torch.sin(matrix @ z) + 1.0, zero().to(theta.dtype))
        (slope,) = torch.autograd.grad(z.abs().square().sum(), theta, create_graph=True)
        return torch.autograd.grad(torch.view_as_real(slope).sum(), theta)[0]

    torch.testing.assert_close(answer(ours()), answer(exact), rtol=1e-9, atol=1e-9)


def hidden(solve: Solve, t: Tensor) -> Tensor:
    return solve(lambda z: Sine.apply(MATRIX @ z, t) + 1.0, zero())


def test_hidden_in_a_custom_function() -> None:
    """The first derivative is right, the second is refused, levels give it."""
    theta = THETA.clone().requires_grad_()
    for order, adjoint in ((1, None), (2, fpi.Implicit(order=2))):
        found = derivative(hidden(ours(adjoint), theta), [theta], order)
        expected = derivative(hidden(exact, theta), [theta], order)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    with pytest.raises(DerivativeError, match=r"custom autograd\.Function.*Implicit\(order=2\)"):
        derivative(hidden(ours(), theta), [theta], 2)


def test_something_changed_before_the_backward_pass() -> None:
    theta, shift = THETA.clone().requires_grad_(), torch.ones(3, dtype=torch.float64)
    value = ours()(lambda z: theta * torch.sin(MATRIX @ z) + shift, zero())
    shift += 1.0
    (first,) = torch.autograd.grad(value.sum(), theta, create_graph=True)
    with pytest.raises(DerivativeError, match=r"changed in between|written to since"):
        torch.autograd.grad(first.sum(), theta)


def test_another_tensor_before_the_backward_pass() -> None:
    theta = THETA.clone().requires_grad_()
    box = {"t": 1.0 * theta}
    value = ours()(lambda z: box["t"] * torch.sin(MATRIX @ z) + 1.0, zero())
    box["t"] = 2.0 * theta
    (first,) = torch.autograd.grad(value.sum(), theta, create_graph=True)
    with pytest.raises(DerivativeError, match=r"depends on another one.*Implicit\(order=2\)"):
        torch.autograd.grad(first.sum(), theta)


def test_the_first_order_records_f_once() -> None:
    theta = THETA.clone().requires_grad_()
    recorded: list[bool] = []

    def f(z: Tensor) -> Tensor:
        recorded.append(torch.is_grad_enabled())
        return theta * torch.sin(MATRIX @ z) + 1.0

    sol = fpi.fixed_point(f, zero(), **OPTIONS)
    torch.autograd.grad(sol.value.sum(), theta)
    assert recorded == [False] * sol.stats.evaluations + [True]


def test_a_backward_pass_costs_its_products() -> None:
    """One autograd.grad on the kept graph and one addition a product, and little else.

    The least of interleaved rounds each, in processor time: another process takes none of it.
    """
    torch.manual_seed(0)
    layer = torch.nn.Linear(512, 512)
    with torch.no_grad():
        layer.weight *= 0.9 / torch.linalg.matrix_norm(layer.weight, 2)
    x = torch.randn(128, 512)
    cell = lambda z: torch.tanh(layer(z) + x)  # noqa: E731
    sol = fpi.fixed_point(
        cell, torch.zeros(128, 512), solver=fpi.Picard(), adjoint=fpi.Neumann(40), rtol=1e-3
    )
    v = torch.randn(128, 512)
    z = sol.value.detach().requires_grad_()
    y = cell(z)

    def seconds(run: Callable[[], Any]) -> float:
        begin = time.process_time()
        run()
        return time.process_time() - begin

    def products() -> None:
        g = v
        for _ in range(39):
            g = v + torch.autograd.grad(y, z, g, retain_graph=True)[0]
        torch.autograd.grad(y, list(layer.parameters()), g, retain_graph=True)

    def whole() -> None:
        torch.autograd.grad(sol.value, list(layer.parameters()), v, retain_graph=True)

    rounds = [(seconds(whole), seconds(products)) for _ in range(24)]
    ours, theirs = map(min, zip(*rounds, strict=True))
    assert ours <= 1.1 * theirs
