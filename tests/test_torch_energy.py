"""PyTorch: an energy inside f, in every surrounding that differentiates in its own way."""

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import nn  # noqa: E402
from torch.autograd import forward_ad  # noqa: E402

import fpicore_torch as fpi  # noqa: E402

pytestmark = pytest.mark.framework("torch")
TIGHT: dict[str, Any] = {"rtol": 1e-13, "max_steps": 300}
X = torch.tensor([0.3, -0.8, 1.1], dtype=torch.float64)


def energy(z: Any, x: Any) -> Any:
    return (0.5 * z * z + z**4 / 4 - x * z).sum()


def solve(x: Any) -> Any:
    """z + z³ = x."""
    return fpi.fixed_point(fpi.gradient_step(energy, 0.3), torch.zeros_like(x), (x,), **TIGHT).value


def slope(z: Any) -> Any:
    return 1 / (1 + 3 * z**2)


def curvature(z: Any) -> Any:
    return -6 * z * slope(z) ** 3


@pytest.mark.parametrize("derive", [torch.func.jacrev, torch.func.jacfwd])
def test_transforms(derive: Any) -> None:
    expected = torch.diag(slope(solve(X)))
    torch.testing.assert_close(derive(solve)(X), expected, rtol=1e-9, atol=1e-12)


def test_hessian_and_vmap() -> None:
    total = lambda x: solve(x).sum()  # noqa: E731
    expected = torch.diag(curvature(solve(X)))
    torch.testing.assert_close(torch.func.hessian(total)(X), expected, rtol=1e-8, atol=1e-11)
    batch = torch.stack([X, 2 * X])
    torch.testing.assert_close(torch.func.vmap(solve)(batch), solve(batch.view(-1)).view(2, 3))


def test_dual_numbers() -> None:
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(solve(forward_ad.make_dual(X, torch.ones_like(X))))
    torch.testing.assert_close(found.tangent, slope(found.primal), rtol=1e-9, atol=1e-12)


def test_dual_numbers_of_one_step() -> None:
    """The tangent passes through z and through x."""
    step = fpi.gradient_step(energy, 0.3)
    with forward_ad.dual_level():
        z, x = (forward_ad.make_dual(t, torch.ones_like(t)) for t in (X, 2 * X))
        tangent = forward_ad.unpack_dual(step(z, x)).tangent
    torch.testing.assert_close(tangent, 1 - 0.3 * (1 + 3 * X**2 - 1))


@pytest.mark.parametrize("surrounding", [torch.no_grad, torch.inference_mode])
def test_without_recording(surrounding: Any) -> None:
    with surrounding():
        z = solve(2.0 * X)  # in inference mode an inference tensor, which autograd cannot save
    assert not z.requires_grad
    torch.testing.assert_close(z + z**3, 2.0 * X, rtol=1e-11, atol=0.0)


def test_a_step_records_only_where_the_caller_does() -> None:
    x = X.clone().requires_grad_()
    step = fpi.gradient_step(energy, 0.3)
    assert step(X, x).requires_grad
    with torch.no_grad():
        assert not step(X, x).requires_grad


def test_dropout_in_an_energy_has_one_mask() -> None:
    torch.manual_seed(0)
    drop = nn.Dropout(0.5)
    f = fpi.gradient_step(lambda z, x: ((drop(z) - x) ** 2).sum() + (z**2).sum(), 0.1)
    sol = fpi.fixed_point(f, torch.zeros(50, dtype=torch.float64), (torch.ones(50),), **TIGHT)
    assert bool(sol.converged)
    assert sorted({round(v, 6) for v in sol.value.tolist()}) == [0.0, 0.4]


def test_unrolled_reaches_the_step() -> None:
    """At a fixed point the step has no derivative; on the way there it has."""
    step = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    f = fpi.gradient_step(energy, step)

    def found(adjoint: Any, **options: Any) -> float:
        z = fpi.fixed_point(f, 0 * X, (X,), solver=fpi.Picard(), adjoint=adjoint, **options).value
        return float(torch.autograd.grad(z.sum(), step)[0])

    for adjoint in (fpi.Implicit(), fpi.Unrolled()):
        assert abs(found(adjoint, **TIGHT)) < 1e-9
    assert abs(found(fpi.Unrolled(), max_steps=3, on_failure="ignore")) > 0.01
