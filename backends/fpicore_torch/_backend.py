"""PyTorch as fpicore's entry sees it."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

import fpicore
from fpicore import (
    AbstractPullBack,
    Backward,
    DerivativeError,
    Forward,
    InputError,
    Iteration,
    Leaves,
    Linear,
    Outcome,
    Problem,
    Results,
    Stats,
)

from ._autodiff import Linearization, Node, depends_on_others
from ._device import TorchDeviceOps
from ._evaluation import outside_compile, unwritten, watched, without_autocast
from ._linear import TorchFigureOps, TorchLinear
from ._ops import TorchOps
from ._recorded import TorchRecordedOps

T = TypeVar("T")


def _is_tensor(x: Any) -> bool:
    return isinstance(x, Tensor)


class TorchBackend:
    """Tensors of every device; reverse mode through an autograd node."""

    name = "torch"

    def flatten(self, tree: Any) -> tuple[Leaves, Callable[[Leaves], Any]]:
        """Leaves and rebuild."""
        return fpicore.flatten(tree, _is_tensor)

    def flatten_like(self, tree: Any, like: Any) -> Leaves:
        """Leaves in the order of ``like``."""
        return fpicore.flatten_like(tree, like, _is_tensor)

    def dtype_name(self, leaf: Tensor) -> str:
        """The name without torch's prefix."""
        return str(leaf.dtype).removeprefix("torch.")

    def admit(self, new: Tensor, old: Tensor) -> Tensor | None:
        """The tensor if alike; under autocast, which narrows results on purpose, a cast of it."""
        if new.shape != old.shape or new.device != old.device:
            return None
        if new.dtype is old.dtype:
            return new
        return new.to(old.dtype) if torch.is_autocast_enabled(old.device.type) else None

    def ops(self, leaves: Leaves, batch_ndim: int) -> TorchOps:
        """Numbers on the host for the CPU, on the device otherwise."""
        eps = fpicore.accumulation_eps(tuple(self.dtype_name(leaf) for leaf in leaves))
        device = leaves[0].device
        if any(leaf.device != device for leaf in leaves) or device.type == "meta":
            raise InputError(
                "expected the leaves of z0 on one device that computes, received "
                f"{sorted({str(leaf.device) for leaf in leaves})}; move z0 before the call"
            )
        if device.type == "cpu":
            return TorchOps(batch_ndim, eps)
        return TorchDeviceOps(batch_ndim, eps, device)

    @outside_compile
    def solve(self, problem: Problem, iteration: Iteration, adjoint: AbstractPullBack) -> Outcome:
        """Solve without recording; then attach the gradient level by level."""
        _refuse_transforms()
        ops = self.ops(problem.leaves, problem.batch_ndim)
        device = problem.leaves[0].device.type
        with torch.no_grad(), without_autocast(device) as resume:
            f = resume(watched(problem.map))
            start = tuple(leaf.detach() for leaf in problem.leaves)
            z, results, stats, memory = iteration.run(ops, f, start)
            # f may have returned a tensor that the caller holds, and z0 may be the answer.
            z = tuple(leaf.clone() for leaf in z)
        backward = None
        if torch.is_grad_enabled():
            backward = Backward()
            z = _attach(problem, adjoint.forward(iteration, memory), adjoint, ops, z, backward)
        aux = problem.evaluate(z)[1] if problem.has_aux else None
        return z, results, stats, aux, backward

    @outside_compile
    def unroll(self, problem: Problem, iteration: Iteration, segment: int | None) -> Outcome:
        """Iterate under autograd's eyes; in its absence the plain solve is the same."""
        eps = self.ops(problem.leaves, problem.batch_ndim).eps
        device = problem.leaves[0].device
        ops = TorchRecordedOps(problem.batch_ndim, eps, device, segment)
        with without_autocast(device.type) as resume:
            f = resume(unwritten(problem.map))
            z, results, stats, _ = iteration.run(ops, f, problem.leaves)
        aux = problem.evaluate(z)[1] if problem.has_aux else None
        return z, results, stats, aux, None

    @torch.no_grad()
    def solve_adjoint(
        self, problem: Problem, iteration: Iteration, adjoint: AbstractPullBack
    ) -> tuple[Leaves, Results, Stats]:
        """The adjoint solve itself."""
        ops = self.ops(problem.leaves, problem.batch_ndim)
        return adjoint.pull_back(ops, problem.map, problem.leaves, Forward(iteration))

    @outside_compile
    def linearize(self, problem: Problem, use: Callable[[Linear], T], recorded: bool) -> T:
        """By autograd, whatever the caller's grad mode; it decides what is kept for later."""
        _refuse_transforms()
        ops = self.ops(problem.leaves, problem.batch_ndim)
        device, followed = problem.leaves[0].device, recorded and torch.is_grad_enabled()
        if recorded:
            ops = TorchFigureOps(problem.batch_ndim, ops.eps, device, None)
        # In inference mode autograd would find no dependence, and J would be zero without a word.
        with torch.inference_mode(False), torch.enable_grad():
            line = TorchLinear(problem, ops, followed)
            with without_autocast(device.type):
                return use(line)

    def detach(self, tree: Any) -> Any:
        """Tensors in plain containers, detached."""
        return fpicore.map_leaves(tree, _is_tensor, Tensor.detach)

    def is_concrete(self, results: Results) -> bool:
        """Always: torch.compile breaks its graph around a solve."""
        return True


def _attach(
    problem: Problem,
    forward: Forward,
    adjoint: AbstractPullBack,
    ops: TorchOps,
    value: Leaves,
    record: Backward,
) -> Leaves:
    """value, with the pull-back of the fixed point exact to ``adjoint.order``."""
    inputs = tuple(leaf.clone().requires_grad_() for leaf in value)
    outputs = problem.map(inputs)
    starts = [leaf for leaf in problem.leaves if leaf.requires_grad and leaf.is_leaf]
    if not starts and not depends_on_others(outputs, inputs):
        return value
    line = Linearization(outputs, inputs)

    def solve(v: Leaves, tangent: bool) -> Leaves:
        product = line.jvp if tangent else line.vjp
        with without_autocast(value[0].device.type) as resume:
            g, results, stats = adjoint.pull_back(ops, resume(product), v, forward, tangent)
        record.note(results, stats)
        adjoint.conclude(results, stats)
        return g

    fixed = tuple(leaf.detach() for leaf in inputs)
    out = Node.apply(solve, adjoint.order, value, *outputs, *fixed, *starts)
    for _ in range(1, adjoint.order):
        out = Node.apply(solve, adjoint.order, value, *problem.map(out), *out)
    return out


def _refuse_transforms() -> None:
    """torch.func and dual numbers would go through the iteration or past the node unseen."""
    functorch = torch._C._are_functorch_transforms_active()
    if functorch or forward_ad._current_level >= 0:
        raise DerivativeError(
            "expected plain autograd (backward, torch.autograd.grad), received a torch.func "
            "transform or forward-mode AD, which fpicore_torch does not support yet; take the "
            "gradient with torch.autograd"
        )
