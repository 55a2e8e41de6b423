"""PyTorch: a derivative that would be wrong is refused, in every way one can ask for it."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import fpicore_torch as fpi  # noqa: E402
from fpicore import DerivativeError, Implicit  # noqa: E402

from .problems import sine_derivative  # noqa: E402

pytestmark = pytest.mark.framework("torch")

Tensor: TypeAlias = Any
THETA = torch.tensor([0.4, -0.7], dtype=torch.float64)


def solve(theta: Tensor, order: int = 1, **options: Any) -> Tensor:
    """z = θ sin z + 1."""
    return fpi.fixed_point(
        lambda z: theta * torch.sin(z) + 1.0,
        torch.zeros(2, dtype=torch.float64),
        adjoint=Implicit(order=order),
        rtol=1e-12,
        **options,
    ).value


def leaf() -> Tensor:
    return THETA.clone().requires_grad_()


def differentiate(theta: Tensor, order: int, levels: int) -> Tensor:
    total = solve(theta, levels).sum()
    gradient = total
    for _ in range(order):
        (gradient,) = torch.autograd.grad(total, theta, create_graph=True)
        total = gradient.sum()
    return gradient


@pytest.mark.parametrize("order", [1, 2, 3])
def test_orders_up_to_the_levels_are_right(order: int) -> None:
    for levels in range(order, 4):
        found = differentiate(leaf(), order, levels).detach().numpy()
        np.testing.assert_allclose(found, sine_derivative(THETA.numpy(), order), rtol=1e-7)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_the_order_beyond_the_levels_is_refused(levels: int) -> None:
    with pytest.raises(
        DerivativeError, match=rf"at most {levels} .*Implicit\(order={levels + 1}\)"
    ):
        differentiate(leaf(), levels + 1, levels)


LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": torch.sum,
    "weighted": lambda z: (z * torch.tensor([2.0, -1.0])).sum(),
    "quadratic": lambda z: (z**2).sum(),
    "nonlinear": lambda z: torch.exp(z).prod(),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_grad_with_create_graph(loss: Any) -> None:
    theta = leaf()
    (gradient,) = torch.autograd.grad(loss(solve(theta)), theta, create_graph=True)
    with pytest.raises(DerivativeError):
        torch.autograd.grad(gradient.sum(), theta)


@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True")
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_backward_with_create_graph(loss: Any) -> None:
    theta = leaf()
    loss(solve(theta)).backward(create_graph=True)
    assert theta.grad is not None
    with pytest.raises(DerivativeError):
        theta.grad.sum().backward()
    theta.grad = None  # breaks the reference cycle that create_graph makes


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_gradient_penalty(loss: Any) -> None:
    """The commonest second derivative in practice: a norm of a gradient in the loss."""
    theta = leaf()
    (gradient,) = torch.autograd.grad(loss(solve(theta)), theta, create_graph=True)
    with pytest.raises(DerivativeError):
        (gradient**2).sum().backward()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 0), (0, 0), (1, 1)])
def test_another_input(loss: Any, first: int, second: int) -> None:
    inputs = (leaf(), torch.tensor([1.0, 0.5], dtype=torch.float64, requires_grad=True))

    def answer(order: int) -> Tensor:
        value = fpi.fixed_point(
            lambda z: inputs[0] * torch.sin(z) + inputs[1],
            torch.zeros(2, dtype=torch.float64),
            adjoint=Implicit(order=order),
            rtol=1e-12,
        ).value
        (gradient,) = torch.autograd.grad(loss(value), inputs[first], create_graph=True)
        return torch.autograd.grad(gradient.sum(), inputs[second])[0]

    with pytest.raises(DerivativeError):
        answer(1)
    assert torch.isfinite(answer(2)).all()


def test_second_derivative_in_the_cotangent_is_right() -> None:
    """∂/∂v of Jᵀv needs no derivative of the solve in θ; if it is given, it is right."""
    theta = leaf()
    v = torch.ones(2, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad((v * solve(theta)).sum(), theta, create_graph=True)
    try:
        (found,) = torch.autograd.grad(gradient.sum(), v)
    except DerivativeError:
        return
    np.testing.assert_allclose(found.numpy(), sine_derivative(THETA.numpy(), 1), rtol=1e-8)


def test_hessian_functional() -> None:
    hessian = torch.autograd.functional.hessian
    with pytest.raises(DerivativeError):
        hessian(lambda theta: solve(theta).sum(), THETA)
    found = hessian(lambda theta: solve(theta, 2).sum(), THETA)
    np.testing.assert_allclose(
        found, np.diag(sine_derivative(THETA.numpy(), 2)), rtol=1e-7, atol=1e-9
    )


def test_a_solve_that_feeds_a_solve() -> None:
    """The guard of the inner solve holds behind the outer one."""

    def chain(theta: Tensor, order: int) -> Tensor:
        inner = solve(theta, order)
        return fpi.fixed_point(
            lambda z: 0.3 * torch.cos(z) + inner,
            torch.zeros(2, dtype=torch.float64),
            adjoint=Implicit(order=2),
            rtol=1e-12,
        ).value

    theta = leaf()
    (gradient,) = torch.autograd.grad(chain(theta, 1).sum(), theta, create_graph=True)
    with pytest.raises(DerivativeError):
        gradient.sum().backward()


SECOND: dict[str, Callable[[], Any]] = {
    "func.hessian": lambda: torch.func.hessian(lambda t: solve(t).sum())(THETA),
    "func.jacrev twice": lambda: torch.func.jacrev(torch.func.jacrev(solve))(THETA),
    "func.jacfwd twice": lambda: torch.func.jacfwd(torch.func.jacfwd(solve))(THETA),
    "func.grad of jvp": lambda: torch.func.grad(
        lambda t: torch.func.jvp(solve, (t,), (torch.ones_like(t),))[1].sum()
    )(THETA),
}


@pytest.mark.parametrize("transform", SECOND.values(), ids=SECOND)
@pytest.mark.parametrize("adjoint", [Implicit(order=1), fpi.Neumann(200), fpi.OneStep()])
def test_transforms_refuse_what_the_adjoint_does_not_know(transform: Any, adjoint: Any) -> None:
    kept = fpi.fixed_point
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fpi, "fixed_point", lambda *a, **k: kept(*a, **{**k, "adjoint": adjoint}))
        with pytest.raises(DerivativeError, match=r"at most 1 derivative .*Implicit\(\)"):
            transform()


def test_linearize_is_refused() -> None:
    """It traces, and a trace has one number of steps."""
    with pytest.raises(DerivativeError, match=r"expected eager .*linearize.*torch\.func\.jvp"):
        torch.func.linearize(solve, THETA)


def test_jacobian_functional() -> None:
    found = torch.autograd.functional.jacobian(solve, THETA)
    np.testing.assert_allclose(
        found, np.diag(sine_derivative(THETA.numpy(), 1)), rtol=1e-8, atol=1e-10
    )


@pytest.mark.parametrize("create_graph", [True, False])
def test_batched_gradients(create_graph: bool) -> None:
    """is_grads_batched runs the backward pass under PyTorch's older vmap."""
    theta = leaf()
    options = {"is_grads_batched": True, "create_graph": create_graph}
    if create_graph:
        with pytest.raises(DerivativeError, match=r"is_grads_batched.*torch\.func\.jacrev"):
            torch.autograd.grad(solve(theta), theta, torch.eye(2).double(), **options)
    else:
        (rows,) = torch.autograd.grad(solve(theta), theta, torch.eye(2).double(), **options)
        expected = torch.diag(torch.from_numpy(sine_derivative(THETA.numpy(), 1)))
        torch.testing.assert_close(rows, expected, rtol=1e-8, atol=1e-10)


def test_vectorized_forward_mode_is_refused() -> None:
    jacobian = torch.autograd.functional.jacobian
    with pytest.raises(DerivativeError, match=r"vectorize.*torch\.func\.jacrev"):
        jacobian(solve, THETA, vectorize=True, strategy="forward-mode")
