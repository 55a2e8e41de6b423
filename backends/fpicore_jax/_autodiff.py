"""The gradient of a fixed point as a JAX rule, right in both modes and to every order.

The solve itself sees no derivative. Its result z is passed through `attach`, an identity whose
tangent is the solution u of (I − J) u = (∂f/∂c) ċ, which `_linear` solves. The rule re-attaches z
before it linearises f there, so that it can be differentiated again.

f is converted to a jaxpr with everything that it closes over as explicit constants c. The
conversion traces a function object made for the call: JAX caches traces by function identity,
and a cached one would hold the constants of an earlier call.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer, eval_context
from jax.extend import core as jax_core
from jax.interpreters import ad, batching, mlir
from jax.tree_util import Partial

from fpicore import AbstractPullBack, Forward, Iteration, Leaves, MapError

from ._known import Map, Program, opened
from ._lanes import staged
from ._linear import Lane, Product, solve_linear, to_front
from ._one_way import known_by_transpose, lacks_forward_mode, transposed_over
from ._ops import JaxOps
from ._varying import Axes, axes_of, check_local, vary


class Closed(NamedTuple):
    """f, with what it closes over made explicit."""

    f: Map
    """Of (constants, z)."""
    constants: list[Any]
    axes: Axes
    """Of a mesh, along which z varies once f was applied to it, and f(z) in any case."""


def close(f: Callable[[Leaves], Leaves], z: Leaves) -> Closed:
    """Trace f at z, and once more under shard_map if f makes z vary along further axes."""
    closed = _trace(f, z)
    axes = axes_of(*map(jax.typeof, z), *closed.out_avals)
    if any(axes_of(jax.typeof(leaf)) != axes for leaf in z):
        closed = _trace(f, tuple(vary(leaf, axes) for leaf in z))
    if axes:
        check_local(closed.jaxpr, axes)

    return Closed(Map(closed.jaxpr, axes), [_own(x) for x in closed.consts], axes)


def _own(constant: Any) -> Any:
    """A copy of what the caller may write to: JAX goes on to read it when a program has begun."""
    if not isinstance(constant, np.ndarray) or constant.dtype == jax.dtypes.float0:
        return constant
    with eval_context():
        return jnp.array(constant)


def _trace(f: Callable[[Leaves], Leaves], z: Leaves) -> Any:
    try:
        return jax.make_jaxpr(lambda *leaves: f(leaves))(*z)
    except Exception as error:
        if type(error).__name__ != "TraceContextError":
            raise
        raise MapError(
            "expected f to change nothing outside of it, received a Flax module that does: "
            f"{error}; f is traced and then iterated, so a BatchNorm or Dropout in training mode "
            "has no meaning in it: call module.eval() before the solve, or pass "
            "nnx.split(module) as args, merge within f, and return what changes as aux with "
            "has_aux=True"
        ) from error


@dataclass(frozen=True, eq=False)
class _Rule:
    """What the derivative of z needs besides arrays."""

    f: Map
    iteration: Iteration
    memory: Any
    """The structure of the forward solver's memory."""
    adjoint: AbstractPullBack
    ops: JaxOps
    size: int
    """Number of leaves of z, which are the first operands; the constants and memory follow."""
    count: int
    """Number of constants."""
    lanes: tuple[Lane, ...] = ()

    def tangent(self, moving: tuple[int, ...], *operands: Any) -> Leaves:
        """ż = J ż + (∂f/∂c) ċ, with one evaluation of f for both products.

        ``moving`` are the constants with a tangent, and their tangents the last operands.
        """
        constants, z, forward, dots = self._parts(operands)
        concrete = not any(isinstance(x, Tracer) for x in (*constants, *z))
        with eval_context() if concrete else nullcontext():
            run = _linearise.plain if self.f.ruled else _linearise
            push, by_z, residuals = run(self.f, moving, constants, z)
        right = tuple(vary(leaf, self.ops.axes) for leaf in push(dots))
        anchors = (*z, *[constants[i] for i in moving])
        product = Product(by_z, tangent=True)
        return solve_linear(product, residuals, right, self.adjoint, forward, self.ops, anchors)

    def cotangent(self, moving: tuple[int, ...], *operands: Any) -> Leaves:
        """(∂f/∂c)ᵀ g with g = Jᵀg + v, where v are the last operands: f is only pulled back."""
        constants, z, forward, v = self._parts(operands)
        at, values = _apart(self.f, moving, constants)
        _, pull = jax.vjp(partial(at, values), z)
        by_z, residuals = opened(lambda g: pull(g)[0], z)
        product = Product(by_z, tangent=False)
        g = solve_linear(product, residuals, v, self.adjoint, forward, self.ops, (*z, *values))
        return jax.vjp(lambda c: at(c, z), values)[1](g)[0]

    def _parts(self, operands: Leaves) -> Any:
        """The constants, z, the forward solve, and the operands that are left."""
        z, operands = operands[: self.size], operands[self.size :]
        constants, operands = operands[: self.count], operands[self.count :]
        length = self.memory.num_leaves
        memory = jax.tree.unflatten(self.memory, operands[:length])
        return constants, z, Forward(self.iteration, memory), operands[length:]


def _apart(f: Map, moving: tuple[int, ...], constants: Leaves) -> Any:
    """f of the constants that move, and of z; and those constants."""

    def at(values: tuple[Any, ...], z: Leaves) -> Leaves:
        moved = dict(zip(moving, values, strict=True))
        return f([moved.get(i, c) for i, c in enumerate(constants)], z)

    return at, tuple(constants[i] for i in moving)


def _linearised(f: Map, moving: tuple[int, ...], constants: Leaves, z: Leaves) -> Any:
    """∂f/∂c as a function of the tangents of the constants that move, and the parts of J."""
    at, values = _apart(f, moving, constants)
    _, push = jax.linearize(at, values, z)
    # Each product is a derivative of the common one: JAX drops what the other argument moves.
    still, rest = (tuple(jnp.zeros_like(x) for x in xs) for xs in (values, z))
    _, by_constants = jax.linearize(lambda c: push(c, rest), still)
    _, by_z = jax.linearize(lambda u: push(still, u), rest)
    right, residuals = opened(by_constants, still)
    # A program hands out the same map each time, so that its transpose too is compiled once.
    apply = jax.jit(right) if staged((constants, z)) else right
    return Partial(apply, residuals), *opened(by_z, z)


_linearise = Program(_linearised, hashable=2)


def attach(
    f: Map,
    z: Leaves,
    constants: list[Any],
    forward: Forward,
    adjoint: AbstractPullBack,
    ops: JaxOps,
) -> Leaves:
    """z, as a differentiable function of the constants."""
    memory, structure = jax.tree.flatten(forward.memory)
    rule = _Rule(f, forward.iteration, structure, adjoint, ops, len(z), len(constants))
    return tuple(_attach_p.bind(*z, *constants, *memory, rule=rule))


def _identity(*operands: Any, rule: _Rule) -> Leaves:
    return operands[: rule.size]


def _jvp(primals: Any, tangents: Any, *, rule: _Rule) -> Any:
    z = tuple(_attach_p.bind(*primals, rule=rule))
    given = range(rule.size, rule.size + rule.count)
    moving = tuple(i for i in given if type(tangents[i]) is not ad.Zero)
    if not moving:
        return z, [ad.Zero(jax.typeof(leaf).to_tangent_aval()) for leaf in z]
    among = tuple(i - rule.size for i in moving)
    run = partial(rule.tangent, among)
    for lane in rule.lanes:
        run = replace(lane, axes=(*lane.axes, *[lane.axes[i] for i in moving])).over(run)
    operands = (*z, *primals[rule.size :], *[tangents[i] for i in moving])
    try:
        return z, run(*operands)
    except (NotImplementedError, TypeError) as error:
        if not lacks_forward_mode(error):
            raise
    pull = partial(rule.cotangent, among)
    for lane in rule.lanes:
        pull = transposed_over(lane, pull, moving, rule.size)
    return z, known_by_transpose(pull, operands, len(primals), rule.size)


def _batch(axis: Any, operands: Any, dims: Any, *, rule: _Rule) -> Any:
    """z is mapped in any case, as its derivative will be."""
    if all(d is None for d in dims):
        return _attach_p.bind(*operands, rule=rule), [None] * rule.size
    moved, lane = to_front(axis, operands, dims, range(rule.size))
    wider = replace(rule, lanes=(*rule.lanes, lane))
    return _attach_p.bind(*moved, rule=wider), [0] * rule.size


# A primitive and not a custom_jvp: JAX drops the rules of those from what it has linearised within
# scan and jit, and a second derivative would pass by them without a word.
_attach_p = jax_core.Primitive("fpicore_attach")
_attach_p.multiple_results = True
_attach_p.def_impl(_identity)
_attach_p.def_abstract_eval(_identity)
ad.primitive_jvps[_attach_p] = _jvp
batching.fancy_primitive_batchers[_attach_p] = _batch
mlir.register_lowering(_attach_p, mlir.lower_fun(_identity, multiple_results=True))
