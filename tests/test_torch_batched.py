"""PyTorch: is_grads_batched and vectorize=True, its older vmap, around backward passes."""

from typing import Any, TypeAlias

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch.autograd.functional import hessian, jacobian  # noqa: E402

import fpicore_torch as fpi  # noqa: E402
from fpicore import DerivativeError  # noqa: E402

pytestmark = pytest.mark.framework("torch")
Tensor: TypeAlias = Any
MATRIX = 0.3 * torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double()
THETA = torch.tensor([0.4, -0.7, 0.2], dtype=torch.float64)
EVERY = [fpi.Implicit(), fpi.Implicit(order=1), fpi.Implicit(order=2), fpi.Unrolled()]
TWICE = [fpi.Implicit(), fpi.Implicit(order=2), fpi.Unrolled()]


def cell(z: Tensor, theta: Tensor) -> Tensor:
    return theta * torch.sin(z @ MATRIX.T + 0.2 * z) + 1.0


def zero(batch: int) -> Tensor:
    return torch.zeros(*((batch,) if batch else ()), 3, dtype=torch.float64)


def solve(theta: Tensor, batch: int = 0, **options: Any) -> Tensor:
    start, systems = zero(batch), min(batch, 1)
    return fpi.fixed_point(
        cell, start, (theta,), batch_ndim=systems, rtol=1e-13, max_steps=300, **options
    ).value


def dense(theta: Tensor, batch: int = 0) -> Tensor:
    z = zero(batch)
    for _ in range(120):
        z = cell(z, theta)
    return z


@pytest.mark.parametrize("adjoint", EVERY, ids=str)
@pytest.mark.parametrize("batch", [0, 2])
def test_jacobian(adjoint: Any, batch: int) -> None:
    found = jacobian(lambda t: solve(t, batch, adjoint=adjoint), THETA, vectorize=True)
    expected = jacobian(lambda t: dense(t, batch), THETA)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def test_jacobian_of_a_reversible_iteration() -> None:
    options: Any = {"adjoint": fpi.Reversible(), "rtol": 1e-5}
    start = zero(0)
    solved = lambda t: fpi.fixed_point(cell, start, (t,), **options).value  # noqa: E731
    found = jacobian(solved, THETA, vectorize=True)
    torch.testing.assert_close(found, jacobian(solved, THETA), rtol=1e-9, atol=1e-10)
    with pytest.raises(DerivativeError, match="with create_graph=True"):
        jacobian(solved, THETA, vectorize=True, create_graph=True)


@pytest.mark.parametrize("adjoint", TWICE, ids=str)
def test_hessian(adjoint: Any) -> None:
    found = hessian(lambda t: (solve(t, adjoint=adjoint) ** 2).sum(), THETA, vectorize=True)
    expected = hessian(lambda t: (dense(t) ** 2).sum(), THETA)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)


def test_a_cotangent_that_is_the_same_for_all() -> None:
    """Of two leaves one gets a batch of cotangents, the other none."""
    theta = THETA.clone().requires_grad_()

    def pair(solved: bool) -> Tensor:
        f = lambda z, t: {"a": cell(z["b"], t), "b": 0.3 * z["a"] + t}  # noqa: E731
        z: Any = {"a": zero(0), "b": zero(0)}
        if solved:
            z = fpi.fixed_point(f, z, (theta,), rtol=1e-13).value
        else:
            for _ in range(120):
                z = f(z, theta)
        return z["a"]

    rows = [
        torch.autograd.grad(pair(solved), theta, torch.eye(3).double(), is_grads_batched=True)[0]
        for solved in (True, False)
    ]
    torch.testing.assert_close(rows[0], rows[1], rtol=1e-9, atol=1e-10)
