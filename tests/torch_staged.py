"""A layer for staged steps, and its check against the eager one."""

from typing import Any

import pytest
import torch

import fpicore_torch as fpi
from fpicore_torch import _device, _programs, _staged, _staged_ops

from .accelerators import Stand

HOWS = ["compiled", "captured"]
OPTIONS = {"rtol": 1e-12, "max_steps": 200}


def stand_in(patch: Any) -> Stand:
    """Compiled programs are the graphs themselves; captured ones are replayed by the stand-in."""
    made = Stand()
    patch.setattr(_staged, "TOGETHER", dict.fromkeys(HOWS, 1))
    patch.setattr(_programs, "compiled", lambda graph, examples: graph.forward)
    for module in (_programs, _device, _staged, _staged_ops):
        patch.setattr(module, "accelerator", lambda device: made)
    return made


class Layer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        weight = 0.15 * torch.randn(6, 6, generator=generator, dtype=torch.float64)
        self.weight, self.gain = torch.nn.Parameter(weight), 1.0

    def forward(self, z: Any, x: Any) -> Any:
        return {"b": torch.tanh(self.gain * z["a"] @ self.weight + x), "a": 0.5 * z["b"] + x}


def start(rows: int = 4) -> dict[str, Any]:
    return {key: torch.zeros(rows, 6, dtype=torch.float64) for key in "ab"}


def given(rows: int = 4, seed: int = 1) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 6, generator=generator, dtype=torch.float64).requires_grad_()


def both(f: Any, x: Any, weight: Any, **options: Any) -> tuple[Any, Any, Any]:
    sol = fpi.fixed_point(f, start(len(x)), (x,), **(OPTIONS | options))
    loss = sol.value["a"].square().sum() + sol.value["b"].sum()
    return sol, sol.value, torch.autograd.grad(loss, [weight, x])


def check(layer: Layer, f: Any, x: Any, **options: Any) -> Any:
    """The staged f is as good as the layer itself."""
    expected, value, gradients = both(layer, x, layer.weight, **options)
    sol, staged, found = both(f, x, layer.weight, **options)
    torch.testing.assert_close(staged, value, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found, gradients, rtol=1e-9, atol=1e-9)
    for name in ("steps", "evaluations"):
        there, here = (torch.as_tensor(getattr(s.stats, name)) for s in (expected, sol))
        assert (there - here).abs().max() <= 1, name
    assert torch.as_tensor(sol.converged).all()
    return sol


def check_independence() -> None:
    """Systems that are broken or diverge leave the others alone."""
    slope = torch.tensor([[0.5], [float("nan")], [-0.9], [10.0]], dtype=torch.float64)
    f = fpi.Staged(lambda z: slope * z + 1.0)
    with pytest.warns(fpi.ConvergenceWarning):
        sol = fpi.fixed_point(f, torch.zeros(4, 3, dtype=torch.float64), batch_ndim=1)
    assert sol.converged.tolist()[::2] == [True, True]
    assert sol.result.codes.tolist()[1] == fpi.Result.NONFINITE
    torch.testing.assert_close(sol.value[0], torch.full((3,), 2.0, dtype=torch.float64))
