"""PyTorch: what a staged step must not pass over, and what it refuses."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

import fpicore_torch as fpi  # noqa: E402

from .accelerators import Stand  # noqa: E402
from .torch_staged import OPTIONS, given  # noqa: E402

pytestmark = pytest.mark.framework("torch")


class Half(torch.autograd.Function):
    """tanh, whose rule is half of its derivative."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return torch.tanh(x)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return 0.5 * g * (1.0 - torch.tanh(ctx.saved_tensors[0]) ** 2)


def held(z: Any, x: Any) -> Any:
    with torch.no_grad():
        gate = torch.sigmoid(z)
    return 0.5 * torch.tanh(z + x) * gate


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # dynamo's
@pytest.mark.parametrize("f", [lambda z, x: 0.5 * Half.apply(z + x), held], ids=["rule", "held"])
def test_what_f_says_of_its_derivative_holds(f: Any, stand: Stand) -> None:
    staged, x, found = fpi.Staged(f), given(), []
    with torch.no_grad():
        fpi.fixed_point(staged, torch.zeros_like(x), (x,), **OPTIONS)
    for map_ in (staged, f):
        value = fpi.fixed_point(map_, torch.zeros_like(x), (x,), **OPTIONS).value
        found.append(torch.autograd.grad(value.square().sum(), x)[0])
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-9)


def test_a_graph_that_is_not_f_is_an_error(stand: Stand) -> None:
    """make_fx does not know the levels of torch.func."""
    x = given()
    energy = lambda z: (torch.tanh(z) ** 2 / 4 + (z - x) ** 2 / 2).sum()  # noqa: E731
    f = fpi.Staged(lambda z: z - 0.5 * torch.func.grad(energy)(z))
    with pytest.raises((fpi.MapError, fpi.DerivativeError), match="something else"):
        fpi.fixed_point(f, torch.zeros_like(x), **OPTIONS).value.sum().backward()


def dropped(z: Any) -> Any:
    return 0.5 * torch.nn.functional.dropout(z + 1.0, 0.5)


def branching(z: Any) -> Any:
    return 0.5 * z + 1.0 if z.sum() < 1.0 else 0.4 * z


COUNTER = torch.zeros(())


def counting(z: Any) -> Any:
    COUNTER.add_(1.0)
    return 0.5 * z + 1.0


@pytest.mark.parametrize("f", [dropped, branching, counting], ids=lambda f: f.__name__)
def test_refused(f: Any, stand: Stand) -> None:
    with pytest.raises(fpi.MapError, match="staged f"):
        fpi.fixed_point(fpi.Staged(f), torch.zeros(3))


def test_refused_around_it() -> None:
    with pytest.raises(fpi.InputError, match="how"):
        fpi.Staged(dropped, "jitted")
    with pytest.raises(fpi.InputError, match="CUDA"):
        fpi.fixed_point(fpi.Staged(lambda z: 0.5 * z + 1.0, "captured"), torch.zeros(3))
    staged = fpi.Staged(lambda z: 0.5 * z + 1.0)
    with pytest.raises(fpi.InputError, match="autocast"), torch.autocast("cpu"):
        fpi.fixed_point(staged, torch.zeros(3))
