"""PyTorch's side of ``fpicore verify``."""

from typing import Any, ClassVar

import torch

import fpicore_torch
from fpicore.verify.arrays import Array, Tree
from fpicore.verify.extras import require
from fpicore.verify.harness import Entries, Harness, Leaves, Task
from fpicore.verify.probes import Probes

from ._probes import PROBES


class TorchHarness(Harness):
    """Eager PyTorch; gradients by ``torch.autograd.grad``."""

    name: ClassVar[str] = "torch"
    modes: ClassVar[tuple[str, ...]] = ("eager",)
    library: ClassVar[Any] = fpicore_torch
    probes: ClassVar[Probes] = PROBES
    ways: ClassVar[tuple[str, ...]] = ("argument", "closure")

    @property
    def namespace(self) -> Any:
        """PyTorch under the names of the array API."""
        return require("array_api_compat.torch", "maps in array-API style", "array-api-compat")

    def asarray(self, array: Array) -> torch.Tensor:
        """A tensor of its own memory."""
        return torch.tensor(array)

    def to_numpy(self, tensor: torch.Tensor) -> Array:
        """A detached copy on the host."""
        return tensor.detach().cpu().numpy()

    def differentiate(
        self, task: Task, z0: Tree, args: Leaves, data: Tree
    ) -> tuple[Entries, Leaves]:
        """One forward and one backward pass."""
        parameters = tuple(leaf.requires_grad_() for leaf in args)
        loss, entries = self.objective(task, z0, data)(parameters)
        if not parameters:
            return entries, ()
        return entries, torch.autograd.grad(
            loss, parameters, allow_unused=True, materialize_grads=True
        )


HARNESS = TorchHarness
