"""The iteration under a tape that keeps the state of every so many steps and recomputes the rest.

A segment is a tf.custom_gradient whose pull-back runs the segment again under a tape.
tf.recompute_grad does the same for the arguments of a function, and gives what the function
closes over no gradient, without a word. Here the tensors that f captures are found by tracing it,
and are inputs of every segment.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from fpicore import InputError, Iteration, Leaves, Ops, Process

from ._autodiff import constants, refuse_forward_mode
from ._evaluation import steady
from ._ops import TensorFlowRecordedOps
from ._orders import check_same, spoilt_if_changed
from ._sources import (
    Map,
    Sources,
    check_tapes_record,
    gradient,
    has_derivative,
    sources_if_traceable,
)
from ._tapes import unseen


@dataclass(frozen=True)
class _Segment:
    """The first ``limit`` steps from a carry."""

    iteration: Iteration
    limit: int

    def active(self, ops: Ops, carry: Any) -> Any:
        """While any system iterates; `limit` bounds the loop itself."""
        return self.iteration.active(ops, carry)

    def update(self, ops: Ops, carry: Any, f: Leaves) -> Any:
        """One step."""
        return self.iteration.update(ops, carry, f)


class _UnseenOps(TensorFlowRecordedOps):
    """For the loops of the forward pass, which tapes do not follow though they see f within."""

    _control = staticmethod(unseen)


@dataclass(frozen=True)
class _Passes:
    """One segment, forward and back, as functions of tensors; f captures what it captures."""

    ops: Any
    segment: Process
    f: Map
    sources: Sources
    carry: Any
    """The structure that the leaves make."""

    def forward(self, *inputs: Any) -> Leaves:
        """The leaves one segment later, for leaves and sources; constant, as far as tapes see."""
        ops = _UnseenOps(self.ops.batch_ndim, self.ops.eps, self.ops.dtype)
        start = tuple(map(tf.stop_gradient, inputs[: self.size]))
        return constants(self._run(ops, start, _cut_off(self.f)), inputs)

    def back(self, inputs: Leaves, v: Leaves, ran: Leaves | None = None) -> Leaves:
        """The cotangents of the smooth leaves and of the sources, for those of the former.

        ``ran``: what the forward pass gave, which is compared in eager mode. A graph would hand it
        to its derivative and ask for a gradient of it: there, variables are compared instead.
        """
        # Copies, as one tensor may be two leaves, or captured by f, and is told apart here.
        start = tuple(map(tf.identity, inputs[: self.size]))
        wanted = [*self.smooth(start), *self.sources.watched]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(wanted)
            out = self._run(self.ops, start, self.f)
        found = gradient(tape, self.smooth(out), wanted, v)
        if ran is not None:
            check_same(out, ran)
            return found
        now = [variable.read_value() for variable in self.sources.variables]
        return spoilt_if_changed(found, tuple(now), inputs[len(inputs) - len(now) :])

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return len(tf.nest.flatten(self.carry))

    def smooth(self, leaves: Leaves) -> Leaves:
        """Those that have a derivative."""
        kept = map(has_derivative, tf.nest.flatten(self.carry))
        return tuple(leaf for leaf, keep in zip(leaves, kept, strict=True) if keep)

    def _run(self, ops: Any, leaves: Leaves, f: Map) -> Leaves:
        carry = tf.nest.pack_sequence_as(self.carry, list(leaves))
        return tuple(tf.nest.flatten(ops.loop(f, self.segment, carry)))


def iterate_in_segments(
    ops: Any, iteration: Iteration, f: Map, z: Leaves, length: int, budget: Any
) -> Any:
    """The carry of the whole iteration, differentiable, segments of ``length`` steps kept."""
    sources = sources_if_traceable(f, z)
    if sources is None:
        raise InputError(
            "expected a map that tf.function can trace, as Unrolled(checkpoint=...) has to see "
            "which tensors it closes over; received one that fails there, by reading values for "
            "instance; use Unrolled() or Implicit()"
        )
    refuse_forward_mode((*z, *sources.values()))
    count = -(-iteration.limit // length)
    carry = iteration.start(ops, z, budget=budget)
    passes = _Passes(ops, _Segment(iteration, length), steady(f), sources, carry)
    if sources.watched and not tf.executing_eagerly():
        # TensorFlow fails to differentiate a loop within another one by what it captures.
        forward, back = _traced_once(passes.forward), _traced_once(passes.back)
        for _ in range(count):
            carry = _advance(passes, forward, back, carry)
        return iteration.end(ops, carry)
    (carry,) = tf.while_loop(
        lambda carry: iteration.active(ops, carry),
        lambda carry: (_advance(passes, passes.forward, passes.back, carry),),
        (carry,),
        parallel_iterations=1,
        maximum_iterations=count,
    )
    return iteration.end(ops, carry)


def _advance(passes: _Passes, forward: Any, back: Any, carry: Any) -> Any:
    """The carry one segment later."""
    leaves = tf.nest.flatten(carry)

    @tf.custom_gradient
    def advance(*inputs: Any) -> Any:
        def pull_back(*v: Any, variables: Any = None) -> Any:
            check_tapes_record()
            compared = ran if tf.executing_eagerly() else None
            found = iter(back(inputs, passes.smooth(v), compared))
            full = [next(found) if has_derivative(leaf) else None for leaf in leaves]
            full = [*full, *found]
            # Variables are among the inputs, as values; TensorFlow asks for those it saw as well.
            return full if variables is None else (full, [None] * len(variables))

        ran = unseen(forward, *inputs)
        return ran, pull_back

    found = advance(*leaves, *passes.sources.values())
    return tf.nest.pack_sequence_as(carry, list(found))


def _traced_once(function: Callable[..., Leaves]) -> Callable[..., Leaves]:
    """The function of a graph that all segments call, each of which would be a loop in it.

    Were they put in place of the calls, the optimiser of graphs would go through all of them.
    """
    return tf.function(function, autograph=False, experimental_attributes={"_noinline": True})


def _cut_off(f: Map) -> Callable[[Leaves], Leaves]:
    """f without its derivative, though it may take derivatives itself."""
    return lambda z: tuple(map(tf.stop_gradient, f(z)))
