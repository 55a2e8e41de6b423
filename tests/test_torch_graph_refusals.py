"""PyTorch: what a solve within torch.compile(fullgraph=True) refuses."""

import gc
from typing import Any, TypeAlias

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch.autograd import forward_ad  # noqa: E402

import fpicore_torch as fpi  # noqa: E402
from fpicore import DerivativeError, InputError, MapError  # noqa: E402

from .test_torch_graph import (  # noqa: E402
    OPTIONS,
    WEIGHT,
    Layer,
    _fresh,  # noqa: F401
    assert_like,
    cell,
    compiled,
    iterate,
    leaves,
)

pytestmark = [pytest.mark.framework("torch"), pytest.mark.timeout(240)]
Tensor: TypeAlias = Any

HELD = WEIGHT.clone().requires_grad_()
CONSTANT = WEIGHT.clone()
DROP = torch.nn.Dropout(0.5)


def hidden_weight(z: Tensor, w: Tensor, x: Tensor) -> Tensor:
    return cell(z, HELD, x)


def hidden_constant(z: Tensor, w: Tensor, x: Tensor) -> Tensor:
    return cell(z, CONSTANT, x)


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        return z @ HELD.T

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> Any:
        return v @ HELD


def random(z: Tensor, w: Tensor, x: Tensor) -> Tensor:
    return cell(0.1 * DROP(z), w, x)


def writing(z: Tensor, w: Tensor, x: Tensor) -> Tensor:
    w.mul_(1.0)
    return cell(z, w, x)


REFUSED: dict[Any, Any] = {
    hidden_weight: (InputError, "pass it in args"),
    hidden_constant: (InputError, "pass it in args"),
    random: (MapError, "draws random numbers"),
    writing: (MapError, "writes to a tensor"),
}


@pytest.mark.parametrize("f", REFUSED, ids=lambda f: f.__name__)
def test_refused_when_it_runs(f: Any) -> None:
    w, x = leaves()
    run = compiled(lambda w, x: fpi.fixed_point(f, x.new_zeros(3), (w, x), max_steps=20).value)
    kind, message = REFUSED[f]
    with pytest.raises(kind, match=message):
        run(w.detach(), x)


def test_normalisation_in_training_is_refused() -> None:
    class Normed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = torch.nn.BatchNorm1d(3, dtype=torch.float64)

        def forward(self, z: Tensor, x: Tensor) -> Tensor:
            return 0.3 * self.norm(z + x) + x

    f, (_, x) = Normed(), leaves(4)
    run = compiled(lambda x: fpi.fixed_point(f, torch.zeros_like(x), (x,), **OPTIONS).value)
    with pytest.raises(MapError, match=r"call eval\(\)"):
        run(x)
    assert int(f.norm.num_batches_tracked) == 0
    f.eval()
    assert_like(run(x), iterate(f, torch.zeros_like(x), x), [x, *f.parameters()])


def test_a_trace_is_refused() -> None:
    run = compiled(lambda w, x: fpi.fixed_point(cell, x.new_zeros(3), (w, x), trace=True).value)
    with pytest.raises(Exception, match="expected trace=False within fullgraph=True"):
        run(*leaves())


def test_closures_are_refused() -> None:
    w, x = leaves()

    def inner(w: Tensor, x: Tensor) -> Tensor:
        return fpi.fixed_point(lambda z: cell(z, w, x), torch.zeros_like(x)).value

    def outer(w: Tensor, x: Tensor) -> Tensor:
        return fpi.fixed_point(around, torch.zeros_like(x)).value

    around = lambda z: cell(z, w, x)  # noqa: E731
    for model in (inner, outer):
        with pytest.raises(Exception, match="closure"):
            compiled(model)(w, x)


@pytest.mark.parametrize(
    "options",
    [{"adjoint": fpi.Unrolled()}, {"adjoint": fpi.Reversible()}, {"has_aux": True}],
    ids=str,
)
def test_what_breaks_the_graph_says_why(options: Any) -> None:
    w, x = leaves()
    run = compiled(lambda w, x: fpi.fixed_point(cell, torch.zeros_like(x), (w, x), **options).value)
    with pytest.raises(Exception, match="as many steps as it needs"):
        run(w, x)


@pytest.mark.parametrize("transform", ["grad", "jvp", "vmap"])
def test_torch_func_within_the_graph_is_refused(transform: str) -> None:
    w, x = leaves()
    w, x = w.detach(), x.detach()
    solve = lambda x: fpi.fixed_point(cell, torch.zeros_like(x), (w, x), **OPTIONS).value  # noqa: E731
    ways = {
        "grad": lambda s: torch.func.grad(lambda x: s(x).sum())(x),
        "jvp": lambda s: torch.func.jvp(s, (x,), (x,))[1],
        "vmap": lambda s: torch.func.vmap(s)(torch.stack([x, 2.0 * x])),
    }
    way: Any = ways[transform]
    with pytest.raises(Exception, match="as many steps as it needs"):
        compiled(lambda: way(solve))()


def test_autocast_is_refused() -> None:
    w, x = leaves()

    def model(w: Tensor, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return fpi.fixed_point(cell, torch.zeros_like(x), (w, x)).value

    with pytest.raises(Exception, match="autocast"):
        compiled(model)(w, x)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_dual_numbers_are_refused(backend: str) -> None:
    """Of a graph that is there already, too: PyTorch would drop the tangent."""
    w, x = (leaf.detach() for leaf in leaves())
    run = compiled(lambda w, x: fpi.fixed_point(cell, x.new_zeros(3), (w, x)).value, backend)
    run(w, x)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        with pytest.raises(DerivativeError, match="forward-mode AD"):
            run(w, dual)


def test_a_module_that_is_gone() -> None:
    layer, (_, x) = Layer(), leaves(4)
    value = compiled(lambda layer, x: layer(x))(layer, x)
    del layer
    gc.collect()
    with pytest.raises(DerivativeError, match="keep it"):
        value.sum().backward()


def test_a_second_derivative_is_refused() -> None:
    w, x = leaves()
    run = compiled(
        lambda w, x: fpi.fixed_point(cell, x.new_zeros(3), (w, x), **OPTIONS).value, "eager"
    )
    (slope,) = torch.autograd.grad(run(w, x).sum(), x, create_graph=True)
    with pytest.raises(DerivativeError, match="expected one derivative"):
        slope.sum().backward()


@pytest.mark.parametrize("strict", [True, False])
def test_export_is_refused(strict: bool) -> None:
    class Model(torch.nn.Module):
        def forward(self, w: Tensor, x: Tensor) -> Tensor:
            return fpi.fixed_point(cell, torch.zeros_like(x), (w, x)).value

    with pytest.raises(Exception):  # noqa: B017, PT011
        torch.export.export(Model(), tuple(t.detach() for t in leaves()), strict=strict)


SCALE = 1.0


def scaled(z: Tensor, w: Tensor, x: Tensor) -> Tensor:
    return SCALE * cell(z, w, x)


def test_a_global_number_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    w, x = leaves()
    run = compiled(lambda w, x: fpi.fixed_point(scaled, x.new_zeros(3), (w, x), **OPTIONS).value)
    for scale in (1.0, 0.5):
        monkeypatch.setattr(f"{__name__}.SCALE", scale)
        assert_like(run(w, x), iterate(scaled, torch.zeros(3).double(), w, x), (w, x))
    value = run(w, x)
    monkeypatch.setattr(f"{__name__}.SCALE", 0.4)
    with pytest.raises(DerivativeError, match="gave when it was solved"):
        value.sum().backward()
