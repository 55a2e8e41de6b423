"""An equilibrium block with a contractive matrix."""

from typing import Any

from fpicore import LayerOptions, check_block

from ._layer import AbstractLayer, Map, keras, ops, register


@register
class Equilibrium(AbstractLayer):
    """z* = σ(W z* + U x + b), with W kept contractive: a deep equilibrium block.

    W is normalised once a call, not once a step; U x + b is computed once as well. ‖W‖₂ < 1 and
    |σ′| ≤ 1 make it a contraction, whatever x is. Bai, Kolter, Koltun, arXiv 1909.01377.

    Args:
        features: of z.
        activation: σ, as Keras names it, or a function.
        normalization: "spectral" holds ‖W‖₂ at the radius, as far as one power iteration a
            training step tells; "weight" learns the norms of its rows apart, which do not hold
            ‖W‖₂; None leaves W alone. The last two begin with ‖W‖₂ = radius.
        radius: see above; below 1 the block contracts.
        options: see `fpicore.LayerOptions` and `FixedPoint`; z0 is ``features`` unless it is a
            function.

    Raises:
        InputError: an option is not usable.
    """

    def __init__(
        self,
        features: int,
        *,
        activation: str | Map = "tanh",
        normalization: str | None = "spectral",
        radius: float = 0.9,
        **options: Any,
    ) -> None:
        solve, keywords = LayerOptions.split({"z0": features, **options})
        super().__init__(solve, **keywords)
        self.activation = keras.activations.get(activation)
        self.radius = check_block(normalization, radius)
        self.features, self.normalization = features, normalization

    def prepare(self, z: Any, inputs: tuple[Any, ...]) -> None:
        """Make the matrices, (features in, features out)."""
        (x,), n = inputs, self.features
        gain = 1.0 if self.normalization == "spectral" else self.radius
        orthogonal = keras.initializers.Orthogonal(gain)  # all singular values are the gain
        self.recurrent = self.add_weight(
            name="recurrent", shape=(n, n), initializer=orthogonal, autocast=False
        )
        self.inject = self.add_weight(name="inject", shape=(x.shape[-1], n))
        self.bias = self.add_weight(name="bias", shape=(n,), initializer="zeros")
        if self.normalization == "weight":
            constant = keras.initializers.Constant(gain)
            self.gain = self.add_weight(
                name="gain", shape=(n,), initializer=constant, autocast=False
            )
        elif self.normalization == "spectral":
            self.left = self.add_weight(
                name="left", shape=(n,), initializer="random_normal", trainable=False,
                autocast=False, aggregation="only_first_replica",
            )  # fmt: skip

    def map(self, inputs: tuple[Any, ...], training: bool) -> tuple[Map, tuple[Any, ...]]:
        """σ(W z + c), with W and c = U x + b as arguments."""
        (x,), sigma = inputs, self.activation
        weight = ops.cast(self._matrix(training), x.dtype)
        injected = x @ _tensor(self.inject) + _tensor(self.bias)
        return lambda z, w, c: sigma(z @ w + c), (weight, injected)

    def get_config(self) -> dict[str, Any]:
        """With the options of the block."""
        return {
            **super().get_config(),
            "features": self.features,
            "activation": keras.activations.serialize(self.activation),
            "normalization": self.normalization,
            "radius": self.radius,
        }

    def _matrix(self, training: bool) -> Any:
        """The transpose of W, normalised."""
        kernel = _tensor(self.recurrent)
        if self.normalization == "weight":
            return kernel * (_tensor(self.gain) / _norm(kernel))
        if self.normalization is None:
            return kernel
        held, left = ops.stop_gradient(kernel), _unit(_tensor(self.left))
        right = _unit(ops.sum(held * left, axis=1))
        if training:
            left = _unit(ops.sum(right[:, None] * held, axis=0))
            right = _unit(ops.sum(held * left, axis=1))
            self.left.assign(left)
        top = ops.sum(right[:, None] * kernel * left)
        return kernel * (self.radius / top)


# Keras's own matmul and norm round float64 to float32 on PyTorch, and so do its variables'
# operators; those of the framework's tensors do not.


def _tensor(variable: Any) -> Any:
    return ops.convert_to_tensor(variable)


def _norm(x: Any) -> Any:
    return ops.sqrt(ops.sum(x * x, axis=0))


def _unit(vector: Any) -> Any:
    return ops.stop_gradient(vector / _norm(vector))
