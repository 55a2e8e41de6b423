"""Solves of an equation whose captured tensors are explicit."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fpicore import (
    AbstractPullBack,
    Backward,
    DerivativeError,
    Forward,
    InputError,
    Iteration,
    Leaves,
    Problem,
    Results,
    Stats,
)

from ._capture import Captured, Explicit, alias, capture, check
from ._evaluation import agree, watched, without_autocast
from ._frozen import Frozen
from ._levels import each_sample, is_batched, refuse_legacy_vmap, refuse_tracing
from ._ops import TorchOps
from ._products import Linearization
from ._transforms import Equation, Root, pull_back

MakeOps = Callable[[Leaves, int], TorchOps]


class ExplicitSolver:
    """How an `Equation` is solved on plain tensors, whatever transforms are around it."""

    def __init__(
        self,
        iteration: Iteration,
        adjoint: AbstractPullBack,
        ops: MakeOps,
        record: Backward,
        frozen: Frozen | None = None,
        budget: Any = None,
    ) -> None:
        """``record`` is told of each linear solve; ``frozen`` is what f is made of."""
        self.frozen, self.budget = frozen, budget
        self.iteration, self.adjoint, self.ops, self.record = iteration, adjoint, ops, record
        self.outcome: tuple[Results, Stats] | None = None

    def equation(self, explicit: Explicit, size: int, batch_ndim: int) -> Equation:
        """The equation z = f(T, z), solved by this."""
        solve = partial(self.solve, explicit)
        order = self.adjoint.order
        return Equation(explicit, size, batch_ndim, order, solve, self.solve_linear)

    @torch.no_grad()
    def solve(self, root: Explicit, equation: Equation, tensors: Leaves, z0: Leaves) -> Leaves:
        """z*, and tensors that tell how the solve went: five of the batch shape, and the trace."""
        check(equation.explicit, root, tensors, z0)
        ops = self.ops(z0, equation.batch_ndim)
        with without_autocast(z0[0].device.type) as resume:
            f = resume(watched(partial(equation.explicit, tensors)))
            z, results, stats, _ = self.iteration.run(ops, f, z0, self.budget)
            if self.frozen is not None:
                self.frozen.take_effect(z, f)
        self.outcome = results, stats
        shape = z0[0].shape[: equation.batch_ndim]
        numbers = [torch.as_tensor(x) for x in (results.codes, *stats[:4])]
        told = [x.expand(shape).clone() for x in numbers]
        if stats.trace is not None:
            told.append(torch.as_tensor(stats.trace).clone())
        return *[leaf.clone() for leaf in z], *told

    @torch.no_grad()
    def solve_linear(
        self, equation: Equation, tangent: bool, tensors: Leaves, z: Leaves, v: Leaves
    ) -> Leaves:
        """g = Jᵀg + v or, tangent, g = Jg + v."""
        refuse_legacy_vmap((*z, *tensors))
        found = each_sample(partial(self.solve_linear, equation, tangent, tensors, z), v)
        if found is not None:
            return found
        inputs = tuple([leaf.detach().clone().requires_grad_() for leaf in z])
        with torch.enable_grad():
            # A checkpoint in f recomputes with the captured tensors themselves, and saves as many
            # tensors as here only if these require gradients as those do.
            detached = tuple([x.detach().requires_grad_(x.requires_grad) for x in tensors])
            line = Linearization(equation.explicit(detached, inputs), inputs)
        ops = self.ops(inputs, equation.batch_ndim)
        product = line.jvp if tangent else line.vjp
        forward = Forward(self.iteration)
        with without_autocast(z[0].device.type) as resume:
            g, results, stats = self.adjoint.pull_back(ops, resume(product), v, forward, tangent)
        self.record.note(results, stats)
        self.adjoint.conclude(results, stats)
        return tuple([leaf.clone() for leaf in g])


class LazyRules:
    """Derivatives of every order for a fixed point that is already found."""

    def __init__(self, found: Captured, solver: ExplicitSolver, batch_ndim: int) -> None:
        """The captured tensors are aliased, so that an enclosing capture sees them."""
        self.tensors = tuple(map(alias, found.tensors))
        self._root, self._outputs = found.explicit, tuple([x.detach() for x in found.outputs])
        self._equation = solver.equation(found.explicit, len(found.outputs), batch_ndim)

    def obstacle(self, z: Leaves) -> str | None:
        """What keeps f at z from being a function of the tensors, if anything does."""
        try:
            again = check(self._root, self._root, self.tensors, z)
        except DerivativeError as error:
            return str(error)
        same = agree(again, self._outputs, self._equation.batch_ndim, ROUNDING)
        return None if same else DRIFTED

    def pull_back(self, z: Leaves, v: Leaves) -> list[Tensor | None]:
        """(∂f/∂T)ᵀg, to be differentiated again."""
        return pull_back(self._equation, self.tensors, z, v)


ROUNDING = 0.75
"""Two evaluations at one point agree to this power of the machine precision."""
DRIFTED = (
    "expected f to give at the fixed point what it gave when it was solved, received another "
    "value; something that f reads has changed in between, so a second derivative would be that "
    "of another map. Leave it as it was until the backward pass, or pass adjoint=Implicit(order=2) "
    "or higher"
)


_COMPACT = (
    "expected compact=None within torch.func and forward-mode AD, received one; leave it out, or "
    "call fixed_point outside of the transform"
)


def solve_under_transforms(
    problem: Problem,
    frozen: Frozen,
    iteration: Iteration,
    adjoint: AbstractPullBack,
    ops: MakeOps,
) -> tuple[Leaves, Results, Stats, Backward]:
    """The fixed point as a function that torch.func and forward-mode AD know how to transform."""
    refuse_tracing()
    if iteration.compact:
        raise InputError(_COMPACT)
    start = tuple([leaf.detach() for leaf in problem.leaves])
    found = capture(frozen, start)
    solver = ExplicitSolver(iteration, adjoint, ops, Backward(), frozen, problem.budget)
    equation = solver.equation(found.explicit, len(start), problem.batch_ndim)
    # Aliases, so that an enclosing capture sees them.
    tensors = map(alias, found.tensors)
    out: Any = Root.apply(equation, *start, *tensors)
    z, (codes, *numbers) = out[: len(start)], out[len(start) :]
    if is_batched(codes) or solver.outcome is None:
        return z, Results(codes), Stats(*numbers), solver.record
    return z, *solver.outcome, solver.record
