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

from ._autodiff import constant, refuse_forward_mode
from ._orders import check_same
from ._sources import (
    Map,
    Sources,
    check_tapes_record,
    gradient,
    has_derivative,
    sources_if_traceable,
)


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
    segment, count = _Segment(iteration, length), -(-iteration.limit // length)
    carry = iteration.start(ops, z, budget=budget)
    if sources.watched and not tf.executing_eagerly():
        # TensorFlow fails to differentiate a loop within another one by what it captures.
        for _ in range(count):
            carry = _advance(ops, segment, f, sources, carry)
        return iteration.end(ops, carry)
    (carry,) = tf.while_loop(
        lambda carry: iteration.active(ops, carry),
        lambda carry: (_advance(ops, segment, f, sources, carry),),
        (carry,),
        parallel_iterations=1,
        maximum_iterations=count,
    )
    return iteration.end(ops, carry)


def _advance(ops: Any, segment: Process, f: Map, sources: Sources, carry: Any) -> Any:
    """The carry one segment later."""
    leaves = tf.nest.flatten(carry)
    smooth = [i for i, leaf in enumerate(leaves) if has_derivative(leaf)]

    def run(leaves: Any, f: Map) -> Leaves:
        return tuple(tf.nest.flatten(ops.loop(f, segment, tf.nest.pack_sequence_as(carry, leaves))))

    @tf.custom_gradient
    def advance(*inputs: Any) -> Any:
        def pull_back(*v: Any, variables: Any = None) -> Any:
            check_tapes_record()
            # Copies, as one tensor may be two leaves, or captured by f, and is told apart here.
            start = tuple(map(tf.identity, inputs[: len(leaves)]))
            wanted = [start[i] for i in smooth] + sources.watched
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(wanted)
                out = run(start, f)
            check_same(out, ran)
            found = gradient(tape, [out[i] for i in smooth], wanted, tuple(v[i] for i in smooth))
            full: list[Any] = [None] * len(inputs)
            for i, g in zip([*smooth, *range(len(leaves), len(inputs))], found, strict=True):
                full[i] = g
            # Variables are among the inputs, as values; TensorFlow asks for those it saw as well.
            return full if variables is None else (full, [None] * len(variables))

        ran = run(tuple(map(tf.stop_gradient, inputs[: len(leaves)])), _cut_off(f))
        return tuple(constant(x, inputs) if has_derivative(x) else x for x in ran), pull_back

    return tf.nest.pack_sequence_as(carry, list(advance(*leaves, *sources.values())))


def _cut_off(f: Map) -> Callable[[Leaves], Leaves]:
    """f without its derivative, though it may take derivatives itself."""
    return lambda z: tuple(map(tf.stop_gradient, f(z)))
