"""PyTorch: a solve within torch.compile(fullgraph=True), where all that f uses is given to it."""

import warnings
from collections.abc import Iterator
from typing import Any, TypeAlias

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import fpicore_torch as fpi  # noqa: E402
from fpicore import ConvergenceError, ConvergenceWarning, Result  # noqa: E402

pytestmark = [pytest.mark.framework("torch"), pytest.mark.timeout(240)]
Tensor: TypeAlias = Any
OPTIONS: dict[str, Any] = {"rtol": 1e-13, "max_steps": 300}
WEIGHT = 0.3 * torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double()


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"torch\.")  # PyTorch's own, about its compiler
        yield


def cell(z: Tensor, w: Tensor, x: Tensor) -> Tensor:
    return torch.tanh(z @ w.T) + x


def leaves(batch: int = 0) -> tuple[Tensor, Tensor]:
    x = torch.linspace(-1.0, 1.0, 3 * max(batch, 1), dtype=torch.float64)
    x = x.view(batch, 3) if batch else x
    return WEIGHT.clone().requires_grad_(), x.requires_grad_()


def iterate(f: Any, z: Tensor, *args: Any) -> Tensor:
    for _ in range(100):
        z = f(z, *args)
    return z


def compiled(function: Any, backend: str = "aot_eager", **options: Any) -> Any:
    return torch.compile(function, backend=backend, fullgraph=True, **options)


def assert_like(found: Tensor, expected: Tensor, inputs: Any) -> None:
    """The same value, and the same gradient of the sum of squares."""
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)
    slopes = [torch.autograd.grad((v**2).sum(), inputs) for v in (found, expected)]
    torch.testing.assert_close(*slopes, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
@pytest.mark.parametrize("batch", [0, 4])
def test_value_and_gradient(backend: str, batch: int) -> None:
    def model(w: Tensor, x: Tensor) -> Tensor:
        start, args = torch.zeros_like(x), (torch.sin(w), 2.0 * x)
        return 3.0 * fpi.fixed_point(cell, start, args, batch_ndim=min(batch, 1), **OPTIONS).value

    w, x = leaves(batch)
    expected = 3.0 * iterate(cell, torch.zeros_like(x), torch.sin(w), 2.0 * x)
    assert_like(compiled(model, backend)(w, x), expected, (w, x))


class Layer(torch.nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.linear = torch.nn.Linear(3, 3, dtype=torch.float64)
        self.again = self.linear.weight  # tied
        self.register_buffer("shift", torch.ones(3, dtype=torch.float64))
        with torch.no_grad():
            self.linear.weight *= 0.5

    def cell(self, z: Tensor, x: Tensor) -> Tensor:
        return 0.5 * torch.tanh(self.linear(z) + 0.1 * z @ self.again) + x + self.shift

    def forward(self, x: Tensor) -> Tensor:
        zero = torch.zeros_like(x)
        return fpi.fixed_point(self.cell, zero, (x,), batch_ndim=1, **OPTIONS).value

    def dense(self, x: Tensor) -> Tensor:
        return iterate(self.cell, torch.zeros_like(x), x)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_method_of_a_module(backend: str) -> None:
    layer, (_, x) = Layer(), leaves(4)
    inputs = [x, *layer.parameters()]
    run = compiled(layer, backend)
    assert_like(run(x), layer.dense(x), inputs)
    with torch.no_grad():
        layer.linear.weight *= 0.9  # as an optimiser does
        layer.shift += 1.0
    assert_like(run(x), layer.dense(x), inputs)


def test_two_modules_do_not_share_a_graph() -> None:
    first, second, (_, x) = Layer(0), Layer(1), leaves(4)
    run = compiled(lambda layer, x: layer(x))
    for layer in (first, second, first):
        assert_like(run(layer, x), layer.dense(x), [x, *layer.parameters()])


class Map(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(WEIGHT.clone())

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return cell(z, self.weight, x)


def test_module_as_the_map() -> None:
    f, (_, x) = Map(), leaves()
    run = compiled(lambda x: fpi.fixed_point(f, torch.zeros_like(x), (x,), **OPTIONS).value)
    assert_like(run(x), iterate(f, torch.zeros_like(x), x), [x, f.weight])


def test_nested_states_and_arguments() -> None:
    def f(z: Any, parts: Any, factor: float) -> Any:
        return {"a": torch.sin(z["b"]) * parts["w"][0], "b": (factor * z["a"] + parts["x"])}

    def model(w: Tensor, x: Tensor) -> Tensor:
        zero = {"a": torch.zeros_like(x), "b": torch.ones_like(x)}
        value = fpi.fixed_point(f, zero, ({"w": [w], "x": x}, 0.5), **OPTIONS).value
        return value["a"] + 2.0 * value["b"]

    x = leaves()[1]
    w = torch.full_like(x, 0.7).requires_grad_()
    z: Any = {"a": torch.zeros_like(x), "b": torch.ones_like(x)}
    for _ in range(120):
        z = f(z, {"w": [w], "x": x}, 0.5)
    assert_like(compiled(model)(w, x), z["a"] + 2.0 * z["b"], (w, x))


def lazily_conjugated(z: Tensor, w: Tensor, x: Tensor) -> Tensor:
    return 0.3 * torch.sin(w @ z.conj()) + x.conj()


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_complex(backend: str) -> None:
    w, x = (torch.complex(t.detach(), 0.5 * t.detach()).requires_grad_() for t in leaves())

    def model(w: Tensor, x: Tensor) -> Tensor:
        start = torch.zeros_like(x)
        return torch.view_as_real(
            fpi.fixed_point(lazily_conjugated, start, (w, x), **OPTIONS).value
        )

    expected = torch.view_as_real(iterate(lazily_conjugated, torch.zeros_like(x), w, x))
    assert_like(compiled(model, backend)(w, x), expected, (w, x))


def test_the_start_gets_zero() -> None:
    (w, x), start = leaves(), torch.ones(3, dtype=torch.float64, requires_grad=True)
    run = compiled(lambda s, w, x: fpi.fixed_point(cell, s, (w, x), **OPTIONS).value)
    found = torch.autograd.grad(run(start, w, x).sum(), (start, w))
    assert not found[0].any()
    assert found[1].any()


def test_some_inputs_without_gradient() -> None:
    w, x = leaves()
    run = compiled(lambda w, x: fpi.fixed_point(cell, x.new_zeros(3), (w, x), **OPTIONS).value)
    assert_like(run(w.detach(), x), iterate(cell, torch.zeros(3).double(), w.detach(), x), x)
    assert not run(w.detach(), x.detach()).requires_grad


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradient(context: Any) -> None:
    w, x = leaves()
    run = compiled(lambda w, x: fpi.fixed_point(cell, x.new_zeros(3), (w, x), **OPTIONS).value)
    with context():
        value = run(w, x)
    torch.testing.assert_close(value, iterate(cell, torch.zeros(3).double(), w, x).detach())
    assert not value.requires_grad


def test_backward_passes_in_any_order() -> None:
    w, x = leaves()
    run = compiled(lambda w, x: fpi.fixed_point(cell, x.new_zeros(3), (w, x), **OPTIONS).value)
    values = [run(w, x), run(2.0 * w, x + 1.0)]
    for i, (a, b) in enumerate([(w, x), (2.0 * w, x + 1.0)]):
        assert_like(values[i], iterate(cell, torch.zeros(3).double(), a, b), (w, x))


def test_a_solve_that_feeds_a_solve() -> None:
    def model(w: Tensor, x: Tensor) -> Tensor:
        first = fpi.fixed_point(cell, torch.zeros_like(x), (w, x), **OPTIONS).value
        return fpi.fixed_point(cell, torch.zeros_like(x), (0.5 * w, first), **OPTIONS).value

    w, x = leaves()
    zero = torch.zeros_like(x)
    expected = iterate(cell, zero, 0.5 * w, iterate(cell, zero, w, x))
    assert_like(compiled(model)(w, x), expected, (w, x))


def test_what_the_graph_writes_before_the_solve() -> None:
    layer, (_, x) = Layer(), leaves(4)

    def model(x: Tensor) -> Tensor:
        layer.shift.add_(1.0)
        return layer(x)

    value = compiled(model)(x)
    assert layer.shift[0] == 2.0
    assert_like(value, layer.dense(x), [x, *layer.parameters()])


def test_result_and_stats() -> None:
    w, x = leaves(4)

    def model(w: Tensor, x: Tensor) -> Any:
        sol = fpi.fixed_point(cell, torch.zeros_like(x), (w, x), batch_ndim=1, rtol=1e-9)
        return sol, sol.converged.all()

    sol, converged = compiled(model)(w, x)
    eager = fpi.fixed_point(cell, torch.zeros_like(x), (w, x), batch_ndim=1, rtol=1e-9)
    assert converged
    assert sol.result.flat() == [Result.CONVERGED] * 4
    assert "CONVERGED" in str(sol.result)
    assert not sol.stats.residual.requires_grad
    for ours, theirs in zip(sol.stats[:4], eager.stats[:4], strict=True):
        torch.testing.assert_close(
            ours.double(), torch.as_tensor(theirs).expand(4).double(), rtol=1e-6, atol=0.0
        )


def test_failures_are_reported() -> None:
    w, x = leaves()

    def model(w: Tensor, x: Tensor, on_failure: str) -> Any:
        zero = torch.zeros_like(x)
        return fpi.fixed_point(cell, zero, (w, x), max_steps=2, on_failure=on_failure).result.codes

    run = compiled(model)
    with pytest.warns(ConvergenceWarning):
        assert run(w, x, "warn") == Result.MAX_STEPS
    with pytest.raises(ConvergenceError):
        run(w, x, "raise")


ADJOINT = fpi.Implicit(solver=fpi.GMRES(restart=3))


@pytest.mark.parametrize("make", ["fpi.Picard(damping=0.5)", "fpi.Anderson(history=1)", "SOLVER"])
def test_options_count(make: str) -> None:
    w, x = leaves()
    names = {"fpi": fpi, "cell": cell, "ADJOINT": ADJOINT, "SOLVER": fpi.Broyden(history=2)}
    scope: dict[str, Any] = dict(names)
    exec(
        f"def model(w, x):\n return fpi.fixed_point(cell, x.new_zeros(3), (w, x), rtol=1e-11, "
        f"solver={make}, adjoint=ADJOINT).stats.steps",
        scope,
    )
    run = compiled(scope["model"])
    for solver in (fpi.Broyden(history=2), fpi.Broyden(history=9), fpi.Picard()):
        scope["SOLVER"] = solver
        assert run(w, x) == scope["model"](w, x)


def test_numbers_and_functions_that_change_between_calls() -> None:
    w, x = leaves()

    def model(w: Tensor, x: Tensor, g: Any, factor: float, rtol: float) -> Tensor:
        return fpi.fixed_point(g, x.new_zeros(3), (w, x, factor), rtol=rtol, max_steps=300).value

    def plus(z: Tensor, w: Tensor, x: Tensor, factor: float) -> Tensor:
        return factor * cell(z, w, x)

    def minus(z: Tensor, w: Tensor, x: Tensor, factor: float) -> Tensor:
        return -factor * cell(z, w, x)

    run = compiled(model)
    for factor, g in [(0.5, plus), (0.5, minus), (0.25, minus), (1, minus), (0.75, minus)]:
        expected = iterate(g, torch.zeros(3).double(), w, x, factor)
        assert_like(run(w, x, g, factor, 1e-13), expected, (w, x))
    loose = run(w, x, plus, 0.5, 1e-2)
    assert (loose - run(w, x, plus, 0.5, 1e-13)).abs().max() > 1e-6


@pytest.mark.parametrize("dynamic", [None, True])
def test_batches_of_any_size(dynamic: bool | None) -> None:
    layer = Layer()
    run = compiled(layer, dynamic=dynamic)
    for batch in (4, 2, 7):
        x = leaves(batch)[1]
        assert_like(run(x), layer.dense(x), [x, *layer.parameters()])
