"""PyTorch: an f that gives something else in the backward pass is noticed, however small it is."""

from typing import Any, TypeAlias

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import fpicore_torch as fpi  # noqa: E402
from fpicore import DerivativeError  # noqa: E402
from fpicore_torch._evaluation import agree  # noqa: E402

pytestmark = pytest.mark.framework("torch")
Tensor: TypeAlias = Any


def second_derivative(total: Tensor, theta: Tensor) -> Tensor:
    (slope,) = torch.autograd.grad(total, theta, create_graph=True)
    return torch.autograd.grad(slope.sum(), theta)[0]


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("size", [1.0, 1e-30, 1e30])
@pytest.mark.parametrize("adjoint", [fpi.Implicit(), fpi.Unrolled(checkpoint=2)], ids=str)
def test_drift_of_an_f_of_any_size(size: float, adjoint: Any) -> None:
    """The second system is a million times smaller than the first, and alone drifts."""
    theta = torch.ones(2, 1, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor([[size], [1e-6 * size]], dtype=torch.float64)
    box = {"factor": 1.0}

    def f(z: Tensor) -> Tensor:
        one = torch.tensor([[1.0], [box["factor"]]], dtype=torch.float64)
        return 0.3 * z + theta * scale * one

    # All eight steps are taken both times: a drift that changes their number is a CheckpointError.
    options: dict[str, Any] = {"solver": fpi.Picard(), "rtol": 1e-12, "max_steps": 8}
    sol = fpi.fixed_point(
        f, torch.zeros(2, 1).double(), batch_ndim=1, adjoint=adjoint, on_failure="ignore", **options
    )
    box["factor"] = 1.001
    with pytest.raises(DerivativeError, match=r"expected f to give"):
        second_derivative((sol.value / size).square().sum(), theta)


@pytest.mark.parametrize("size", [1.0, 1e-30])
def test_rounding_is_no_drift(size: float) -> None:
    theta = torch.ones((), dtype=torch.float64, requires_grad=True)
    box = {"factor": 1.0}
    f = lambda z: 0.3 * z + theta * box["factor"] * size  # noqa: E731
    value = fpi.fixed_point(f, torch.zeros(3).double(), rtol=1e-10).value
    box["factor"] = 1.0 + 1e-15
    found = second_derivative((value / size).square().sum(), theta)
    torch.testing.assert_close(found.item(), 6 / 0.49)


CASES: list[tuple[list[float], list[float], bool]] = [
    ([0.0, 0.0], [0.0, 0.0], True),
    ([0.0, 2e-30], [0.0, 0.0], False),
    ([0.0, 0.0], [0.0, 2e-30], False),
    ([1.0, 1e-17], [1.0, 0.0], True),  # rounding of the larger entry
    ([NAN, 1.0], [NAN, 1.0 + 1e-15], True),
    ([NAN, 1.0], [NAN, 1.1], False),
    ([NAN, 1.0], [1.0, 1.0], False),
    ([1.0, 1.0], [NAN, 1.0], False),
    ([INF, 1.0], [INF, 1.0], True),
    ([INF, 1.0], [-INF, 1.0], False),
    ([INF, 1.0], [INF, 1.1], False),
    ([1.0, 1.0], [INF, 1.0], False),
]


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "complex128"])
@pytest.mark.parametrize(("a", "b", "same"), CASES)
def test_agree(a: list[float], b: list[float], same: bool, dtype: str) -> None:
    kind = getattr(torch, dtype)
    assert agree((torch.tensor(a, dtype=kind),), (torch.tensor(b, dtype=kind),), 0, 0.75) is same


def test_agree_by_system() -> None:
    a = torch.tensor([[1.0, 2.0], [1e-9, 2e-9]], dtype=torch.float64)
    b = a + torch.tensor([[0.0, 0.0], [0.0, 1e-15]], dtype=torch.float64)
    assert agree((a,), (b,), 0, 0.75)
    assert not agree((a,), (b,), 1, 0.75)
    assert not agree((a,), (b,), 2, 0.75)
    assert agree((a[0, 0],), (a[0, 0],), 0, 0.75)
