"""JAX's side of ``fpicore verify``."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

import fpicore_jax
from fpicore.verify.arrays import Array, Tree
from fpicore.verify.harness import Entries, Harness, Leaves, Task
from fpicore.verify.probes import Probes

from ._probes import PROBES


class JAXHarness(Harness):
    """JAX compiled or op by op; gradients by ``jax.value_and_grad``."""

    name: ClassVar[str] = "jax"
    modes: ClassVar[tuple[str, ...]] = ("jit", "eager")
    library: ClassVar[Any] = fpicore_jax
    probes: ClassVar[Probes] = PROBES

    @property
    def namespace(self) -> Any:
        """``jax.numpy`` follows the array API."""
        return jnp

    def asarray(self, array: Array) -> jax.Array:
        """An array on the default device."""
        return jnp.asarray(array)

    def to_numpy(self, tensor: jax.Array) -> Array:
        """A copy on the host."""
        return np.asarray(tensor)

    def precision(self, dtype: str) -> AbstractContextManager[Any]:
        """64-bit mode in this context alone; outside of it JAX truncates float64."""
        enable_x64: Any = getattr(jax, "enable_x64", None)
        if enable_x64 is None:  # older versions have it elsewhere
            enable_x64 = import_module("jax.experimental").enable_x64
        return enable_x64(dtype == "float64")

    def compile(self, function: Callable[..., Any], mode: str) -> Callable[..., Any]:
        """``jax.jit`` in mode jit."""
        return jax.jit(function) if mode == "jit" else function

    def settle(self) -> None:
        """Callbacks run in a thread of their own."""
        jax.effects_barrier()

    def differentiate(
        self, task: Task, z0: Tree, args: Leaves, data: Tree
    ) -> tuple[Entries, Leaves]:
        """Value and gradient in one function."""
        objective = self.objective(task, z0, data)
        (_, entries), gradients = jax.value_and_grad(objective, has_aux=True)(args)
        return entries, gradients


HARNESS = JAXHarness
