"""PyTorch's layers: values and gradients of a dense reference, and modules like any other."""

import copy
import io
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import nn  # noqa: E402

import fpicore_torch as fpi  # noqa: E402

from .layer_cases import CASES, FEATURES, INPUTS, OPTIONS  # noqa: E402
from .torch_layers import Cell, Energy, check, loaded, make, parameters  # noqa: E402

pytestmark = pytest.mark.framework("torch")
ONES: Any = torch.ones(3)
ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradients(name: str, training: bool) -> None:
    layer, expected = loaded(name)
    check(layer.train(training), expected)
    assert layer.last.result.converged.all()
    assert layer.last.stats.steps.shape == (3,)
    assert layer.last.backward.result.converged.all()


@given(seed=st.integers(1, 10**6), name=st.sampled_from(CASES))
def test_any_weights(seed: int, name: str) -> None:
    check(*loaded(name, seed))


@pytest.mark.parametrize("name", CASES)
def test_second_derivative(name: str) -> None:
    layer, expected = loaded(name, rtol=1e-13)
    layer.eval()
    x = torch.tensor(expected.x[:1], requires_grad=True)
    assert torch.autograd.gradgradcheck(layer, (x,), atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_state_dict_and_copies(name: str) -> None:
    layer, expected = loaded(name, warm_start=True)
    check(layer.eval(), expected)
    other = make(name).eval()
    other.load_state_dict(layer.state_dict())
    for twin in (other, copy.deepcopy(layer)):
        check(twin, expected)
    if name != "Equilibrium":  # torch refuses to pickle parametrised modules
        check(pickle.loads(pickle.dumps(layer)), expected)
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)


def test_moves_to_another_dtype() -> None:
    layer, expected = loaded("FixedPoint", warm_start=True, rtol=None)
    layer(torch.tensor(expected.x))
    for dtype, tolerance in ((torch.float32, 1e-3), (torch.bfloat16, 5e-2), (torch.float64, 1e-3)):
        value = layer.to(dtype)(torch.tensor(expected.x, dtype=dtype))
        assert value.dtype is dtype
        found = value.detach().double().numpy()
        np.testing.assert_allclose(found, expected.reference.value, atol=tolerance)


@pytest.mark.parametrize("name", CASES)
def test_functional_call(name: str) -> None:
    layer, expected = loaded(name)
    layer.eval()
    mine = {n: p.detach().clone() for n, p in layer.named_parameters()}
    x, cotangent = torch.tensor(expected.x), torch.tensor(expected.cotangent)

    def loss(values: Any) -> Any:
        return (torch.func.functional_call(layer, values, (x,)) * cotangent).sum()

    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    found = torch.func.grad(loss)(mine)
    paths = {id(p): n for n, p in layer.named_parameters()}
    for (key, parameter), reference in zip(
        parameters(layer).items(), expected.reference.gradients[1:], strict=True
    ):
        gradient = found[paths[id(parameter)]].numpy().T
        np.testing.assert_allclose(gradient, reference, rtol=1e-8, atol=1e-9, err_msg=key)


def test_vmap_over_inputs() -> None:
    layer, expected = loaded("FPINN", batch_ndim=0, warm_start=True)
    value = torch.func.vmap(layer)(torch.tensor(expected.x))
    np.testing.assert_allclose(value.detach().numpy(), expected.reference.value, rtol=1e-9)
    assert layer.last is None
    for row, end in zip(expected.x, expected.reference.value, strict=True):
        np.testing.assert_allclose(layer(torch.tensor(row)).detach().numpy(), end, rtol=1e-9)


@pytest.mark.parametrize("name", ["FPIGD", "Equilibrium"])
def test_compiled_surroundings(name: str) -> None:
    layer, expected = loaded(name)
    layer.eval()
    model = nn.Sequential(nn.Identity(), layer)

    @torch.compile(backend="eager")
    def call(x: Any) -> Any:
        return 2.0 * model(x + 0.0)

    check(layer, expected, lambda x: call(x) / 2.0)
    assert layer.last.result.converged.all()


def test_distributed(tmp_path: Any) -> None:
    """In a group of two, warm starts and a report included."""
    command = [sys.executable, "-m", "tests.torch_group", str(tmp_path / "group")]
    ranks = [
        subprocess.Popen([*command, str(rank)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        for rank in ranks:
            _, said = rank.communicate(timeout=120)
            assert rank.returncode == 0, said[-2000:]
    finally:
        for rank in ranks:
            rank.kill()


def test_warm_start() -> None:
    layer, expected = loaded("FPINN", warm_start=True, solver=fpi.Picard())
    x = torch.tensor(expected.x)
    layer(x)
    cold = layer.last.stats.steps.sum()
    layer(x)
    assert layer.last.stats.steps.sum() <= cold / 3
    check(layer, expected)  # near the solution already, the gradient is as good
    layer(x[:2])  # another shape starts anew
    assert layer.last.stats.steps.sum() > cold / 3
    layer.reset()
    layer(x)
    assert layer.last.stats.steps.sum() == cold
    layer.reset()
    assert layer.last is None


def test_what_a_solve_goes_through() -> None:
    told: list[fpi.Progress] = []
    layer, expected = loaded("FixedPoint", trace=True, callback=told.append)
    layer(torch.tensor(expected.x))
    copy.deepcopy(make("FixedPoint", callback=fpi.ProgressBar()))
    trace, steps = layer.last.stats.trace, layer.last.stats.steps
    assert trace.shape == (len(expected.x), OPTIONS["max_steps"] + 1)
    assert [p.step for p in told] == list(range(int(steps.max()) + 1))
    assert [float(p.residual[0]) for p in told[:4]] == trace[0, :4].tolist()


def test_warm_start_of_a_nested_state_that_fails() -> None:
    """A system that did not converge starts afresh, the others where they ended."""
    seen = []

    def f(z: Any, x: Any) -> Any:
        seen.append(z["a"])
        return {"a": torch.cos(z["a"]) * x, "b": (0.5 * z["b"][0] + x,)}

    start = lambda x: {"a": torch.full_like(x, 0.25), "b": (torch.zeros_like(x),)}  # noqa: E731
    layer: Any = fpi.nn.FixedPoint(
        f, z0=start, warm_start=True, solver=fpi.Picard(), max_steps=60, on_failure="ignore"
    )
    x = torch.tensor([[0.5], [30.0]], dtype=torch.float64)  # the second does not contract
    first = layer(x)["a"].clone()
    assert layer.last.result.converged.tolist() == [True, False]
    seen.clear()
    layer(x)
    torch.testing.assert_close(seen[0], torch.stack([first[0], torch.tensor([0.25]).double()]))


def test_dropout_and_batch_norm_in_a_cell() -> None:
    torch.manual_seed(0)
    layer: Any = fpi.nn.FPINN(
        nn.Sequential(nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3), nn.Tanh()), max_steps=200
    )
    with torch.no_grad():
        layer.network[2].weight *= 0.3
    layer(torch.randn(8, 3)).sum().backward()
    assert layer.last.result.converged.all()
    assert int(layer.network[0].num_batches_tracked) == 1


def test_normalisations() -> None:
    """What each holds after steps that push W away."""
    norms = {}
    for kind in ("spectral", "weight", None):
        torch.manual_seed(1)
        block = fpi.nn.Equilibrium(2, 6, normalization=kind, radius=0.7)
        effective = lambda b=block, k=kind: b.recurrent.weight * (0.7 if k == "spectral" else 1.0)  # noqa: E731
        first = torch.linalg.matrix_norm(effective(), 2)
        torch.testing.assert_close(first, torch.tensor(0.7), rtol=5e-2, atol=0.0)
        optimizer = torch.optim.SGD(block.parameters(), lr=0.05)
        for _ in range(20):
            optimizer.zero_grad()
            (-block(torch.ones(4, 2)).square().mean()).backward()
            optimizer.step()
        norms[kind] = torch.linalg.matrix_norm(effective(), 2).item()
    assert abs(norms["spectral"] - 0.7) < 0.02
    assert norms["weight"] > 0.75
    assert norms[None] > 0.75


def test_a_step_that_is_a_parameter() -> None:
    layer = fpi.nn.FPIGD(Energy(), nn.Parameter(torch.tensor(0.3)), z0=FEATURES)
    assert "step_size" in dict(layer.named_parameters())
    layer(torch.ones(2, INPUTS)).sum().backward()
    assert abs(float(layer.step_size.grad)) < 1e-2


def test_options_are_checked() -> None:
    cell: Any = Cell()
    wrong: dict[str, Any]
    for wrong in (
        {"rtol": -1.0}, {"max_steps": 0}, {"norm": "l1"}, {"batch_ndim": -1}, {"z0": 0.5},
        {"z0": (0,)}, {"solver": "anderson"}, {"adjoint": 3}, {"on_failure": "shrug"},
        {"warm_start": 1}, {"trace": 1}, {"callback": 3},
    ):  # fmt: skip
        with pytest.raises(fpi.InputError):
            fpi.nn.FixedPoint(cell, **wrong)
    with pytest.raises(fpi.InputError, match="cell"):
        fpi.nn.FixedPoint(ONES)
    with pytest.raises(fpi.InputError, match="network"):
        fpi.nn.FPINN(ONES)
    with pytest.raises(fpi.InputError, match="step_size"):
        fpi.nn.FPIGD(Energy(), 0.0)
    for wrong in ({"normalization": "batch"}, {"radius": 0.0}, {"activation": "swish"}):
        with pytest.raises(fpi.InputError):
            fpi.nn.Equilibrium(2, 3, **wrong)
    with pytest.raises(TypeError, match="tolerance"):
        fpi.nn.FPINN(cell, tolerance=1e-3)
    with pytest.raises(fpi.InputError, match="first input"):
        fpi.nn.FixedPoint(cell)()
    with pytest.raises(fpi.MapError, match="like that of z"):
        fpi.nn.FixedPoint(lambda z, x: z[:, 1:])(torch.ones(2, FEATURES + 1))


def test_the_options_are_shown() -> None:
    text = repr(fpi.nn.FixedPoint(Cell(), z0=4, solver=fpi.Broyden(), rtol=1e-6))
    assert f"z0=(4,), solver={fpi.Broyden()}, rtol=1e-06" in text
