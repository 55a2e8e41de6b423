"""Layers: flax nnx modules whose output is a fixed point.

The names are those of Jeon, Lee, Choi, arXiv 2002.02868: FPI_NN, whose map is a network, and
FPI_GD, whose map is a gradient step on an energy.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fpicore import (
    LayerOptions,
    LayerSummary,
    MissingBackendError,
    activation_of,
    check_block,
    check_part,
    summarize,
    warm,
)

try:
    from flax import errors, nnx
except ImportError as error:
    raise MissingBackendError(
        'fpicore_jax.nn needs flax, which is not installed: pip install "fpicore[flax]"'
    ) from error

from . import fixed_point, gradient_step
from ._backend import JaxBackend

Map = Callable[..., Any]

_ACTIVATIONS: dict[str, Map] = {"tanh": jnp.tanh, "relu": jax.nn.relu}
_BACKEND = JaxBackend()


class Report(nnx.Variable):
    """What a layer notes of its last call."""


class Start(nnx.Variable):
    """Where the next solve may start."""


class AbstractLayer(nnx.Module):
    """z* = f(z*, x…); what f is, a subclass says.

    A module in f may neither draw random numbers nor update state while it trains (Dropout,
    BatchNorm): every step of the solve would see another f. It is refused.

    Attributes:
        options: the `fpicore.LayerOptions`, a static part of the graph.
        summary: a variable, the `fpicore.LayerSummary` of the last call. Like every state of a
            module it comes out of ``nnx.jit`` and ``nnx.grad``; a module that is closed over by a
            plain JAX transform cannot be written to, and keeps what it had. Set it to None to
            keep nothing, so that a call changes nothing.
    """

    def __init__(self, options: LayerOptions) -> None:
        self.options = options
        self.summary: Any = Report(LayerSummary(jnp.int32(0), jnp.float32(0), jnp.int32(0)))
        self.kept: Any = Start(None) if options.warm_start else None

    @abstractmethod
    def map(self, *inputs: Any) -> tuple[Map, tuple[Any, ...]]:
        """f and its further arguments, for a solve with these inputs."""

    def __call__(self, *inputs: Any) -> Any:
        """z*, differentiable in every mode and order."""
        start, options = self._start(inputs), self.options
        begin = start if self.kept is None else warm(_BACKEND, self.kept.get_value(), start)
        f, args = self.map(*inputs)
        solution = fixed_point(f, begin, args, **options.keywords())
        if self.summary is not None:
            found = summarize(jnp, solution)
            _write(self.summary, LayerSummary(
                jnp.int32(found.steps), jnp.float32(found.residual), jnp.int32(found.failed)
            ))  # fmt: skip
        if self.kept is not None:
            _write(self.kept, _keep(solution.value, solution.converged, start))
        return solution.value

    def _start(self, inputs: tuple[Any, ...]) -> Any:
        if callable(self.options.z0):
            return self.options.z0(*inputs)
        shape = self.options.start_shape(inputs)
        return jnp.zeros(shape, inputs[0].dtype)


class FixedPoint(AbstractLayer):
    """z* = cell(z*, x…) for any module or function; layer(x…) gives z*.

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
        axis: of the features.
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
        return lambda z, *x: network(jnp.concatenate([*x, z], axis)), inputs


class FPIGD(AbstractLayer):
    """FPI_GD: z* = z* − γ ∂E/∂z (z*, x…), a stationary point of a learnable energy.

    Args:
        energy: any module or function; energy(z, x…) is real, one number per system or their sum.
        step_size: γ, a number or an ``nnx.Param``. The value does not depend on it, and its
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
        step = self.step_size
        step = step.get_value() if isinstance(step, nnx.Variable) else step
        return gradient_step(self.energy, step), inputs


class Equilibrium(AbstractLayer):
    """z* = σ(W z* + U x + b), with W kept contractive: a deep equilibrium block.

    W is normalised once a call, not once a step; U x + b is computed once as well. ‖W‖₂ < 1 and
    |σ′| ≤ 1 make it a contraction, whatever x is. Bai, Kolter, Koltun, arXiv 1909.01377.

    Args:
        inputs: features of x, its last axis.
        features: features of z.
        activation: σ, "tanh", "relu" or a function.
        normalization: "spectral" holds ‖W‖₂ at the radius, as far as one power iteration a call
            tells, after ``train()`` and not after ``eval()``; "weight" learns the norms of its
            rows apart, which do not hold ‖W‖₂; None leaves W alone. The last two begin with
            ‖W‖₂ = radius.
        radius: see above; below 1 the block contracts.
        param_dtype: of the parameters.
        rngs: as for every module.
        options: see `fpicore.LayerOptions`; z0 is ``features`` unless it is a function.

    Raises:
        InputError: an option is not usable.
    """

    def __init__(
        self,
        inputs: int,
        features: int,
        *,
        rngs: nnx.Rngs,
        activation: str | Map = "tanh",
        normalization: str | None = "spectral",
        radius: float = 0.9,
        param_dtype: Any = jnp.float32,
        **options: Any,
    ) -> None:
        super().__init__(LayerOptions(**{"z0": features, **options}))
        self.activation = activation_of(_ACTIVATIONS, activation)
        self.radius = check_block(normalization, radius)
        self.normalization, self.use_running_average = normalization, False
        orthogonal = nnx.initializers.orthogonal(self.radius)  # all singular values are the radius
        square = (features, features)
        self.recurrent = nnx.Param(orthogonal(rngs.params(), square, param_dtype))
        self.inject = nnx.Linear(inputs, features, param_dtype=param_dtype, rngs=rngs)
        by_weight, by_norm = normalization == "weight", normalization == "spectral"
        gain = jnp.full(features, self.radius, param_dtype)
        self.gain: Any = nnx.Param(gain) if by_weight else None
        left = jax.random.normal(rngs.params(), (features,), param_dtype)
        self.left: Any = nnx.BatchStat(left) if by_norm else None

    def map(self, *inputs: Any) -> tuple[Map, tuple[Any, ...]]:
        """σ(W z + c), with W and c = U x + b as arguments."""
        (x,), sigma = inputs, self.activation
        args = (self._matrix().astype(x.dtype), self.inject(x))
        return lambda z, w, c: sigma(z @ w + c), args

    def _matrix(self) -> Any:
        """The transpose of W, normalised."""
        kernel = self.recurrent[...]
        if self.gain is not None:
            return kernel * (self.gain[...] / jnp.linalg.norm(kernel, axis=0))
        if self.left is None:
            return kernel
        held, left = jax.lax.stop_gradient(kernel), _unit(self.left[...])
        right = _unit(held @ left)
        if not self.use_running_average:
            left = _unit(right @ held)
            right = _unit(held @ left)
            self.left[...] = left
        return kernel * (self.radius / (right @ kernel @ left))


def _unit(vector: Any) -> Any:
    return vector / jnp.linalg.norm(vector)


def _write(variable: Any, value: Any) -> None:
    """Unless the module is closed over by a plain JAX transform."""
    try:
        variable.set_value(jax.lax.stop_gradient(value))
    except errors.TraceContextError:
        return


def _keep(value: Any, converged: Any, start: Any) -> Any:
    """The value where a system converged, and the start elsewhere."""

    def choose(z: Any, z0: Any) -> Any:
        mask = jnp.asarray(converged)
        return jnp.where(mask.reshape(mask.shape + (1,) * (z.ndim - mask.ndim)), z, z0)

    return jax.tree.map(choose, value, start)
