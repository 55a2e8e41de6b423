"""What only PyTorch has: modules, graphs, grad modes, autocast, torch.compile."""

import warnings
from typing import Any, TypeAlias

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import fpicore_torch as fpi  # noqa: E402
from fpicore import Result  # noqa: E402

pytestmark = pytest.mark.framework("torch")


Tensor: TypeAlias = Any


class Layer(torch.nn.Module):
    """z = tanh(W z + U x + b), one system a row."""

    def __init__(self, units: int = 5, inputs: int = 3, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.recurrent = torch.nn.Linear(units, units, bias=False, dtype=torch.float64)
        self.drive = torch.nn.Linear(inputs, units, dtype=torch.float64)
        with torch.no_grad():
            weight = self.recurrent.weight
            weight *= 0.8 / torch.linalg.matrix_norm(weight, 2)
        self.options = {"rtol": 1e-12, "max_steps": 500, "batch_ndim": 1, **options}

    def cell(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(self.recurrent(z) + self.drive(x))

    def forward(self, x: Tensor) -> Tensor:
        zero = x.new_zeros(len(x), self.recurrent.out_features)
        return fpi.fixed_point(self.cell, zero, (x,), **self.options).value

    def dense(self, x: Tensor) -> Tensor:
        """The same by back-propagation through very many plain steps."""
        z = x.new_zeros(len(x), self.recurrent.out_features)
        for _ in range(400):
            z = self.cell(z, x)
        return z


def batch() -> Any:
    return torch.tensor(np.random.default_rng(1).standard_normal((4, 3)))


def gradients(module: Any, value: Tensor) -> list[Tensor]:
    weights = torch.linspace(-1.0, 1.0, value.numel(), dtype=value.dtype).view_as(value)
    return list(torch.autograd.grad((weights * value).sum(), list(module.parameters())))


def assert_close(found: list[Tensor], expected: list[Tensor], rtol: float = 1e-9) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=rtol)


@pytest.mark.parametrize(
    "solver", [fpi.Picard(), fpi.Anderson(), fpi.Broyden()], ids=lambda s: s.name
)
def test_module_parameters(solver: Any) -> None:
    layer, x = Layer(solver=solver), batch()
    assert_close(gradients(layer, layer(x)), gradients(layer, layer.dense(x)))


def test_gradcheck() -> None:
    layer = Layer()
    x = batch().requires_grad_()
    assert torch.autograd.gradcheck(layer, (x,), atol=1e-7)


def test_gradgradcheck() -> None:
    layer = Layer(adjoint=fpi.Implicit(order=2))
    x = batch().requires_grad_()
    assert torch.autograd.gradgradcheck(layer, (x,), atol=1e-6)


def test_backward_accumulates_like_any_layer() -> None:
    layer, x = Layer(), batch()
    for _ in range(2):
        layer(x).sum().backward()
    expected = torch.autograd.grad(layer.dense(x).sum(), list(layer.parameters()))
    assert_close([p.grad for p in layer.parameters()], [2 * g for g in expected])  # type: ignore[misc]


def test_retained_graph() -> None:
    layer, x = Layer(), batch()
    value = layer(x)
    parameters = list(layer.parameters())
    first = torch.autograd.grad(value.sum(), parameters, retain_graph=True)
    other = torch.autograd.grad((value**2).sum(), parameters, retain_graph=True)
    again = torch.autograd.grad(value.sum(), parameters)
    assert_close(list(again), list(first), rtol=0.0)
    assert_close(list(other), list(torch.autograd.grad((layer.dense(x) ** 2).sum(), parameters)))


def test_graph_is_freed_without_retaining() -> None:
    layer = Layer()
    value = layer(batch())
    torch.autograd.grad(value.sum(), list(layer.parameters()))
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(value.sum(), list(layer.parameters()))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_no_grad_gives_a_plain_tensor(context: Any) -> None:
    layer = Layer()
    calls: list[int] = []
    with context():
        sol = (
            fpi.fixed_point(
                lambda z: (calls.append(1), layer.cell(z, x))[1],
                torch.zeros(4, 5, dtype=torch.float64),
                batch_ndim=1,
            )
            if (x := batch()) is not None
            else None
        )
    assert sol is not None
    assert not sol.value.requires_grad
    assert sol.value.grad_fn is None
    assert sol.backward is None
    assert len(calls) == sol.stats.evaluations


def test_nothing_to_differentiate_gives_a_plain_tensor() -> None:
    sol = fpi.fixed_point(lambda z: 0.5 * z + 1.0, torch.zeros(3))
    assert not sol.value.requires_grad


def test_frozen_parameters_get_none() -> None:
    layer, x = Layer(), batch()
    layer.drive.requires_grad_(False)
    layer(x).sum().backward()
    assert layer.drive.weight.grad is None
    expected = torch.autograd.grad(layer.dense(x).sum(), layer.recurrent.weight)
    assert_close([layer.recurrent.weight.grad], list(expected))  # type: ignore[list-item]


def test_backward_record() -> None:
    theta = torch.tensor([2.0, 1.0], dtype=torch.float64, requires_grad=True)
    sol = fpi.fixed_point(lambda z: theta - 1.5 * z, torch.zeros(2, dtype=torch.float64), rtol=1e-8)
    assert sol.backward is not None
    assert sol.backward.result is None
    sol.value.sum().backward()
    assert sol.backward.result is not None
    assert sol.backward.stats is not None
    assert sol.backward.result.flat() == [Result.CONVERGED]
    assert sol.backward.stats.residual <= 1e-8
    assert "CONVERGED" in repr(sol.backward)


def test_backward_record_of_a_failure() -> None:
    theta = torch.tensor([2.0, 1.0], dtype=torch.float64, requires_grad=True)
    adjoint = fpi.Implicit(solver=fpi.Picard(), fallback=None, on_failure="ignore")
    sol = fpi.fixed_point(
        lambda z: theta - 1.5 * z, torch.zeros(2, dtype=torch.float64), adjoint=adjoint
    )
    sol.value.sum().backward()
    assert sol.backward is not None
    assert sol.backward.result is not None
    assert sol.backward.result.flat() != [Result.CONVERGED]
    assert torch.isfinite(theta.grad).all()  # type: ignore[arg-type]


def test_autocast() -> None:
    """f computes in bfloat16, the state stays float32; the gradient is right to bfloat16."""
    layer, x = Layer().float(), batch().float()
    layer.options.update(rtol=1e-2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = layer(x)
        found = gradients(layer, value)
    assert value.dtype == torch.float32
    for a, b in zip(found, gradients(layer, layer.dense(x)), strict=True):
        assert torch.linalg.vector_norm(a - b) < 0.05 * torch.linalg.vector_norm(b)


def test_default_device_and_dtype_do_not_matter() -> None:
    kept = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        sol = fpi.fixed_point(lambda z: 0.5 * z + 1.0, torch.zeros(3, dtype=torch.float32))
    finally:
        torch.set_default_dtype(kept)
    assert sol.value.dtype == torch.float32


@pytest.mark.parametrize("batch_ndim", [0, 1])
def test_strides_do_not_matter(batch_ndim: int) -> None:
    """A transposed state gives what a contiguous one gives."""
    start = torch.arange(12.0, dtype=torch.float64).view(3, 4)
    solve = lambda z: fpi.fixed_point(  # noqa: E731
        lambda z: torch.sin(z) / 2 + 1, z, rtol=1e-10, batch_ndim=batch_ndim
    )
    plain, strided = solve(start), solve(start.T.contiguous().T)
    torch.testing.assert_close(plain.value, strided.value, rtol=0, atol=1e-12)
    assert plain.stats.evaluations == strided.stats.evaluations


def test_checkpointed_map() -> None:
    from torch.utils.checkpoint import checkpoint

    layer, x = Layer(), batch()
    value = fpi.fixed_point(
        lambda z: checkpoint(layer.cell, z, x, use_reentrant=False),
        torch.zeros(4, 5, dtype=torch.float64),
        **layer.options,
    ).value
    assert_close(gradients(layer, value), gradients(layer, layer.dense(x)))


@pytest.mark.timeout(240)
def test_solve_inside_a_compiled_model() -> None:
    """A graph break around the solve is allowed; forward and backward are right."""

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = Layer()
            self.head = torch.nn.Linear(5, 2, dtype=torch.float64)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.layer(2.0 * x)))

    model, x = Model(), batch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, about its compiler
        value = torch.compile(model, backend="aot_eager", fullgraph=False)(x)
    expected = model(x)
    torch.testing.assert_close(value, expected)
    assert_close(gradients(model, value), gradients(model, expected))
