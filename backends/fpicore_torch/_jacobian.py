"""f linearised at one z, for figures of its Jacobian."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fpicore import InputError, Leaves, Problem

from ._capture import depends_on_others
from ._evaluation import unwritten
from ._ops import TorchOps
from ._products import Linearization
from ._recorded import TorchRecordedOps


class TorchLinear:
    """`fpicore.Linear` by autograd; with ``recorded``, its products keep their graph."""

    def __init__(self, problem: Problem, ops: TorchOps, recorded: bool) -> None:
        """Evaluate f at a copy of z: f may close over z itself, which is no argument then."""
        self.ops, self._leaves = ops, problem.leaves
        copies = [leaf.clone() if recorded else leaf.detach().clone() for leaf in problem.leaves]
        inputs = tuple(c if c.requires_grad else c.requires_grad_() for c in copies)
        outputs = unwritten(problem.map)(inputs)
        self._line = Linearization(outputs, inputs)
        # Without this a graph that leads to nothing of the caller's would hang on the answer.
        self._recorded = recorded and depends_on_others(outputs, set(map(id, inputs)))

    def pull(self, g: Leaves) -> Leaves:
        """Jᵀg, conjugated where it is complex."""
        return self._line.vjp(g, self._recorded)

    def signs(self, count: int, rng: Any) -> list[Leaves]:
        """Drawn on the device of the leaf."""
        if rng is not None and not isinstance(rng, torch.Generator):
            raise InputError(
                "expected rng to be a torch.Generator, or None for the global one; "
                f"received {type(rng).__qualname__}"
            )
        return [tuple(_signs(leaf, rng) for leaf in self._leaves) for _ in range(count)]

    def fill(self, formula: Callable[[Any], Any]) -> Leaves:
        """Counted in int64, divided in float64 where the device knows it."""
        filled, first = [], 1
        for leaf in self._leaves:
            real = (
                torch.view_as_real(leaf).movedim(-1, self.ops.batch_ndim)
                if (leaf.is_complex())
                else leaf
            )
            shape = real.shape[self.ops.batch_ndim :]
            count = math.prod(shape)
            i = torch.arange(first, first + count, device=leaf.device)
            wide = torch.float32 if leaf.device.type == "mps" else torch.float64
            values = (formula(i).to(wide) / 2.0**31).to(real.dtype).view(shape)
            if leaf.is_complex():
                values = torch.complex(values[0], values[1])
            filled.append(values.expand(leaf.shape).clone())
            first += count
        return tuple(filled)


class TorchFigureOps(TorchRecordedOps):
    """Numbers that autograd follows, in the precision of the state."""

    def dot(self, a: Tensor, b: Tensor) -> Tensor:
        """Per system Re Σ conj(a)·b; no norm, whose second derivative at zero is NaN."""
        return self._number(torch.linalg.vecdot(self._rows(a), self._rows(b)))

    def _number(self, x: Tensor) -> Tensor:
        return x.real if x.is_complex() else x


def _signs(leaf: Tensor, rng: torch.Generator | None) -> Tensor:
    real = torch.view_as_real(leaf.detach()) if leaf.is_complex() else leaf.detach()
    signs = torch.empty_like(real).bernoulli_(0.5, generator=rng) * 2 - 1
    return torch.view_as_complex(signs / math.sqrt(2)) if leaf.is_complex() else signs
