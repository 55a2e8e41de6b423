"""The gradient of a fixed point as a JAX rule, right in both modes and to every order.

The solve itself sees no derivative. Its result z is passed through `attach`, an identity whose
tangent is the solution u of (I − J) u = (∂f/∂c) ċ, by `lax.custom_linear_solve` with our own
loops for it and its transpose. The rule re-attaches z before it linearises f there, so that it
can be differentiated again.

f is converted to a jaxpr with everything that it closes over as explicit constants c. The
conversion traces a function object made for the call: JAX caches traces by function identity,
and a cached one would hold the constants of an earlier call.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jax.extend import core as jax_core

from fpicore import AbstractPullBack, Forward, Leaves, Results, Stats

from ._ops import JaxOps


def close(f: Callable[[Leaves], Leaves], z: Leaves) -> tuple[Callable[..., Leaves], list[Any]]:
    """f as a function of (constants, z), and the constants."""
    closed = jax.make_jaxpr(lambda *leaves: f(leaves))(*z)

    def explicit(constants: list[Any], z: Leaves) -> Leaves:
        call = jax_core.jaxpr_as_fun(jax_core.ClosedJaxpr(closed.jaxpr, constants))
        return tuple(call(*z))

    return explicit, list(closed.consts)


def attach(
    f: Callable[..., Leaves],
    z: Leaves,
    constants: list[Any],
    forward: Forward,
    adjoint: AbstractPullBack,
    ops: JaxOps,
) -> Leaves:
    """z, as a differentiable function of the constants."""
    smooth = [jnp.issubdtype(jnp.result_type(c), jnp.inexact) for c in constants]

    @jax.custom_jvp
    def attached(z: Leaves, constants: list[Any], memory: Any) -> Leaves:
        return z

    @attached.defjvp
    def rule(primals: Any, tangents: Any) -> Any:
        _, constants, memory = primals
        z = attached(*primals)

        def at(moving: list[Any]) -> Leaves:
            source = iter(moving)
            return f([next(source) if s else c for s, c in zip(smooth, constants, strict=True)], z)

        def only(values: list[Any]) -> list[Any]:
            return [value for s, value in zip(smooth, values, strict=True) if s]

        _, pushed = jax.jvp(at, (only(constants),), (only(tangents[1]),))
        _, jvp = jax.linearize(partial(f, constants), z)
        return z, _solve(jvp, z, pushed, forward._replace(memory=memory), adjoint, ops)

    return attached(z, constants, forward.memory)


def _solve(
    jvp: Callable[[Leaves], Leaves],
    z: Leaves,
    right: Leaves,
    forward: Forward,
    adjoint: AbstractPullBack,
    ops: JaxOps,
) -> Leaves:
    """u = Ju + right, linear in right, with its transpose by the transposed products."""
    transposed = jax.linear_transpose(jvp, z)

    def run(product: Callable[[Leaves], Leaves], v: Leaves, tangent: bool) -> Leaves:
        u, results, stats = adjoint.pull_back(ops, product, v, forward, tangent)
        conclude(adjoint, results, stats)
        return u

    def matvec(u: Leaves) -> Leaves:
        u = lax.optimization_barrier(u)
        return lax.optimization_barrier(tuple(a - b for a, b in zip(u, jvp(u), strict=True)))

    # The transpose of custom_linear_solve wants the whole right-hand side to be linear or none of
    # it. Where a leaf of a nested state has no part in a derivative, JAX would know that its entry
    # is zero; barriers around all that enters and leaves hide it, in derivatives as well.
    solution = lax.custom_linear_solve(
        matvec,
        lax.optimization_barrier(right),
        solve=lambda _, v: run(jvp, v, True),
        transpose_solve=lambda _, v: run(lambda g: transposed(g)[0], v, False),
    )
    return lax.optimization_barrier(solution)


def conclude(adjoint: AbstractPullBack, results: Results, stats: Stats) -> None:
    """Report an adjoint solve, through a host callback where its outcome is traced."""
    if not isinstance(results.codes, Tracer):
        adjoint.conclude(results, stats)
    elif adjoint.callback is not None:
        jax.debug.callback(adjoint.conclude, results, stats)
    elif adjoint.on_failure != "ignore":
        lax.cond(
            jnp.any(results.codes != 0),
            lambda: jax.debug.callback(adjoint.conclude, results, stats),
            lambda: None,
        )
