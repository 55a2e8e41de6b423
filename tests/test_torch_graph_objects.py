"""PyTorch: what f refers to in a solve within torch.compile(fullgraph=True), and who shares it."""

import threading
import time
from typing import Any, TypeAlias

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch.autograd.functional import jacobian  # noqa: E402

import fpicore_torch as fpi  # noqa: E402

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
SCALE = 1.0
SCALES = [1.0]


class Scaled(Layer):
    scale = 1.0

    def cell(self, z: Tensor, x: Tensor) -> Tensor:
        sign = 1.0 if self.training else -1.0
        return sign * SCALE * SCALES[0] * self.scale * super().cell(z, x)


def assign_attribute(layer: Any) -> None:
    layer.scale = 0.5


def assign_global(layer: Any) -> None:
    global SCALE
    SCALE = 1.0


def assign_item(layer: Any) -> None:
    SCALES[0] = 1.0


def evaluate_mode(layer: Any) -> None:
    layer.eval()


@pytest.mark.parametrize(
    "assign",
    [assign_attribute, assign_global, assign_item, evaluate_mode],
    ids=lambda f: f.__name__,
)
def test_an_assignment_before_the_solve_is_refused(assign: Any) -> None:
    """The compiler makes it after the graph, and so after the solve that f would see it in."""
    layer, (_, x) = Scaled(), leaves(4)

    def model(x: Tensor) -> Tensor:
        assign(layer)
        return layer(x)

    with pytest.raises(Exception, match="assign after the solve"):
        compiled(model)(x)


def test_an_assignment_after_the_solve() -> None:
    layer, (_, x) = Scaled(), leaves(4)

    def model(x: Tensor) -> Tensor:
        value = layer(x)
        layer.last = value.shape
        return value

    assert_like(compiled(model)(x), layer.dense(x), [x, *layer.parameters()])
    assert layer.last == x.shape


def test_parameters_given_within_the_graph() -> None:
    layer, (_, x) = Layer(), leaves(4)
    weight = (0.3 * torch.eye(3, dtype=torch.float64)).requires_grad_()
    call = lambda w, x: torch.func.functional_call(layer, {"linear.weight": torch.sin(w)}, (x,))  # noqa: E731
    expected = call(weight, x)
    assert_like(compiled(call)(weight, x), expected, [x, weight, layer.linear.bias])


def of_a_kind(z: Tensor, w: Tensor, x: Tensor, kind: Any, factor: float) -> Tensor:
    assert kind in (float, torch.Tensor)
    return factor * cell(z, w, x)


@pytest.mark.parametrize("kind", [float, torch.Tensor])
def test_types_as_arguments(kind: Any) -> None:
    w, x = leaves()
    run = compiled(
        lambda w, x: fpi.fixed_point(of_a_kind, x.new_zeros(3), (w, x, kind, 0.5), **OPTIONS).value
    )
    assert_like(run(w, x), iterate(of_a_kind, torch.zeros(3).double(), w, x, kind, 0.5), (w, x))


@pytest.mark.parametrize("start", [0.0, (), None], ids=str)
def test_a_start_without_tensors(start: Any) -> None:
    w, x = leaves()
    with pytest.raises(Exception, match="expected z0 to be of tensors"):
        compiled(lambda w, x: fpi.fixed_point(cell, start, (w, x)).value)(w, x)


class Slow(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(WEIGHT.clone())
        self.register_buffer("one", torch.ones(3, dtype=torch.float64))

    def cell(self, z: Tensor, x: Tensor) -> Tensor:
        weight = self.weight
        time.sleep(1e-3)
        return cell(z, weight, x * self.one)

    def forward(self, x: Tensor) -> Tensor:
        return fpi.fixed_point(self.cell, torch.zeros_like(x), (x,), rtol=1e-9).value


def test_threads_share_a_module() -> None:
    """Nobody sees the tensors that f is given in place of the module's."""
    layer, (_, x) = Slow().eval(), leaves()
    run = compiled(layer)
    held, found = [layer.weight, layer.one], []
    expected = torch.autograd.grad(layer(x).sum(), layer.weight)[0]

    def work() -> None:
        found.extend(torch.autograd.grad(run(x).sum(), layer.weight)[0] for _ in range(3))

    work()
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    seen = set()
    while any(thread.is_alive() for thread in threads):
        seen |= {id(layer._parameters["weight"]), id(layer._buffers["one"])}
        time.sleep(1e-4)
    assert seen <= set(map(id, held))
    assert len(found) == 12
    for slope in found:
        torch.testing.assert_close(slope, expected, rtol=1e-6, atol=1e-7)


def test_threads_leave_the_compiler_on() -> None:
    from torch._dynamo import eval_frame

    f, (_, x) = Slow(), leaves()
    work = lambda: [fpi.fixed_point(lambda z: f.cell(z, x), x.detach()) for _ in range(4)]  # noqa: E731
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert eval_frame._stance.stance == "default"


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_batch_of_cotangents(backend: str) -> None:
    w, x = (leaf.detach() for leaf in leaves())
    solve = lambda x: fpi.fixed_point(cell, torch.zeros_like(x), (w, x), **OPTIONS).value  # noqa: E731
    found = jacobian(compiled(solve, backend), x, vectorize=True)
    torch.testing.assert_close(found, jacobian(solve, x), rtol=1e-9, atol=1e-10)


def by_energy(z: Tensor, w: Tensor, x: Tensor) -> Tensor:
    with torch.enable_grad():
        z = z if z.requires_grad else z.detach().requires_grad_()
        (slope,) = torch.autograd.grad(torch.cos(z @ w.T).sum(), z, create_graph=True)
    return x - 0.3 * slope


def by_solve(z: Tensor, w: Tensor, x: Tensor) -> Tensor:
    return 0.5 * fpi.fixed_point(cell, torch.zeros_like(x), (w, z), **OPTIONS).value + x


@pytest.mark.parametrize("f", [by_energy, by_solve])
def test_tensors_that_autograd_makes_within_f(f: Any) -> None:
    """They bypass torch functions, as a tensor that is hidden does."""
    w, x = leaves()
    exact = {
        by_energy: lambda z, w, x: x + 0.3 * torch.sin(z @ w.T) @ w,
        by_solve: lambda z, w, x: 0.5 * iterate(cell, torch.zeros_like(x), w, z) + x,
    }[f]
    run = compiled(lambda w, x: fpi.fixed_point(f, x.new_zeros(3), (w, x), **OPTIONS).value)
    assert_like(run(w, x), iterate(exact, torch.zeros(3).double(), w, x), (w, x))


def test_a_compiled_part_of_a_module() -> None:
    layer, (_, x) = Layer(), leaves(4)
    part: Any = torch.compile(layer.linear, backend="eager")
    layer.linear = part
    assert_like(compiled(layer)(x), layer.dense(x), [x, *layer.parameters()])


def test_a_module_that_refers_to_its_parts_twice() -> None:
    class Listed(Layer):
        def __init__(self) -> None:
            super().__init__()
            self.parts = [self.linear]
            self.act = self.half

        def half(self, z: Tensor) -> Tensor:
            return 0.5 * torch.tanh(z @ self.linear.weight)

        def cell(self, z: Tensor, x: Tensor) -> Tensor:
            return 0.5 * self.act(self.parts[0](z)) + x

    layer, (_, x) = Listed(), leaves(4)
    assert_like(compiled(layer)(x), layer.dense(x), [x, *layer.parameters()])
