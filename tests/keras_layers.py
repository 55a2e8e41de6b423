"""Keras's layers with the weights of `layer_cases`, on the backend that Keras runs on."""

import sys
from typing import Any

import keras as _keras
import numpy as np

import fpicore_keras

from .layer_cases import FEATURES, HIDDEN, INPUTS, OPTIONS, RADIUS, STEP, Case, case, singular

keras: Any = _keras
ops: Any = keras.ops
BACKEND = keras.backend.backend()
register = keras.saving.register_keras_serializable("tests")


@register
def tanh(x: Any) -> Any:
    """The framework's own: Keras's rounds float64 to float32 on JAX."""
    if BACKEND == "tensorflow":
        return sys.modules["tensorflow"].tanh(x)
    return sys.modules["torch"].tanh(x) if BACKEND == "torch" else sys.modules["jax.numpy"].tanh(x)


@register
class Linear(keras.layers.Layer):
    """x w (+ b); keras.layers.Dense rounds float64 to float32 on PyTorch."""

    def __init__(self, units: int, use_bias: bool = True, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.units, self.use_bias = units, use_bias

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], self.units))
        if self.use_bias:
            self.bias = self.add_weight(shape=(self.units,), initializer="zeros")

    def call(self, x: Any) -> Any:
        product = x @ ops.convert_to_tensor(self.kernel)
        return product + ops.convert_to_tensor(self.bias) if self.use_bias else product

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units, "use_bias": self.use_bias}


@register
class Cell(keras.layers.Layer):
    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.kernel = Linear(FEATURES, use_bias=False, dtype=self.dtype_policy)
        self.inject = Linear(FEATURES, dtype=self.dtype_policy)

    def build(self, z_shape: Any, x_shape: Any) -> None:
        self.kernel.build(z_shape)
        self.inject.build(x_shape)

    def call(self, z: Any, x: Any) -> Any:
        return tanh(self.kernel(z) + self.inject(x))


@register
class Energy(keras.layers.Layer):
    """Without a build of its own: the layer calls it once."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.linear = Linear(HIDDEN, dtype=self.dtype_policy)

    def call(self, z: Any, x: Any) -> Any:
        hidden = self.linear(ops.concatenate([x, z], -1))
        convex = ops.sum(ops.log(ops.exp(hidden) + ops.exp(-hidden)), axis=-1)
        return 0.5 * ops.sum(z * z, axis=-1) + convex


@register
def twice(x: Any) -> Any:
    return ops.zeros_like(x[:, :FEATURES]) + 2.0


def make(name: str, dtype: str = "float64", **options: Any) -> Any:
    options = {**OPTIONS, "dtype": dtype, **options}
    if name == "FixedPoint":
        cell = Cell(dtype=dtype)
        return fpicore_keras.FixedPoint(cell, **{"z0": FEATURES, **options})
    if name == "FPINN":
        parts = [Linear(HIDDEN, dtype=dtype), keras.layers.Activation(tanh, dtype=dtype)]
        network = keras.Sequential([*parts, Linear(FEATURES, dtype=dtype)])
        return fpicore_keras.FPINN(network, **{"z0": FEATURES, **options})
    if name == "FPIGD":
        return fpicore_keras.FPIGD(Energy(dtype=dtype), STEP, **{"z0": FEATURES, **options})
    units = INPUTS if options.pop("z0", 0) is None else FEATURES
    return fpicore_keras.Equilibrium(units, radius=RADIUS, activation=tanh, **options)


def parameters(layer: Any) -> list[Any]:
    """In the order of the cases."""
    return list(layer.trainable_variables)


def loaded(name: str, **options: Any) -> tuple[Any, Case]:
    layer, expected = make(name, **options), case(name)
    layer.build((None, INPUTS))
    for variable, value in zip(parameters(layer), expected.parameters.values(), strict=True):
        variable.assign(value)
    if name == "Equilibrium":
        layer.left.assign(singular(expected.parameters["kernel"])[0])
    return layer, expected


def differentiate(layer: Any, x: np.ndarray, cotangent: np.ndarray, training: bool) -> list[Any]:
    """z*, and the gradients of Σ cotangent·z* with respect to x and the parameters."""
    found: list[Any] = []
    if BACKEND == "tensorflow":
        import tensorflow as tf

        inputs = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            value = layer(inputs, training=training)
            loss = tf.reduce_sum(value * cotangent)
        found = [value, *tape.gradient(loss, [inputs, *(v.value for v in parameters(layer))])]
    elif BACKEND == "torch":
        import torch

        inputs = torch.tensor(x, requires_grad=True)
        value = layer(inputs, training=training)
        loss = (value * torch.tensor(cotangent)).sum()
        leaves = [inputs, *(v.value for v in parameters(layer))]
        found = [value.detach(), *torch.autograd.grad(loss, leaves)]
    else:
        import jax

        rest = [v.value for v in layer.non_trainable_variables]

        def loss_of(values: Any, inputs: Any) -> Any:
            value, _ = layer.stateless_call(values, rest, inputs, training=training)
            return (value * cotangent).sum(), value

        mine = [v.value for v in parameters(layer)]
        derive = jax.jit(jax.grad(loss_of, argnums=(0, 1), has_aux=True))
        (slopes, slope), value = derive(mine, jax.numpy.asarray(x))
        found = [value, slope, *slopes]
    return [ops.convert_to_numpy(part) for part in found]
