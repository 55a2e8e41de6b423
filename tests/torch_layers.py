"""PyTorch's layers with the weights of `layer_cases`, and their check."""

from typing import Any

import torch
from torch import nn

import fpicore_torch as fpi

from .layer_cases import (
    FEATURES,
    HIDDEN,
    INPUTS,
    OPTIONS,
    RADIUS,
    STEP,
    Case,
    case,
    singular,
)


class Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Linear(FEATURES, FEATURES, bias=False)
        self.inject = nn.Linear(INPUTS, FEATURES)

    def forward(self, z: Any, x: Any) -> Any:
        return torch.tanh(self.kernel(z) + self.inject(x))


class Energy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(INPUTS + FEATURES, HIDDEN)

    def forward(self, z: Any, x: Any) -> Any:
        hidden = self.linear(torch.cat([x, z], -1))
        return 0.5 * z.square().sum(-1) + torch.log(torch.cosh(hidden)).sum(-1)


def make(name: str, **options: Any) -> Any:
    options = {**OPTIONS, **options}
    if name == "FixedPoint":
        return fpi.nn.FixedPoint(Cell(), z0=FEATURES, **options).double()
    if name == "FPINN":
        first, second = nn.Linear(INPUTS + FEATURES, HIDDEN), nn.Linear(HIDDEN, FEATURES)
        network = nn.Sequential(first, nn.Tanh(), second)
        return fpi.nn.FPINN(network, z0=FEATURES, **options).double()
    if name == "FPIGD":
        return fpi.nn.FPIGD(Energy(), STEP, z0=FEATURES, **options).double()
    return fpi.nn.Equilibrium(INPUTS, FEATURES, radius=RADIUS, **options).double()


def parameters(layer: Any) -> dict[str, Any]:
    """The parameters under the names of the cases."""
    names = {
        "FixedPoint": {"kernel": "cell.kernel.weight", "inject": "cell.inject.weight",
                       "bias": "cell.inject.bias"},
        "FPINN": {"w1": "network.0.weight", "b1": "network.0.bias", "w2": "network.2.weight",
                  "b2": "network.2.bias"},
        "FPIGD": {"w": "energy.linear.weight", "b": "energy.linear.bias"},
        "Equilibrium": {"kernel": "recurrent.parametrizations.weight.original",
                        "inject": "inject.weight", "bias": "inject.bias"},
    }[type(layer).__name__]  # fmt: skip
    found = dict(layer.named_parameters())
    assert set(names.values()) == set(found)
    return {name: found[path] for name, path in names.items()}


def loaded(name: str, seed: int = 0, **options: Any) -> tuple[Any, Case]:
    """A layer with the weights of a case."""
    layer, expected = make(name, **options), case(name, seed)
    with torch.no_grad():
        for key, parameter in parameters(layer).items():
            parameter.copy_(torch.tensor(expected.parameters[key].T))
        if name == "Equilibrium":
            norm = layer.recurrent.parametrizations.weight[0]
            u, v = singular(expected.parameters["kernel"])
            norm._u.copy_(torch.tensor(u))
            norm._v.copy_(torch.tensor(v))
    return layer, expected


def check(layer: Any, expected: Case, call: Any = None) -> None:
    """Value and gradients of a call against the reference."""
    layer.zero_grad()
    x = torch.tensor(expected.x, requires_grad=True)
    value = (call or layer)(x)
    (value * torch.tensor(expected.cotangent)).sum().backward()
    gradients = {name: p.grad.numpy().T for name, p in parameters(layer).items()}
    assert x.grad is not None
    expected.check(value.detach().numpy(), x.grad.numpy(), gradients)
