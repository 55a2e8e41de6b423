"""States that eager PyTorch and TensorFlow hand to the solver as arrays, and those as tensors.

Both ways must come to the same; the rest of the suite takes the first, as its states are small.
"""

import warnings
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from fpicore import GMRES, Implicit, Passage, Result
from fpicore.verify.arrays import leaves

from .labs import Lab
from .problems import SOLVERS, problem

pytestmark = [pytest.mark.only("torch", "tensorflow")]
WAYS = ("arrays", "tensors")


def take(lab: Lab, way: str, patch: pytest.MonkeyPatch) -> Any:
    """Make every state count as small, or none; the module that decides."""
    module = import_module(f"fpicore_{lab.name}._arrays")
    patch.setattr(module, "LARGEST", 10**9 if way == "arrays" else 0)
    return module


@pytest.mark.parametrize("name", ["tanh", "nested", "batch", "rotation", "scalar"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_both_ways_agree(lab: Lab, name: str, solver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if solver in problem(name).excluded:
        solver = "anderson"
    found = {}
    for way in WAYS:
        take(lab, way, monkeypatch)
        found[way] = lab.solve(problem(name), SOLVERS[solver])
    one, other = (found[way] for way in WAYS)
    for a, b in zip(leaves(one.value), leaves(other.value), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11)
    for a, b in zip(one.gradients, other.gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)
    assert abs(one.evaluations - other.evaluations) <= 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", ["float32", "complex128", "bfloat16"])
def test_dtypes(lab: Lab, way: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    take(lab, way, monkeypatch)
    z0 = lab.tensor(np.zeros((2, 3)), dtype)
    shift = lab.tensor(np.ones((2, 3)), dtype)

    def f(z: Any) -> Any:
        assert isinstance(z, type(z0))
        assert z.dtype == z0.dtype
        return shift - 0.5 * z

    sol = lab.fpi.fixed_point(f, z0, batch_ndim=1)
    assert sol.value.dtype == z0.dtype
    assert isinstance(sol.stats.residual, type(z0))
    np.testing.assert_allclose(lab.numpy(sol.value), 2 / 3, rtol=1e-2)


@pytest.mark.parametrize("way", WAYS)
def test_linear_solvers(lab: Lab, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """g = 1 + 0.5 g, by GMRES and with the forward solver's factors."""
    take(lab, way, monkeypatch)
    for adjoint in (Implicit(solver=GMRES()), Implicit(reuse=True)):
        half, start = lab.tensor(0.5), np.ones(4)

        def total(x: Any, half: Any = half, adjoint: Any = adjoint) -> Any:
            sol = lab.fpi.fixed_point(
                lambda z, x: half * z + x, 0.0 * x, (x,), adjoint=adjoint, rtol=1e-10
            )
            return lab.xp.sum(sol.value)

        np.testing.assert_allclose(lab.gradient(total, start)[0], 2.0, rtol=1e-8)


@pytest.mark.parametrize("way", WAYS)
def test_overflow_makes_no_noise(lab: Lab, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    take(lab, way, monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sol = lab.fpi.fixed_point(
            lambda z: 10.0 * z + 1.0,
            lab.tensor(np.zeros(3), "float32"),
            solver=lab.fpi.Picard(),
            max_steps=200,
            on_failure="ignore",
        )
    assert lab.numpy(sol.result.codes) == Result.NONFINITE
    assert np.isfinite(lab.numpy(sol.value)).all()


def test_who_goes_which_way(lab: Lab) -> None:
    """Large states and those that NumPy has no word for stay tensors."""
    module = import_module(f"fpicore_{lab.name}._arrays")
    backend = import_module(f"fpicore_{lab.name}._backend")
    make = getattr(backend, {"torch": "TorchBackend", "tensorflow": "TensorFlowBackend"}[lab.name])

    def is_direct(*leaves: Any) -> bool:
        return type(module.passage(make().ops(leaves, 0), leaves)) is Passage

    assert not is_direct(lab.tensor(np.zeros(3)), lab.tensor(1.0))
    assert is_direct(lab.tensor(np.zeros(3)), lab.tensor(np.zeros(3), "bfloat16"))
    assert not is_direct(lab.tensor(np.zeros(module.LARGEST - 1, np.float32)))
    assert is_direct(lab.tensor(np.zeros(module.LARGEST, np.float32)))


@pytest.mark.only("torch")
def test_outputs_that_are_not_plain_memory(lab: Lab) -> None:
    """A parameter, a conjugate, a negative imaginary part and an expanded view."""
    import torch

    lazy = torch.complex(torch.ones(3).double(), torch.ones(3).double())
    outputs = (
        torch.nn.Parameter(torch.ones(3)),
        lazy.conj(),
        lazy.conj().imag,
        torch.ones(1).expand(3),
    )
    for output in outputs:
        start = torch.zeros(3, dtype=output.dtype)
        sol = lab.fpi.fixed_point(lambda z, out=output: out, start)
        assert torch.equal(sol.value.detach(), output.detach())
