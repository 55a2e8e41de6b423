"""PyTorch as fpicore's entry sees it."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import lru_cache, partial
from typing import Any, TypeVar

import torch
from torch import Tensor

import fpicore
from fpicore import (
    AbstractPullBack,
    Backward,
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

from ._arrays import passage
from ._autodiff import Node
from ._capture import capture, depends_on_others
from ._device import TorchDeviceOps
from ._energy import energy_gradient
from ._evaluation import outside_compile, unwritten, watched, without_autocast
from ._explicit import ExplicitSolver, LazyRules, solve_under_transforms
from ._frozen import Frozen
from ._jacobian import TorchFigureOps, TorchLinear
from ._levels import is_batched, refuse_transforms, transforms_active
from ._ops import TorchOps
from ._products import Linearization
from ._recorded import TorchRecordedOps
from ._reversed import reversed_solve
from ._staged import Staged
from ._staged_map import Line, Map

T = TypeVar("T")


@lru_cache
def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@lru_cache
def _eps(dtypes: tuple[torch.dtype, ...]) -> float:
    return fpicore.accumulation_eps(tuple(map(_name, dtypes)))


def _is_tensor(x: Any) -> bool:
    return isinstance(x, Tensor)


class TorchBackend:
    """Tensors of every device; reverse mode through an autograd node."""

    name = "torch"
    frames = 1

    def flatten(self, tree: Any) -> tuple[Leaves, Callable[[Leaves], Any]]:
        """Leaves and rebuild."""
        return fpicore.flatten(tree, _is_tensor)

    def flatten_like(self, tree: Any, like: Any) -> Leaves:
        """Leaves in the order of ``like``."""
        return fpicore.flatten_like(tree, like, _is_tensor)

    def dtype_name(self, leaf: Tensor) -> str:
        """The name without torch's prefix."""
        return _name(leaf.dtype)

    def admit(self, new: Tensor, old: Tensor) -> Tensor | None:
        """The tensor if alike; under autocast, which narrows results on purpose, a cast of it."""
        if new.shape != old.shape or new.device != old.device:
            return None
        if new.dtype is old.dtype:
            return new
        return new.to(old.dtype) if torch.is_autocast_enabled(old.device.type) else None

    def ops(self, leaves: Leaves, batch_ndim: int) -> TorchOps:
        """Numbers on the host for the CPU, on the device otherwise."""
        eps = _eps(tuple([leaf.dtype for leaf in leaves]))
        device = leaves[0].device
        if [leaf for leaf in leaves if leaf.device != device] or device.type == "meta":
            raise InputError(
                "expected the leaves of z0 on one device that computes, received "
                f"{sorted({str(leaf.device) for leaf in leaves})}; move z0 before the call"
            )
        if device.type == "cpu":
            return TorchOps(batch_ndim, eps)
        ops = TorchDeviceOps(batch_ndim, eps, device)
        ops.roomy &= not any(leaf.dtype in (torch.float64, torch.complex128) for leaf in leaves)
        return ops

    @outside_compile
    def solve(self, problem: Problem, iteration: Iteration, adjoint: AbstractPullBack) -> Outcome:
        """Solve without recording; then attach the gradient level by level."""
        frozen = Frozen(problem)
        if transforms_active():
            z, results, stats, backward = solve_under_transforms(
                problem, frozen, iteration, adjoint, self.ops
            )
            return z, results, stats, _aux(problem, frozen, z), backward
        ops = self.ops(problem.leaves, problem.batch_ndim)
        device, followed = problem.leaves[0].device.type, torch.is_grad_enabled()
        apart = torch.no_grad() if followed else nullcontext()
        with apart, without_autocast(device) as resume:
            start = tuple([leaf.detach() for leaf in problem.leaves])
            f, line = resume(watched(frozen.within)), None
            if isinstance(problem.f, Staged):
                staged = problem.f.read(problem, frozen, start, followed)
                if staged is not None:
                    f, ops = staged, problem.f.ops(ops, start)
            z, results, stats, memory = passage(ops, start)(iteration.run, f, start, problem.budget)
            # f may have returned a tensor that the caller holds, and z0 may be the answer.
            z = tuple([leaf.clone() for leaf in z])
        backward = None
        if followed:
            backward = Backward()
            forward = adjoint.forward(iteration, memory)
            if isinstance(f, Map):
                line = Line(problem.f, f, z)
            z = attach(self, problem, frozen, forward, adjoint, z, backward, line)
        else:
            frozen.take_effect(z)
        return z, results, stats, _aux(problem, frozen, z), backward

    @outside_compile
    def unroll(self, problem: Problem, iteration: Iteration, segment: int | None) -> Outcome:
        """Iterate under autograd's eyes; in its absence the plain solve is the same."""
        eps = self.ops(problem.leaves, problem.batch_ndim).eps
        device, frozen = problem.leaves[0].device, Frozen(problem)
        ops = TorchRecordedOps(problem.batch_ndim, eps, device, segment)
        with without_autocast(device.type) as resume:
            f = resume(unwritten(frozen))
            z, results, stats, _ = iteration.run(ops, f, problem.leaves, problem.budget)
            moves = transforms_active() or any([leaf.requires_grad for leaf in z])  # noqa: C419
            if torch.is_grad_enabled() and not moves:
                # For want of a dependence, or because a reentrant checkpoint has hidden it.
                inputs = tuple([leaf.detach().clone().requires_grad_() for leaf in z])
                depends_on_others(f(inputs), set(map(id, inputs)))
        frozen.take_effect(z)
        return z, results, stats, _aux(problem, frozen, z), None

    @outside_compile
    def reverse(self, problem: Problem, iteration: Iteration, sweep: Any) -> Outcome:
        """Iterate, with a node whose backward pass runs the iteration backwards."""
        ops, frozen = self.ops(problem.leaves, problem.batch_ndim), Frozen(problem)
        z, results, stats, record = reversed_solve(frozen, problem, ops, iteration, sweep)
        return z, results, stats, _aux(problem, frozen, z), record

    @torch.no_grad()
    def solve_adjoint(
        self, problem: Problem, iteration: Iteration, adjoint: AbstractPullBack
    ) -> tuple[Leaves, Results, Stats]:
        """The adjoint solve itself."""
        way = passage(self.ops(problem.leaves, problem.batch_ndim), problem.leaves)
        return way(adjoint.pull_back, problem.map, problem.leaves, Forward(iteration))

    @outside_compile
    def linearize(self, problem: Problem, use: Callable[[Linear], T], recorded: bool) -> T:
        """By autograd, whatever the caller's grad mode; it decides what is kept for later."""
        refuse_transforms("a figure of the Jacobian")
        ops = self.ops(problem.leaves, problem.batch_ndim)
        device, followed = problem.leaves[0].device, recorded and torch.is_grad_enabled()
        if recorded:
            ops = TorchFigureOps(problem.batch_ndim, ops.eps, device, None)
        # In inference mode autograd would find no dependence, and J would be zero without a word.
        with torch.inference_mode(False), torch.enable_grad():
            line = TorchLinear(problem, ops, followed)
            with without_autocast(device.type):
                return use(line)

    def gradient(self, energy: Callable[..., Any], z: Leaves, args: tuple[Any, ...]) -> Leaves:
        """By autograd, recorded where the caller records."""
        return energy_gradient(energy, z, args)

    def detach(self, tree: Any) -> Any:
        """Tensors in plain containers, detached."""
        return fpicore.map_leaves(tree, _is_tensor, Tensor.detach)

    def is_concrete(self, results: Results) -> bool:
        """Outside of vmap; torch.compile breaks its graph around a solve."""
        return not (isinstance(results.codes, Tensor) and is_batched(results.codes))


def _aux(problem: Problem, frozen: Frozen, z: Leaves) -> Any:
    """The auxiliary output of f at z."""
    return frozen.run(problem.evaluate, z)[1] if problem.has_aux else None


def attach(
    backend: TorchBackend,
    problem: Problem,
    frozen: Frozen,
    forward: Forward,
    adjoint: AbstractPullBack,
    value: Leaves,
    record: Backward,
    staged: Line | None = None,
) -> Leaves:
    """value, with the pull-back of the fixed point exact to ``adjoint.order``."""
    # On the memory of value, which nobody else sees: what is returned is another copy.
    inputs = tuple(leaf.detach().requires_grad_() for leaf in value)
    found = None
    if adjoint.order is None:
        found = frozen.lasting(partial(capture, frozen), inputs)
        # An output buffer that f writes anew each time carries nothing over.
        frozen.warn_of([x for x in found.written if not any(x is y for y in found.outputs)])
    outputs = frozen.lasting(frozen, inputs) if found is None else found.outputs
    starts = [leaf for leaf in problem.leaves if leaf.requires_grad and leaf.is_leaf]
    if not depends_on_others(outputs, set(map(id, inputs))) and not starts:
        return value
    line = Linearization(outputs, inputs)

    def solve(v: Leaves, tangent: bool) -> Leaves:
        ops = backend.ops(value, problem.batch_ndim)
        if staged is not None and not tangent:
            with torch.no_grad():
                found = staged.pull_back(ops, adjoint, v, forward, line.vjp)
            return concluded(*found)
        product = line.jvp if tangent else line.vjp
        way = passage(ops, v)
        with without_autocast(value[0].device.type) as resume:
            found = way(adjoint.pull_back, resume(product), v, forward, tangent)
        return concluded(*found)

    def concluded(g: Leaves, results: Results, stats: Stats) -> Leaves:
        record.note(results, stats)
        adjoint.conclude(results, stats)
        return g

    rules = None
    if found is not None:
        solver = ExplicitSolver(forward.iteration, adjoint, backend.ops, record)
        rules = LazyRules(found, solver, problem.batch_ndim)
    fixed = tuple(leaf.detach() for leaf in inputs)
    order, tensors = adjoint.order or 1, rules.tensors if rules else ()
    out = Node.apply(solve, order, rules, value, *outputs, *fixed, *starts, *tensors)
    for _ in range(1, order):
        out = Node.apply(solve, order, None, value, *frozen(out), *out)
    return out
