"""Layers: modules whose output is a fixed point.

The names are those of Jeon, Lee, Choi, arXiv 2002.02868: FPI_NN, whose map is a network, and
FPI_GD, whose map is a gradient step on an energy.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from fpicore import (
    LayerOptions,
    LayerReport,
    activation_of,
    check_block,
    check_part,
    map_leaves,
    report_of,
    warm,
)

from . import fixed_point, gradient_step
from ._backend import TorchBackend
from ._evaluation import outside_compile
from ._levels import transforms_active

Map = Callable[..., Any]

_ACTIVATIONS: dict[str, Map] = {"tanh": torch.tanh, "relu": torch.relu}
_BACKEND = TorchBackend()


class AbstractLayer(nn.Module, ABC):
    """z* = f(z*, x…); what f is, a subclass says.

    Attributes:
        options: the `fpicore.LayerOptions`.
        last: the `fpicore.LayerReport` of the last call, of its backward pass as well once that
            has run; None before, and after a call within ``torch.func.vmap``.

    Neither it nor a warm start is part of the ``state_dict``.
    """

    def __init__(self, options: LayerOptions) -> None:
        super().__init__()
        self.options = options
        self.last: LayerReport | None = None
        self._kept: Any = None

    @abstractmethod
    def map(self, *inputs: Any) -> tuple[Map, tuple[Any, ...]]:
        """f and its further arguments, for a solve with these inputs."""

    @outside_compile
    def forward(self, *inputs: Any) -> Any:
        """z*, differentiable; ``last`` says how the solve went."""
        start, options = self._start(inputs), self.options
        f, args = self.map(*inputs)
        begin = warm(_BACKEND, self._kept, start) if options.warm_start else start
        solution = fixed_point(f, begin, args, **options.keywords())
        self.last = report_of(solution) if _BACKEND.is_concrete(solution.result) else None
        if options.warm_start and not transforms_active():
            self._kept = _keep(solution.value, solution.converged, start)
        return solution.value

    def reset(self) -> None:
        """Forget the last call, so that the next one starts from z0."""
        self.last = self._kept = None

    def extra_repr(self) -> str:
        """The options that differ from the default ones."""
        plain = LayerOptions()
        pairs = [(name, getattr(self.options, name)) for name in plain.__dataclass_fields__]
        return ", ".join(f"{k}={v!r}" for k, v in pairs if v != getattr(plain, k))

    def _start(self, inputs: tuple[Any, ...]) -> Any:
        if callable(self.options.z0):
            return self.options.z0(*inputs)
        shape = self.options.start_shape(inputs)
        return inputs[0].new_zeros(shape)


class FixedPoint(AbstractLayer):
    """z* = cell(z*, x…) for any module or function; layer(x…) gives z*.

    Gradients reach the inputs, the cell's parameters and what it closes over, in training and in
    evaluation mode alike. Dropout and batch normalisation in the cell are held still during a
    solve: one mask, one update of the statistics.

    Args:
        cell: called as cell(z, x…), returns a state like z.
        options: see `fpicore.LayerOptions`.

    Raises:
        InputError: an option is not usable.
        MapError: when called, the cell returns something else than a state like z.
    """

    def __init__(self, cell: Map, **options: Any) -> None:
        super().__init__(LayerOptions(**options))
        self.cell = check_part("cell", cell)

    def map(self, *inputs: Any) -> tuple[Map, tuple[Any, ...]]:
        """The cell."""
        return self.cell, inputs


class FPINN(AbstractLayer):
    """FPI_NN: z* = network([x…, z*]), the inputs and the state joined along an axis.

    Args:
        network: any module; as many features come out as z has.
        axis: of the features; 1 for images, channels first.
        options: see `fpicore.LayerOptions`. Give ``z0=features`` unless z looks like x.

    Raises:
        InputError: an option is not usable.
        MapError: when called, the network returns something else than a state like z.
    """

    def __init__(self, network: Map, *, axis: int = -1, **options: Any) -> None:
        super().__init__(LayerOptions(**options))
        self.network, self.axis = check_part("network", network), axis

    def map(self, *inputs: Any) -> tuple[Map, tuple[Any, ...]]:
        """The network behind a concatenation."""
        network, axis = self.network, self.axis
        return lambda z, *x: network(torch.cat([*x, z], axis)), inputs


class FPIGD(AbstractLayer):
    """FPI_GD: z* = z* − γ ∂E/∂z (z*, x…), a stationary point of a learnable energy.

    Args:
        energy: any module or function; energy(z, x…) is real, one number per system or their sum.
        step_size: γ, a number or an ``nn.Parameter``. The value does not depend on it, and its
            gradient is zero but with ``adjoint=Unrolled()``.
        options: see `fpicore.LayerOptions`. Give ``z0=features`` unless z looks like x.

    Raises:
        InputError: an option is not usable.
        MapError: when called, the energy is not real.
    """

    def __init__(self, energy: Map, step_size: Any, **options: Any) -> None:
        super().__init__(LayerOptions(**options))
        gradient_step(energy, step_size)
        self.energy, self.step_size = energy, step_size

    def map(self, *inputs: Any) -> tuple[Map, tuple[Any, ...]]:
        """The gradient step."""
        return gradient_step(self.energy, self.step_size), inputs


class Equilibrium(AbstractLayer):
    """z* = σ(W z* + U x + b), with W kept contractive: a deep equilibrium block.

    W is normalised once a call, not once a step; U x + b is computed once as well. ‖W‖₂ < 1 and
    |σ′| ≤ 1 make it a contraction, whatever x is. Bai, Kolter, Koltun, arXiv 1909.01377.

    PyTorch pickles parametrised modules through their ``state_dict`` only.

    Args:
        inputs: features of x, its last axis.
        features: features of z.
        activation: σ, "tanh", "relu" or a function.
        normalization: "spectral" holds ‖W‖₂ at the radius, as far as one power iteration a
            training step tells (``torch.nn.utils.parametrizations.spectral_norm``); "weight"
            learns the norms of its rows apart (``weight_norm``), which do not hold ‖W‖₂; None
            leaves W alone. The last two begin with ‖W‖₂ = radius.
        radius: see above; below 1 the block contracts.
        options: see `fpicore.LayerOptions`; z0 is ``features`` unless it is a function.

    Raises:
        InputError: an option is not usable.
    """

    def __init__(
        self,
        inputs: int,
        features: int,
        *,
        activation: str | Map = "tanh",
        normalization: str | None = "spectral",
        radius: float = 0.9,
        **options: Any,
    ) -> None:
        super().__init__(LayerOptions(**{"z0": features, **options}))
        self.activation = activation_of(_ACTIVATIONS, activation)
        self.radius = check_block(normalization, radius)
        self.normalization = normalization
        self.inject = nn.Linear(inputs, features)
        self.recurrent = nn.Linear(features, features, bias=False)
        nn.init.orthogonal_(self.recurrent.weight, gain=self.radius)
        if normalization == "spectral":
            parametrizations.spectral_norm(self.recurrent)
        elif normalization == "weight":
            parametrizations.weight_norm(self.recurrent)

    def map(self, *inputs: Any) -> tuple[Map, tuple[Any, ...]]:
        """σ(W z + c), with W and c = U x + b as arguments."""
        (x,) = inputs
        weight, sigma = self.recurrent.weight, self.activation
        if self.normalization == "spectral":
            weight = self.radius * weight
        return lambda z, w, c: sigma(functional.linear(z, w) + c), (weight, self.inject(x))


def _keep(value: Any, converged: Any, start: Any) -> Any:
    """A copy of the value where a system converged, and of the start elsewhere."""
    starts = iter(_BACKEND.flatten(start)[0])

    def choose(leaf: Tensor) -> Tensor:
        mask = torch.as_tensor(converged, device=leaf.device)
        mask = mask.reshape(mask.shape + (1,) * (leaf.ndim - mask.ndim))
        return torch.where(mask, leaf.detach(), next(starts).detach())

    return map_leaves(value, lambda x: isinstance(x, Tensor), choose)
