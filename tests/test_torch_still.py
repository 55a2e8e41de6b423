"""PyTorch: effects of f that are easy to miss are held still as well."""

from typing import Any

import pytest

from fpicore import Implicit, Unrolled

pytestmark = pytest.mark.framework("torch")
torch = pytest.importorskip("torch")
fpi = pytest.importorskip("fpicore_torch")

N = 4


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_statistics_that_the_first_evaluation_leaves_as_they_are() -> None:
    """The mean of z0 = 0 is 0, as the running mean is at the beginning."""
    weight, x = 0.3 * torch.randn(N, N), torch.randn(3, N)
    norm, once = torch.nn.BatchNorm1d(N), torch.nn.BatchNorm1d(N)
    f = lambda z: torch.tanh(0.3 * norm(z) @ weight + x)  # noqa: E731
    sol = fpi.fixed_point(f, torch.zeros(3, N))
    once(sol.value.detach())
    torch.testing.assert_close(norm.running_mean, once.running_mean)
    torch.testing.assert_close(norm.running_var, once.running_var)


@pytest.mark.parametrize("adjoint", [Implicit(order=2), Unrolled(checkpoint=3)], ids=str)
def test_buffers_that_f_reads_and_writes(adjoint: Any) -> None:
    """Spectral normalisation moves its vectors at each call: later evaluations see the first."""
    linear = torch.nn.Linear(N, N).double()
    layer = torch.nn.utils.parametrizations.spectral_norm(linear)
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    x = torch.randn(2, N, dtype=torch.float64)
    f = lambda z: torch.tanh(0.5 * layer(z) + x)  # noqa: E731

    def gradient(adjoint: Any) -> Any:
        layer.load_state_dict(state)
        sol = fpi.fixed_point(f, torch.zeros_like(x), adjoint=adjoint, rtol=1e-12)
        weight = layer.parametrizations.weight.original
        return torch.autograd.grad(sol.value.pow(2).sum(), weight)[0]

    torch.testing.assert_close(gradient(adjoint), gradient(Implicit()), rtol=1e-8, atol=1e-9)


def test_one_mask_for_all_samples_on_request() -> None:
    weight, x = 0.3 * torch.randn(N, N), torch.randn(N).expand(3, N)

    def value(x: Any) -> Any:
        f = lambda z: torch.tanh(torch.nn.functional.dropout(z + 1.0, 0.5) @ weight + x)  # noqa: E731
        return fpi.fixed_point(f, torch.zeros(N)).value

    same = torch.func.vmap(value, randomness="same")(x)
    torch.testing.assert_close(same[0], same[1])
    other = torch.func.vmap(value, randomness="different")(x)
    assert (other[0] - other[1]).abs().max() > 1e-3
