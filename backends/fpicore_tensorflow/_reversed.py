"""A reversible iteration as a tf.custom_gradient: the backward pass recomputes what it needs."""

from typing import Any

import tensorflow as tf

from fpicore import InputError, Iteration, Leaves, Results, Stats, outcome

from ._autodiff import constants, guard, refuse_forward_mode
from ._evaluation import steady
from ._sources import Map, Sources, check_tapes_record, gradient, sources_if_traceable


def reversed_solve(
    f: Map, start: Leaves, budget: Any, ops: Any, iteration: Iteration, sweep: Any, conclude: Any
) -> tuple[Leaves, Results, Stats]:
    """The last iterate of ``iteration`` and how it went; ``conclude`` hears of a backward pass."""
    sources = sources_if_traceable(f, start)
    if sources is None:
        raise InputError(
            "expected a map that tf.function can trace, as Reversible() has to see which tensors "
            "it closes over; received one that fails there, by reading values for instance; use "
            "Unrolled() or Implicit()"
        )
    refuse_forward_mode((*start, *sources.values()))
    plain = tuple(map(tf.stop_gradient, start))
    carry = iteration.iterate(ops, steady(f), plain, budget=budget)
    z, results, stats, _ = outcome(ops, carry)
    track = sweep.track(carry)

    @tf.custom_gradient
    def reverse(*inputs: Any) -> Any:
        def pull_back(*v: Any, variables: Any = None) -> Any:
            nothing = tuple(map(tf.zeros_like, inputs[len(start) :]))
            by_start, by_sources, results, stats = sweep.sweep(
                ops, _pull(f, sources), track, plain, v, nothing, iteration
            )
            conclude(results, stats)
            found = tuple(map(tf.stop_gradient, (*by_start, *by_sources)))
            found = guard(0, 1, found, (*v, *inputs))
            # Variables are among the inputs, as values; TensorFlow asks for those it saw as well.
            return found if variables is None else (found, [None] * len(variables))

        return constants(z, inputs), pull_back

    return reverse(*start, *sources.values()), results, stats


def _pull(f: Map, sources: Sources) -> Any:
    """(z, c) ↦ (f(z), Jᵀc, (∂f/∂θ)ᵀc)."""

    def pull(point: tuple[Leaves, Leaves]) -> tuple[Leaves, Leaves, Leaves]:
        check_tapes_record()
        # Copies, as f may capture these very tensors.
        z = tuple(map(tf.identity, point[0]))
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([*z, *sources.watched])
            value = f(z)
        found = gradient(tape, value, [*z, *sources.watched], point[1])
        return value, found[: len(z)], found[len(z) :]

    return pull
