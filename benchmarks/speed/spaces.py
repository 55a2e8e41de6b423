"""The functions of which the maps are made, in each framework's idiom.

Images are channels-last in the data; PyTorch has channels in front of the picture.
"""

from collections.abc import Callable
from typing import Any

import numpy as np


class NumpySpace:
    """NumPy, which has neither derivatives nor bfloat16."""

    tanh = staticmethod(np.tanh)
    total = staticmethod(np.sum)
    reshape = staticmethod(np.reshape)

    def __init__(self, dtype: str) -> None:
        if dtype == "bfloat16":
            raise NotImplementedError("NumPy has no bfloat16")
        self.dtype = dtype

    def tensor(self, array: np.ndarray, role: str = "") -> Any:
        """An array of the framework."""
        return array.astype(self.dtype)

    def array(self, tensor: Any, role: str = "") -> np.ndarray:
        """The numbers in float64, in the layout of the data."""
        return np.asarray(tensor, np.float64)

    def linear(self, z: Any, w: Any, b: Any = 0.0) -> Any:
        """z wᵀ + b."""
        return z @ w.T + b

    def relu(self, z: Any) -> Any:
        """max(z, 0)."""
        return np.maximum(z, 0.0)

    def softplus(self, z: Any) -> Any:
        """log(1 + exp z)."""
        return np.logaddexp(z, 0.0)

    def max(self, z: Any) -> Any:
        """Over the last axis."""
        return z.max(axis=-1)

    def conv(self, z: Any, kernel: Any) -> Any:
        """Same padding: nine products."""
        rows, columns = z.shape[1:3]
        wide = np.pad(z, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return sum(
            wide[:, i : i + rows, j : j + columns] @ kernel[i, j]
            for i in range(3)
            for j in range(3)
        )

    def heads(self, z: Any, count: int) -> Any:
        """(batch, time, features) to (batch, head, time, features of a head)."""
        return np.moveaxis(z.reshape(*z.shape[:2], count, -1), 2, 1)

    def join(self, z: Any) -> Any:
        """The inverse of ``heads``."""
        moved = np.moveaxis(z, 1, 2)
        return moved.reshape(*moved.shape[:2], -1)

    def attention(self, q: Any, k: Any, v: Any) -> Any:
        """softmax(q kᵀ / √d) v."""
        scores = q @ np.swapaxes(k, -1, -2) / q.dtype.type(q.shape[-1] ** 0.5)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return scores / scores.sum(axis=-1, keepdims=True) @ v

    def norm(self, z: Any) -> Any:
        """Mean 0 and variance 1 along the last axis."""
        centred = z - z.mean(axis=-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + z.dtype.type(1e-5))

    def gradient(self, energy: Callable[[Any], Any], z: Any) -> Any:
        """Nothing to do it with."""
        raise NotImplementedError("NumPy has no derivatives")


class TorchSpace:
    """PyTorch."""

    def __init__(self, dtype: str, device: str = "cpu") -> None:
        import torch

        self._torch, self._f = torch, torch.nn.functional
        self.dtype, self.device = getattr(torch, dtype), torch.device(device)
        self.tanh, self.relu, self.total = torch.tanh, torch.relu, torch.sum
        self.reshape, self.linear = torch.reshape, self._f.linear
        self.softplus, self.attention = self._f.softplus, self._f.scaled_dot_product_attention

    def tensor(self, array: np.ndarray, role: str = "") -> Any:
        """An array of the framework."""
        found = self._torch.tensor(array, dtype=self.dtype, device=self.device)
        if role == "kernel":
            return found.permute(3, 2, 0, 1).contiguous()
        return found.permute(0, 3, 1, 2).contiguous() if role == "image" else found

    def array(self, tensor: Any, role: str = "") -> np.ndarray:
        """The numbers in float64, in the layout of the data."""
        found = tensor.detach().to("cpu", self._torch.float64).numpy()
        if role == "kernel":
            return found.transpose(2, 3, 1, 0)
        return found.transpose(0, 2, 3, 1) if role == "image" else found

    def max(self, z: Any) -> Any:
        """Over the last axis."""
        return z.amax(dim=-1)

    def conv(self, z: Any, kernel: Any) -> Any:
        """Same padding."""
        return self._f.conv2d(z, kernel, padding=1)

    def heads(self, z: Any, count: int) -> Any:
        """(batch, time, features) to (batch, head, time, features of a head)."""
        return z.unflatten(-1, (count, -1)).transpose(1, 2)

    def join(self, z: Any) -> Any:
        """The inverse of ``heads``."""
        return z.transpose(1, 2).flatten(2)

    def norm(self, z: Any) -> Any:
        """Mean 0 and variance 1 along the last axis."""
        return self._f.layer_norm(z, z.shape[-1:])

    def gradient(self, energy: Callable[[Any], Any], z: Any) -> Any:
        """By autograd, recorded where the caller records."""
        recorded = self._torch.is_grad_enabled()
        with self._torch.enable_grad():
            at = z if z.requires_grad else z.detach().requires_grad_()
            return self._torch.autograd.grad(energy(at), at, create_graph=recorded)[0]


class JaxSpace:
    """JAX."""

    def __init__(self, dtype: str) -> None:
        import jax

        jax.config.update("jax_enable_x64", dtype == "float64")
        self._jax, self._np, self.dtype = jax, jax.numpy, jax.numpy.dtype(dtype)
        self.tanh, self.relu, self.total = jax.numpy.tanh, jax.nn.relu, jax.numpy.sum
        self.reshape, self.softplus = jax.numpy.reshape, jax.nn.softplus

    def tensor(self, array: np.ndarray, role: str = "") -> Any:
        """An array of the framework."""
        return self._np.asarray(array, self.dtype)

    def array(self, tensor: Any, role: str = "") -> np.ndarray:
        """The numbers in float64, in the layout of the data."""
        return np.asarray(tensor).astype(np.float64)

    def linear(self, z: Any, w: Any, b: Any = None) -> Any:
        """z wᵀ + b."""
        return z @ w.T if b is None else z @ w.T + b

    def max(self, z: Any) -> Any:
        """Over the last axis."""
        return z.max(axis=-1)

    def conv(self, z: Any, kernel: Any) -> Any:
        """Same padding."""
        return self._jax.lax.conv_general_dilated(
            z, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def heads(self, z: Any, count: int) -> Any:
        """(batch, time, features) to (batch, head, time, features of a head)."""
        return self._np.moveaxis(z.reshape(*z.shape[:2], count, -1), 2, 1)

    def join(self, z: Any) -> Any:
        """The inverse of ``heads``."""
        moved = self._np.moveaxis(z, 1, 2)
        return moved.reshape(*moved.shape[:2], -1)

    def attention(self, q: Any, k: Any, v: Any) -> Any:
        """softmax(q kᵀ / √d) v."""
        scores = q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5
        return self._jax.nn.softmax(scores, axis=-1) @ v

    def norm(self, z: Any) -> Any:
        """Mean 0 and variance 1 along the last axis."""
        return self._jax.nn.standardize(z, axis=-1, epsilon=1e-5)

    def gradient(self, energy: Callable[[Any], Any], z: Any) -> Any:
        """By jax.grad."""
        return self._jax.grad(energy)(z)


class TensorFlowSpace:
    """TensorFlow."""

    def __init__(self, dtype: str) -> None:
        import tensorflow as tf

        self._tf, self.dtype = tf, tf.as_dtype(dtype)
        self.tanh, self.relu, self.total = tf.tanh, tf.nn.relu, tf.reduce_sum
        self.reshape, self.softplus = tf.reshape, tf.nn.softplus

    def tensor(self, array: np.ndarray, role: str = "") -> Any:
        """An array of the framework."""
        return self._tf.convert_to_tensor(array, self.dtype)

    def array(self, tensor: Any, role: str = "") -> np.ndarray:
        """The numbers in float64, in the layout of the data."""
        return self._tf.cast(tensor, self._tf.float64).numpy()

    def linear(self, z: Any, w: Any, b: Any = None) -> Any:
        """z wᵀ + b."""
        if len(z.shape) == 2:
            product = self._tf.linalg.matmul(z, w, transpose_b=True)
        else:
            product = self._tf.tensordot(z, w, [[-1], [1]])
        return product if b is None else product + b

    def max(self, z: Any) -> Any:
        """Over the last axis."""
        return self._tf.reduce_max(z, axis=-1)

    def conv(self, z: Any, kernel: Any) -> Any:
        """Same padding."""
        return self._tf.nn.conv2d(z, kernel, strides=1, padding="SAME")

    def heads(self, z: Any, count: int) -> Any:
        """(batch, time, features) to (batch, head, time, features of a head)."""
        batch, time, features = z.shape
        split = self._tf.reshape(z, (batch, time, count, features // count))
        return self._tf.transpose(split, (0, 2, 1, 3))

    def join(self, z: Any) -> Any:
        """The inverse of ``heads``."""
        batch, count, time, features = z.shape
        moved = self._tf.transpose(z, (0, 2, 1, 3))
        return self._tf.reshape(moved, (batch, time, count * features))

    def attention(self, q: Any, k: Any, v: Any) -> Any:
        """softmax(q kᵀ / √d) v."""
        scores = self._tf.matmul(q, k, transpose_b=True) / q.shape[-1] ** 0.5
        return self._tf.matmul(self._tf.nn.softmax(scores), v)

    def norm(self, z: Any) -> Any:
        """Mean 0 and variance 1 along the last axis."""
        mean, variance = self._tf.nn.moments(z, axes=[-1], keepdims=True)
        return (z - mean) * self._tf.math.rsqrt(variance + 1e-5)

    def gradient(self, energy: Callable[[Any], Any], z: Any) -> Any:
        """By a tape of its own."""
        with self._tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(z)
            value = energy(z)
        return tape.gradient(value, z)
