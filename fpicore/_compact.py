"""Compaction: f is called with the systems that still iterate, and no others."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

from ._adjoint import AbstractAdjoint, AbstractPullBack
from ._errors import InputError, MapError
from ._iterate import Carry, Iteration, Map
from ._ops import EagerOps, Number, Ops
from ._problem import Problem
from ._solution import Result
from ._tree import Leaves, describe, subtract
from ._watch import Watched

KEPT = 0.75
"""Share of the systems at hand that still iterate, at or below which the others are left out.

A gathering copies the solver's memory once, which is what about two steps read of it. Each is of
at most this share of the one before, so all together copy at most three times the memory of the
whole batch, however the systems finish; and at most a quarter of what f is given is in vain.
"""
SLACK, ROUNDING = 4.0, 64.0
"""In tolerances, and in units of ‖f‖: how far the residual in the whole batch may exceed that of
the systems that were left in the end. Products of matrices round as their sizes tell them to."""
_RECORDS = ("value", "error", "tolerance", "best_step", "steps", "codes", "active")


class Selective:
    """f, with those of its batched arguments that belong to the chosen systems."""

    def __init__(self, f: Callable[..., Any], axes: Any, take: Callable[[Any, Any], Any]) -> None:
        """All systems are chosen; ``take`` gathers the systems at some positions of a tensor."""
        self.f = f
        self._axes, self._take = axes, take
        self._systems: Any = None
        self._given: tuple[Any, ...] | None = None

    def choose(self, systems: Any) -> bool:
        """The systems at these positions; None is all. Returns whether it was not all before."""
        some = self._systems is not None
        self._systems, self._given = systems, None
        return some

    def __call__(self, z: Any, *args: Any) -> Any:
        """f(z, *args), with z of the chosen systems and args of all."""
        if self._systems is None:
            return self.f(z, *args)
        if self._given is None:
            take = lambda leaf, _: self._take(leaf, self._systems)  # noqa: E731
            pairs = zip(self._axes, args, strict=True)
            self._given = tuple([_over_batched(take, axis, arg, "") for axis, arg in pairs])
        return self.f(z, *self._given)


@dataclass(frozen=True)
class CompactIteration(Iteration):
    """An iteration that leaves out finished systems, and what the solver remembers of them."""

    f: Selective
    compact = True

    def active(self, ops: Ops, carry: Carry) -> Number:
        """Whether to go on with the systems at hand: not once too few of them iterate."""
        return ops.xp.count(carry.active) > KEPT * carry.active.size

    def iterate(
        self, ops: Ops, f: Map, z: Leaves, active: Number | None = None, budget: Any = None
    ) -> Carry:
        """Iterate and gather until no system is left."""
        eager = cast(EagerOps, ops)
        whole = carry = self.start(ops, z, active, budget)
        systems = ops.xp.positions(carry.codes == carry.codes)
        try:
            while True:
                carry = ops.loop(f, self, carry)
                whole = whole._replace(
                    **{
                        name: eager.put(getattr(whole, name), systems, getattr(carry, name))
                        for name in _RECORDS
                    }
                )
                going = ops.xp.positions(carry.active)
                if not len(going):
                    break
                systems, carry = systems[going], eager.take(carry, going)
                self.f.choose(systems)
        finally:
            alone = self.f.choose(None)
        whole = whole._replace(step=carry.step, memory=())
        return self._together(ops, f, whole) if alone else whole

    def _together(self, ops: Ops, f: Map, whole: Carry) -> Carry:
        """The outcome, if f of the whole batch at once confirms it.

        Raises:
            MapError: it does not: what f gives for a system depends on which others are with it.
        """
        value = f(whole.value)
        error = self.tolerance.measure(ops, subtract(value, whole.value))
        rounding = self.tolerance.precision.eps * self.tolerance.measure(ops, value)
        solved = whole.codes == float(Result.CONVERGED)
        close = error <= SLACK * whole.tolerance + ROUNDING * rounding
        if ops.xp.any(solved & ops.xp.logical_not(close)):
            raise MapError(
                "expected f to give a system of the batch the same with compact as without, "
                "received an f that does not; pass in args, marked 0, what it knows of a system by "
                "its place, and let it draw no random numbers and mix no systems, or leave out "
                "compact"
            )
        return whole._replace(step=whole.step + 1)


def compacted(
    problem: Problem, iteration: Iteration, adjoint: AbstractAdjoint, ops: Ops, compact: Any
) -> tuple[Problem, Iteration]:
    """The same solve, with finished systems left out.

    Raises:
        InputError: ``compact`` does not describe the arguments, or there is nothing to leave out:
            no batch axis, values that Python cannot see, someone who watches every step, or an
            adjoint that needs it.
    """
    if not problem.batch_ndim:
        raise InputError(
            f"expected batch_ndim >= 1 with compact, received batch_ndim=0 and compact={compact!r}"
        )
    if isinstance(iteration, Watched):
        raise InputError(
            f"expected compact=None with trace or callback, received compact={compact!r}; trace "
            "without it, evaluations and answers are the same"
        )
    if ops.traced:
        raise InputError(
            "expected compact=None where Python cannot look at the values of a solve (in traced "
            f"code, in JAX, on an accelerator), received compact={compact!r}"
        )
    if not isinstance(adjoint, AbstractPullBack) or getattr(adjoint, "reuse", False):
        raise InputError(
            "expected with compact an adjoint that begins at the answer, such as Implicit(), "
            f"received {adjoint!r}, which needs the steps or the memory of every system"
        )
    axes = _checked(compact, problem)
    f = Selective(problem.f, axes, cast(EagerOps, ops).take)
    given = iteration.solver, iteration.tolerance, iteration.max_steps
    return replace(problem, f=f), CompactIteration(*given, f)


def _checked(compact: Any, problem: Problem) -> tuple[Any, ...]:
    """One entry for each argument, all of whose batched tensors have the batch axes."""
    args = problem.args
    axes = (0,) * len(args) if _is_axis(compact) and compact is not None else compact
    if not isinstance(axes, (tuple, list)) or len(axes) != len(args):
        raise InputError(
            f"expected compact to be 0 or a tuple of one entry for each of the {len(args)} args, "
            f"0 where its tensors begin with the batch axes and None where systems share it; "
            f"received {compact!r}"
        )
    check = partial(_check, tuple(problem.leaves[0].shape)[: problem.batch_ndim])
    for i, (axis, arg) in enumerate(zip(axes, args, strict=True)):
        _over_batched(check, axis, arg, f"args[{i}]")
    return tuple(axes)


def _check(batch: tuple[int, ...], leaf: Any, path: str) -> Any:
    shape = getattr(leaf, "shape", None)
    if shape is None or tuple(shape)[: len(batch)] != batch:
        raise InputError(
            f"expected {path} to be a tensor that begins with the batch axes {batch}, as compact "
            f"says, received {describe(leaf)}; mark it None if the systems share it"
        )
    return leaf


def _over_batched(change: Callable[[Any, str], Any], axis: Any, arg: Any, path: str) -> Any:
    """The argument with its batched tensors changed; ``axis`` is a prefix of its structure."""
    if axis is None:
        return arg
    plain = _is_axis(axis)
    if isinstance(arg, Mapping) and (plain or (isinstance(axis, Mapping) and {*axis} == {*arg})):
        pairs = [(k, 0 if plain else axis[k], arg[k]) for k in arg]
        return {k: _over_batched(change, a, x, f"{path}[{k!r}]") for k, a, x in pairs}
    if isinstance(arg, (tuple, list)):
        alike = isinstance(axis, (tuple, list)) and len(axis) == len(arg)
        if plain or alike:
            several = (0,) * len(arg) if plain else axis
            pairs = enumerate(zip(several, arg, strict=True))
            parts = [_over_batched(change, a, x, f"{path}[{i}]") for i, (a, x) in pairs]
            kind: Any = type(arg)
            return kind(*parts) if hasattr(kind, "_fields") else kind(parts)
    elif plain:
        return change(arg, path)
    raise InputError(
        f"expected compact to be 0, None or a structure of them like that of {path}, "
        f"{describe(arg)}, received {axis!r}"
    )


def _is_axis(axis: Any) -> bool:
    return axis is None or (axis.__class__ is int and axis == 0)
