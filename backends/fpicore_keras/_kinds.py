"""Keras 3 layers whose output is a fixed point."""

from typing import Any

from fpicore import LayerOptions, check_part

from ._layer import AbstractLayer, Map, keras, library, ops, register


@register
class FixedPoint(AbstractLayer):
    """z* = cell(z*, x…) for any Keras layer or function; layer(x) or layer([x, y]) gives z*.

    Args:
        cell: called as cell(z, x…), returns a state like z.
        options: see `fpicore.LayerOptions`; and those of keras.layers.Layer: name, dtype,
            trainable. A warm start is that of the last call in training, and needs a batch of
            known size; a system's start may then come from another replica.

    Raises:
        InputError: an option is not usable.
        MapError: when called, the cell returns something else than a state like z.
    """

    parts = ("cell",)

    def __init__(self, cell: Map, **options: Any) -> None:
        solve, keywords = LayerOptions.split(options)
        super().__init__(solve, **keywords)
        self.cell = check_part("cell", cell)

    def map(self, inputs: tuple[Any, ...], training: bool) -> tuple[Map, tuple[Any, ...]]:
        """The cell."""
        return self.cell, inputs


@register
class FPINN(AbstractLayer):
    """FPI_NN: z* = network([x…, z*]), the inputs and the state joined along an axis.

    Args:
        network: any Keras layer or model; as many features come out as z has.
        axis: of the features.
        options: see `fpicore.LayerOptions` and `FixedPoint`. Give ``z0=features`` unless z looks
            like x.

    Raises:
        InputError: an option is not usable.
        MapError: when called, the network returns something else than a state like z.
    """

    parts = ("network",)

    def __init__(self, network: Map, *, axis: int = -1, **options: Any) -> None:
        solve, keywords = LayerOptions.split(options)
        super().__init__(solve, **keywords)
        self.network, self.axis = check_part("network", network), axis

    def prepare(self, z: Any, inputs: tuple[Any, ...]) -> None:
        """Build the network."""
        if isinstance(self.network, keras.layers.Layer) and not self.network.built:
            self.network(ops.concatenate([*inputs, z], self.axis))

    def map(self, inputs: tuple[Any, ...], training: bool) -> tuple[Map, tuple[Any, ...]]:
        """The network behind a concatenation."""
        network, axis = self.network, self.axis
        return lambda z, *x: network(ops.concatenate([*x, z], axis)), inputs

    def get_config(self) -> dict[str, Any]:
        """With the axis."""
        return {**super().get_config(), "axis": self.axis}


@register
class FPIGD(AbstractLayer):
    """FPI_GD: z* = z* − γ ∂E/∂z (z*, x…), a stationary point of a learnable energy.

    Args:
        energy: any Keras layer or function; energy(z, x…) is real, one number per system or
            their sum.
        step_size: γ, a number. The value does not depend on it.
        options: see `fpicore.LayerOptions` and `FixedPoint`. Give ``z0=features`` unless z looks
            like x.

    Raises:
        InputError: an option is not usable.
        MapError: when called, the energy is not real.
    """

    parts = ("energy",)

    def __init__(self, energy: Map, step_size: float, **options: Any) -> None:
        solve, keywords = LayerOptions.split(options)
        super().__init__(solve, **keywords)
        library().gradient_step(energy, step_size)
        self.energy, self.step_size = energy, step_size

    def map(self, inputs: tuple[Any, ...], training: bool) -> tuple[Map, tuple[Any, ...]]:
        """The gradient step."""
        return library().gradient_step(self.energy, self.step_size), inputs

    def get_config(self) -> dict[str, Any]:
        """With the step."""
        return {**super().get_config(), "step_size": self.step_size}
