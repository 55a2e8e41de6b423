"""What an experiment needs of a framework, so that its model is written once for all of them."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
Step = Callable[[Arrays, Arrays], tuple[float, dict[str, Any], Arrays]]
"""(parameters, batch) ↦ (loss, figures, gradients); compiled where the framework compiles."""

NAMES = ("torch", "jax", "tensorflow")


class Framework:
    """A backend of fpicore, a few functions on its tensors, and derivatives."""

    fpi: Any
    sigmoid: Callable[[Any], Any]
    relu: Callable[[Any], Any]
    softplus: Callable[[Any], Any]
    sum: Callable[..., Any]
    """Of a tensor, or of one ``axis`` of it."""
    tanh: Callable[[Any], Any]
    exp: Callable[[Any], Any]
    log1p: Callable[[Any], Any]
    logsumexp: Callable[[Any, int], Any]
    reshape: Callable[[Any, tuple[int, ...]], Any]
    constant: Callable[[Any], Any]
    """The same numbers, without a derivative."""
    inverse: Callable[[Any], Any]
    transpose: Callable[[Any], Any]
    """Of a matrix."""

    def double(self) -> AbstractContextManager[Any]:
        """Within it, arrays of float64 stay what they are."""
        return nullcontext()

    def conv(self, x: Any, kernel: Any) -> Any:
        """Correlation of pictures with filters, in the shape of the pictures.

        x is (pictures, height, width, channels in), the kernel (odd height, odd width, channels
        in, channels out). Beyond its borders a picture goes on mirrored at the outermost pixels.
        """
        raise NotImplementedError

    def step(self, loss: Callable[[Any, Any], tuple[Any, dict[str, Any]]]) -> Step:
        """The value, the figures and the gradient of ``loss(parameters, batch)``."""
        raise NotImplementedError

    def forward(self, function: Callable[[Any, Any], Any]) -> Callable[[Arrays, Arrays], Any]:
        """A function of tensors, to one or a tuple of them, as one of arrays; no derivatives."""
        raise NotImplementedError


class _Torch(Framework):
    def __init__(self) -> None:
        import torch

        self._torch: Any = torch
        self.fpi = import_module("fpicore_torch")
        self.sigmoid, self.relu = torch.sigmoid, torch.relu
        self.softplus, self.sum = torch.nn.functional.softplus, torch.sum
        self.tanh, self.exp, self.log1p = torch.tanh, torch.exp, torch.log1p
        self.logsumexp, self.reshape = torch.logsumexp, torch.reshape
        self.constant = torch.Tensor.detach
        self.inverse, self.transpose = torch.linalg.inv, torch.t

    def conv(self, x: Any, kernel: Any) -> Any:
        functional = self._torch.nn.functional
        (top, bottom), (left, right) = _borders(kernel)
        planes = x.permute(0, 3, 1, 2)  # a view: the channels stay the innermost axis in memory
        padded = functional.pad(planes, (left, right, top, bottom), mode="reflect")
        return functional.conv2d(padded, kernel.permute(3, 2, 0, 1)).permute(0, 2, 3, 1)

    def step(self, loss: Callable[[Any, Any], tuple[Any, dict[str, Any]]]) -> Step:
        def run(parameters: Arrays, batch: Arrays) -> tuple[float, dict[str, Any], Arrays]:
            given = {name: self._tensor(x).requires_grad_() for name, x in parameters.items()}
            value, figures = loss(given, {name: self._tensor(x) for name, x in batch.items()})
            found = self._torch.autograd.grad(value, list(given.values()))
            gradients = {name: g.numpy() for name, g in zip(given, found, strict=True)}
            return value.item(), figures, gradients

        return run

    def forward(self, function: Callable[[Any, Any], Any]) -> Callable[[Arrays, Arrays], Any]:
        def run(parameters: Arrays, batch: Arrays) -> Any:
            trees = [{k: self._tensor(x) for k, x in tree.items()} for tree in (parameters, batch)]
            with self._torch.no_grad():
                return _each(function(*trees), lambda x: x.numpy())

        return run

    def _tensor(self, array: np.ndarray) -> Any:
        return self._torch.from_numpy(array)


class _JAX(Framework):
    def __init__(self) -> None:
        import jax

        self._jax: Any = jax
        self.fpi = import_module("fpicore_jax")
        self.sigmoid, self.relu = jax.nn.sigmoid, jax.nn.relu
        self.softplus, self.sum = jax.nn.softplus, jax.numpy.sum
        self.tanh, self.exp, self.log1p = jax.numpy.tanh, jax.numpy.exp, jax.numpy.log1p
        self.logsumexp, self.reshape = jax.nn.logsumexp, jax.numpy.reshape
        self.constant = jax.lax.stop_gradient
        self.inverse, self.transpose = jax.numpy.linalg.inv, jax.numpy.transpose

    def double(self) -> AbstractContextManager[Any]:
        return self._jax.enable_x64(True)

    def conv(self, x: Any, kernel: Any) -> Any:
        padded = self._jax.numpy.pad(x, ((0, 0), *_borders(kernel), (0, 0)), mode="reflect")
        return self._jax.lax.conv_general_dilated(
            padded, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def step(self, loss: Callable[[Any, Any], tuple[Any, dict[str, Any]]]) -> Step:
        compiled = self._jax.jit(self._jax.value_and_grad(loss, has_aux=True))

        def run(parameters: Arrays, batch: Arrays) -> tuple[float, dict[str, Any], Arrays]:
            (value, figures), gradients = compiled(parameters, batch)
            return float(value), figures, {name: np.asarray(g) for name, g in gradients.items()}

        return run

    def forward(self, function: Callable[[Any, Any], Any]) -> Callable[[Arrays, Arrays], Any]:
        compiled = self._jax.jit(function)
        return lambda parameters, batch: _each(compiled(parameters, batch), np.asarray)


class _TensorFlow(Framework):
    def __init__(self) -> None:
        import tensorflow as tf

        self._tf: Any = tf
        self.fpi = import_module("fpicore_tensorflow")
        self.sigmoid, self.relu = tf.sigmoid, tf.nn.relu
        self.softplus, self.sum = tf.math.softplus, tf.reduce_sum
        self.tanh, self.exp, self.log1p = tf.tanh, tf.exp, tf.math.log1p
        self.logsumexp, self.reshape = tf.reduce_logsumexp, tf.reshape
        self.constant = tf.stop_gradient
        self.inverse, self.transpose = tf.linalg.inv, tf.transpose

    def conv(self, x: Any, kernel: Any) -> Any:
        padded = self._tf.pad(x, ((0, 0), *_borders(kernel), (0, 0)), mode="REFLECT")
        return self._tf.nn.conv2d(padded, kernel, 1, "VALID")

    def step(self, loss: Callable[[Any, Any], tuple[Any, dict[str, Any]]]) -> Step:
        tf = self._tf

        @tf.function(reduce_retracing=True)
        def compiled(parameters: Any, batch: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(parameters)
                value, figures = loss(parameters, batch)
            return value, figures, tape.gradient(value, parameters)

        def run(parameters: Arrays, batch: Arrays) -> tuple[float, dict[str, Any], Arrays]:
            value, figures, gradients = compiled(self._tensors(parameters), self._tensors(batch))
            return float(value), figures, {name: g.numpy() for name, g in gradients.items()}

        return run

    def forward(self, function: Callable[[Any, Any], Any]) -> Callable[[Arrays, Arrays], Any]:
        compiled = self._tf.function(function, reduce_retracing=True)
        return lambda *trees: _each(compiled(*map(self._tensors, trees)), lambda x: x.numpy())

    def _tensors(self, arrays: Arrays) -> Any:
        return {name: self._tf.convert_to_tensor(array) for name, array in arrays.items()}


def _each(found: Any, convert: Callable[[Any], Any]) -> Any:
    return tuple(map(convert, found)) if isinstance(found, tuple) else convert(found)


def _borders(kernel: Any) -> list[tuple[int, int]]:
    """Rows and columns to add for a kernel of odd size."""
    return [(size // 2, size // 2) for size in tuple(kernel.shape)[:2]]


def open_framework(name: str) -> Framework:
    """The framework of that name, on one thread if the environment says so."""
    return {"torch": _Torch, "jax": _JAX, "tensorflow": _TensorFlow}[name]()
