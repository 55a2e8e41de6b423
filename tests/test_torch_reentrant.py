"""PyTorch: a reentrant checkpoint in f, which hides parameters from autograd, is refused."""

from typing import Any, TypeAlias

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch.utils.checkpoint import checkpoint  # noqa: E402

import fpicore_torch as fpi  # noqa: E402
from fpicore import FixedPointError, MapError  # noqa: E402

pytestmark = [
    pytest.mark.framework("torch"),
    pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True"),
]
Tensor: TypeAlias = Any
LAYER = torch.nn.Linear(3, 3, dtype=torch.float64)
SHIFT = torch.ones(3, dtype=torch.float64, requires_grad=True)
ADJOINTS = [
    fpi.Implicit(), fpi.Implicit(order=2), fpi.OneStep(), fpi.Neumann(2), fpi.Unrolled(),
    fpi.Unrolled(checkpoint=2),
]  # fmt: skip


def hidden(z: Tensor) -> Tensor:
    """The parameters are reached within the checkpoint alone."""
    part: Any = checkpoint(lambda z: 0.3 * torch.tanh(LAYER(z)), z, use_reentrant=True)
    return part + 1.0


def half_hidden(z: Tensor) -> Tensor:
    return hidden(z) * SHIFT


def zero() -> Tensor:
    return torch.zeros(3, dtype=torch.float64)


@pytest.mark.parametrize("adjoint", ADJOINTS, ids=str)
def test_all_hidden(adjoint: Any) -> None:
    """The solve would look as if nothing could be differentiated."""
    with pytest.raises(MapError, match="use_reentrant=False"):
        fpi.fixed_point(hidden, zero(), adjoint=adjoint)


def test_all_hidden_and_a_start_that_requires_a_gradient() -> None:
    with pytest.raises(MapError, match="use_reentrant=False"):
        fpi.fixed_point(hidden, zero().requires_grad_())


@pytest.mark.parametrize("adjoint", ADJOINTS[:4], ids=str)
def test_something_else_is_not_hidden(adjoint: Any) -> None:
    with pytest.raises(MapError, match="use_reentrant=False"):
        fpi.fixed_point(half_hidden, zero(), adjoint=adjoint)


def test_reversible_refuses() -> None:
    with pytest.raises((FixedPointError, RuntimeError), match="use_reentrant"):
        fpi.fixed_point(hidden, zero(), adjoint=fpi.Reversible()).value.sum().backward()


def test_a_solve_without_gradient_is_fine() -> None:
    with torch.no_grad():
        assert fpi.fixed_point(hidden, zero()).converged


@pytest.mark.parametrize("adjoint", ADJOINTS, ids=str)
def test_the_other_kind_is_right(adjoint: Any) -> None:
    f = lambda z: checkpoint(lambda z: 0.3 * torch.tanh(LAYER(z)) + 1.0, z, use_reentrant=False)  # noqa: E731
    g = lambda z: 0.3 * torch.tanh(LAYER(z)) + 1.0  # noqa: E731
    found, expected = (
        torch.autograd.grad(
            fpi.fixed_point(h, zero(), adjoint=adjoint, rtol=1e-12).value.sum(), LAYER.weight
        )
        for h in (f, g)
    )
    torch.testing.assert_close(found, expected)
