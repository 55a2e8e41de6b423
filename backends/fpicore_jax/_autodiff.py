"""The gradient of a fixed point as a JAX rule, right in both modes and to every order.

The solve itself sees no derivative. Its result z is passed through `attach`, an identity whose
tangent is the solution u of (I − J) u = (∂f/∂c) ċ, which `_linear` solves. The rule re-attaches z
before it linearises f there, so that it can be differentiated again.

f is converted to a jaxpr with everything that it closes over as explicit constants c. The
conversion traces a function object made for the call: JAX caches traces by function identity,
and a cached one would hold the constants of an earlier call.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core as jax_core

from fpicore import AbstractPullBack, Forward, Leaves

from ._linear import Product, solve_linear
from ._ops import JaxOps
from ._varying import Axes, axes_of, check_local, vary


class Closed(NamedTuple):
    """f, with what it closes over made explicit."""

    f: Callable[..., Leaves]
    """Of (constants, z)."""
    constants: list[Any]
    axes: Axes
    """Of a mesh, along which z varies once f was applied to it."""


def close(f: Callable[[Leaves], Leaves], z: Leaves) -> Closed:
    """Trace f at z, and once more under shard_map if f makes z vary along further axes."""
    closed = jax.make_jaxpr(lambda *leaves: f(leaves))(*z)
    axes = axes_of(*map(jax.typeof, z), *closed.out_avals)
    if any(axes_of(jax.typeof(leaf)) != axes for leaf in z):
        closed = jax.make_jaxpr(lambda *leaves: f(leaves))(*[vary(leaf, axes) for leaf in z])
    if axes:
        check_local(closed.jaxpr, axes)

    def explicit(constants: list[Any], z: Leaves) -> Leaves:
        call = jax_core.jaxpr_as_fun(jax_core.ClosedJaxpr(closed.jaxpr, constants))
        return tuple(call(*z))

    return Closed(explicit, list(closed.consts), axes)


@dataclass(frozen=True, eq=False)
class _Rule:
    """What the derivative of z needs besides arrays."""

    f: Callable[..., Leaves]
    iteration: Any
    adjoint: AbstractPullBack
    ops: JaxOps


def attach(
    f: Callable[..., Leaves],
    z: Leaves,
    constants: list[Any],
    forward: Forward,
    adjoint: AbstractPullBack,
    ops: JaxOps,
) -> Leaves:
    """z, as a differentiable function of the constants."""
    rule = _Rule(f, forward.iteration, adjoint, ops)
    return _attached(rule, z, constants, forward.memory)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _attached(rule: _Rule, z: Leaves, constants: list[Any], memory: Any) -> Leaves:
    del rule, constants, memory
    return z


@_attached.defjvp
def _tangent(rule: _Rule, primals: Any, tangents: Any) -> Any:
    """ż = J ż + (∂f/∂c) ċ, with one evaluation of f for both products."""
    _, constants, memory = primals
    z = _attached(rule, *primals)
    smooth = [i for i, c in enumerate(constants) if jnp.issubdtype(c.dtype, jnp.inexact)]
    moving = [constants[i] for i in smooth]

    def at(moving: list[Any], z: Leaves) -> Leaves:
        values = list(constants)
        for i, value in zip(smooth, moving, strict=True):
            values[i] = value
        return rule.f(values, z)

    _, push = jax.linearize(at, moving, z)
    # Each product is a derivative of the common one: JAX drops what the other argument moves.
    still = [jnp.zeros_like(c) for c in moving], tuple(jnp.zeros_like(leaf) for leaf in z)
    _, right = jax.jvp(lambda c: push(c, still[1]), still[:1], ([tangents[1][i] for i in smooth],))
    _, jvp = jax.linearize(lambda u: push(still[0], u), still[1])
    forward = Forward(rule.iteration, memory)
    right = tuple(vary(leaf, rule.ops.axes) for leaf in right)
    product = Product(jvp, z)
    u = solve_linear(product, right, rule.adjoint, forward, rule.ops, (*z, *moving))
    return z, u
