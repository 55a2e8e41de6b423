"""PyTorch: f that closes over tensors made in inference mode, which keep no version."""

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import fpicore_torch as fpi  # noqa: E402
from fpicore import DerivativeError, MapError  # noqa: E402

pytestmark = pytest.mark.framework("torch")
Tensor: TypeAlias = Any
Function: TypeAlias = Callable[[Tensor], Tensor]
THETA = torch.tensor([0.4, -0.7, 0.2], dtype=torch.float64)
PLAIN = torch.tensor([[0.2, -0.3, 0.1], [0.4, 0.1, -0.2], [0.0, 0.3, 0.3]], dtype=torch.float64)
with torch.inference_mode():
    MATRIX = PLAIN.clone()
    PARAMETER: Any = torch.nn.Parameter(PLAIN[0].clone())


def zero() -> Tensor:
    return torch.zeros(3, dtype=torch.float64)


def cell(z: Tensor, theta: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    # PyTorch lets autograd save no inference tensor, so the product is with a copy.
    return theta * torch.sin(matrix.clone() @ z) + shift


def solve(theta: Tensor, **options: Any) -> Tensor:
    f = lambda z: cell(z, theta, MATRIX, PARAMETER)  # noqa: E731
    return fpi.fixed_point(f, zero(), rtol=1e-13, max_steps=300, **options).value


def dense(theta: Tensor) -> Tensor:
    z = zero()
    for _ in range(80):
        z = cell(z, theta, PLAIN, PLAIN[0])
    return z


def recorded(function: Function, order: int) -> Tensor:
    theta = THETA.clone().requires_grad_()
    total, slope = (function(theta) ** 2).sum(), theta
    for _ in range(order):
        (slope,) = torch.autograd.grad(total, theta, create_graph=order > 1)
        total = (slope**2).sum()
    return slope.detach()


def within(context: Any, function: Function) -> Tensor:
    with context():
        return function(THETA) + 0.0


WAYS: dict[str, Callable[[Function], Tensor]] = {
    "grad": lambda s: recorded(s, 1),
    "twice": lambda s: recorded(s, 2),
    "func.jacrev": lambda s: torch.func.jacrev(s)(THETA),
    "func.jacfwd": lambda s: torch.func.jacfwd(s)(THETA),
    "func.hessian": lambda s: torch.func.hessian(s)(THETA),
    "func.vmap": lambda s: torch.func.vmap(s)(torch.stack([THETA, 0.5 * THETA])),
    "no_grad": lambda s: within(torch.no_grad, s),
    "inference_mode": lambda s: within(torch.inference_mode, s),
}


@pytest.mark.parametrize("way", WAYS)
def test_derivative(way: str) -> None:
    torch.testing.assert_close(WAYS[way](solve), WAYS[way](dense), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("adjoint", [fpi.Implicit(order=2), fpi.Unrolled(), fpi.Unrolled(True)])
def test_strategies(adjoint: Any) -> None:
    found = recorded(lambda t: solve(t, adjoint=adjoint), 1)
    torch.testing.assert_close(found, recorded(dense, 1), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("order", [1, 2])
def test_the_parameter_itself(order: int) -> None:
    """Autograd reaches it, though it follows none of its views."""
    theta, shift = THETA.clone().requires_grad_(), PLAIN[0].clone().requires_grad_()

    def answer(value: Tensor, inputs: Any) -> Tensor:
        total = (value**2).sum()
        for _ in range(order):
            (slope,) = torch.autograd.grad(total, inputs, create_graph=order > 1)
            total = (slope**2).sum()
        return total.detach()

    z = zero()
    for _ in range(80):
        z = cell(z, theta, PLAIN, shift)
    torch.testing.assert_close(answer(solve(theta), PARAMETER), answer(z, shift))


def test_one_that_was_written_to() -> None:
    with torch.inference_mode():
        shift = torch.ones(3, dtype=torch.float64)
    f = lambda theta: lambda z: cell(z, theta, MATRIX, shift)  # noqa: E731
    solved = lambda t: fpi.fixed_point(f(t), zero(), rtol=1e-10).value  # noqa: E731
    pull: Any = torch.func.vjp(solved, THETA)[1]
    with torch.inference_mode():
        shift.mul_(2.0)
    with pytest.raises(DerivativeError, match="written to since"):
        pull(torch.ones(3).double())


def test_one_that_holds_nan() -> None:
    with torch.inference_mode():
        mask = torch.tensor([1.0, float("nan"), 1.0], dtype=torch.float64)
    f = lambda z, theta: cell(z, theta, PLAIN, torch.nan_to_num(mask.clone(), nan=1.0))  # noqa: E731
    solved = lambda t: fpi.fixed_point(f, zero(), (t,), rtol=1e-13, max_steps=300).value  # noqa: E731
    g = lambda z, theta: cell(z, theta, PLAIN, torch.ones(3).double())  # noqa: E731
    other = lambda t: fpi.fixed_point(g, zero(), (t,), rtol=1e-13, max_steps=300).value  # noqa: E731
    torch.testing.assert_close(recorded(solved, 2), recorded(other, 2))


def test_one_that_f_writes_to() -> None:
    with torch.inference_mode():
        count = torch.zeros((), dtype=torch.float64)

    def f(z: Tensor) -> Tensor:
        with torch.inference_mode():
            count.add_(1.0)
        return 0.5 * torch.sin(z) + 1.0

    with torch.no_grad():
        sol = fpi.fixed_point(f, zero())
    assert count == sol.stats.evaluations


def in_place(z: Any) -> Any:
    leaves = z.values() if isinstance(z, dict) else [z]
    for leaf in leaves:
        leaf.mul_(0.5).add_(1.0)
    return z


def one_buffer(z: Any) -> Any:
    if isinstance(z, dict):
        return {"z": one_buffer(z["z"])}
    with torch.inference_mode():
        return BUFFER.copy_(0.5 * z + 1.0)


with torch.inference_mode():
    BUFFER = torch.zeros(3, dtype=torch.float64)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("f", [in_place, one_buffer])
@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad])
@pytest.mark.parametrize("solver", [fpi.Picard(), fpi.Anderson()], ids=str)
def test_maps_that_write(nested: bool, f: Any, context: Any, solver: Any) -> None:
    """Without copies the solve would compare what f wrote to with itself."""
    with torch.inference_mode():
        start = {"z": zero(), "y": zero()} if nested and f is in_place else zero()
        start = {"z": start} if nested and f is one_buffer else start
    with context():
        try:
            sol = fpi.fixed_point(f, start, solver=solver, rtol=1e-10)
        except MapError:  # the copies that f was given do keep versions
            assert context is torch.no_grad
            assert f is in_place
            return
    for leaf in sol.value.values() if nested else [sol.value]:
        torch.testing.assert_close(leaf, torch.full_like(leaf, 2.0))


def test_a_start_made_in_inference_mode() -> None:
    with torch.inference_mode():
        start = zero()
    theta = THETA.clone().requires_grad_()
    value = fpi.fixed_point(lambda z: 0.5 * torch.sin(z) * theta + 1.0, start, rtol=1e-12).value
    other = fpi.fixed_point(lambda z: 0.5 * torch.sin(z) * theta + 1.0, zero(), rtol=1e-12).value
    found, expected = (torch.autograd.grad((v**2).sum(), theta) for v in (value, other))
    torch.testing.assert_close(found, expected)
