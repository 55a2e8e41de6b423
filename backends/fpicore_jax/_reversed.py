"""A reversible iteration as a custom_vjp: the backward pass recomputes what it needs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from fpicore import Iteration, Leaves, Results, Stats, outcome

from ._ops import JaxOps
from ._telling import conclude


def reversed_solve(
    f: Callable[..., Leaves],
    start: Leaves,
    constants: list[Any],
    budget: Any,
    make_ops: Callable[[bool], JaxOps],
    iteration: Iteration,
    sweep: Any,
) -> tuple[Leaves, Results, Stats]:
    """The last iterate of ``iteration`` on z ↦ f(constants, z), and how it went."""
    smooth = [jnp.issubdtype(jnp.result_type(c), jnp.inexact) for c in constants]

    def forward(start: Leaves, constants: list[Any], budget: Any) -> Any:
        ops = make_ops(_staged(start, constants, budget))
        carry = iteration.iterate(ops, lambda z: f(constants, z), start, budget=budget)
        z, results, stats, _ = outcome(ops, carry)
        track = sweep.track(carry)
        return (z, results, stats), (track, start, constants)

    def backward(kept: Any, cotangents: Any) -> Any:
        track, start, constants = kept
        v = cotangents[0]
        ops = make_ops(_staged(v, constants))

        def at(moving: list[Any], z: Leaves) -> Leaves:
            source = iter(moving)
            return f([next(source) if s else c for s, c in zip(smooth, constants, strict=True)], z)

        moving = [c for s, c in zip(smooth, constants, strict=True) if s]

        def pull(point: tuple[Leaves, Leaves]) -> tuple[Leaves, Leaves, Leaves]:
            z, cotangent = point
            value, transposed = jax.vjp(at, moving, z)
            by_theta, by_z = transposed(cotangent)
            return value, by_z, tuple(by_theta)

        nothing = tuple(jnp.zeros_like(c) for c in moving)
        z0, by_theta, results, stats = sweep.sweep(ops, pull, track, start, v, nothing, iteration)
        told = conclude(sweep, results, stats, (*z0, *by_theta))
        z0, found = told[: len(z0)], iter(told[len(z0) :])
        return z0, [next(found) if s else None for s in smooth], None

    solved = jax.custom_vjp(lambda *given: forward(*given)[0])
    solved.defvjp(forward, backward)
    return solved(start, constants, budget)


def _staged(*given: Any) -> bool:
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(given))
