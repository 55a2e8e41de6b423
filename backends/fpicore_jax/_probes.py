"""JAX's spellings of the derivatives in the matrix of ``fpicore verify``.

All but the first gradient are compiled as a whole, which takes less time than op by op.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, PartitionSpec

from fpicore.verify.probes import Case, Probe, Probes

Function = Callable[[Array], Array]


def _module(case: Case) -> tuple[Array, Array]:
    def loss(parameters: dict[str, Array]) -> Array:
        def f(z: Array) -> Array:
            return case.layer(z, parameters["weight"], parameters["bias"])

        return case.weigh(case.solve(f, jnp.zeros_like(case.x)))

    found = jax.jit(jax.grad(loss))({"weight": case.weight, "bias": case.x})
    return found["weight"], found["bias"]


def _scan(case: Case) -> Array:
    """Every solve starts where the last one ended."""

    def loss(batch: Array) -> Array:
        def step(start: Array, x: Array) -> tuple[Array, Array]:
            z = case.state(x, start)
            return z, case.weigh(z)

        return jax.lax.scan(step, jnp.zeros_like(batch[0]), batch)[1].sum()

    return jax.jit(jax.grad(loss))(case.batch)


def _shard_map(case: Case) -> Array:
    """Over the systems, on one device."""
    shard_map: Any = getattr(jax, "shard_map", None)
    if shard_map is None:  # older versions have it elsewhere
        shard_map = import_module("jax.experimental.shard_map").shard_map
    mesh = Mesh(np.array(jax.devices()[:1]), ("systems",))
    spec = PartitionSpec("systems")
    mapped = shard_map(jax.vmap(case.loss), mesh=mesh, in_specs=spec, out_specs=spec)
    return jax.jit(jax.grad(lambda batch: mapped(batch).sum()))(case.batch)


def _jvp(function: Function, case: Case) -> Function:
    return lambda x: jax.jvp(function, (x,), (case.direction,))[1]


def _product(case: Case, order: int) -> Function:
    """The derivative of an order, times the direction order − 1 times."""
    gradient = jax.grad(case.loss)
    for _ in range(order - 1):
        gradient = jax.grad(_along(case, gradient))
    return gradient


def _along(case: Case, function: Function) -> Function:
    return lambda x: jnp.vdot(function(x), case.direction)


def _at_x(make: Callable[[Case], Function]) -> Callable[[Case], Array]:
    return lambda case: jax.jit(make(case))(case.x)


def _at_batch(make: Callable[[Case], Function]) -> Callable[[Case], Array]:
    return lambda case: jax.jit(make(case))(case.batch)


PROBES: Probes = {
    (0, "value", "vmap"): Probe("vmap", _at_batch(lambda c: jax.vmap(c.state))),
    (1, "reverse", "functional"): Probe("grad", lambda c: jax.grad(c.loss)(c.x)),
    (1, "reverse", "by XLA"): Probe("jit(grad)", _at_x(lambda c: jax.grad(c.loss))),
    (1, "reverse", "parameters of a module"): Probe("grad of a pytree", _module),
    (1, "reverse", "Jacobian, functional"): Probe("jacrev", _at_x(lambda c: jax.jacrev(c.state))),
    (1, "reverse", "batch of Jacobians"): Probe(
        "vmap(jacrev)", _at_batch(lambda c: jax.vmap(jax.jacrev(c.state)))
    ),
    (1, "reverse", "vmap of gradient"): Probe(
        "vmap(grad)", _at_batch(lambda c: jax.vmap(jax.grad(c.loss)))
    ),
    (1, "reverse", "gradient of vmap"): Probe(
        "grad of vmap", _at_batch(lambda c: jax.grad(lambda x: jax.vmap(c.loss)(x).sum()))
    ),
    (1, "reverse", "checkpoint"): Probe(
        "checkpoint", _at_x(lambda c: jax.grad(jax.checkpoint(c.loss)))
    ),
    (1, "reverse", "scan"): Probe("lax.scan", _scan),
    (1, "reverse", "shard_map"): Probe("shard_map", _shard_map),
    (1, "forward", "functional"): Probe("jvp", lambda c: _jvp(c.state, c)(c.x)),
    (1, "forward", "compiled"): Probe("jit(jvp)", _at_x(lambda c: _jvp(c.state, c))),
    (1, "forward", "linearize"): Probe(
        "linearize", _at_x(lambda c: lambda x: jax.linearize(c.state, x)[1](c.direction))
    ),
    (1, "forward", "Jacobian"): Probe("jacfwd", _at_x(lambda c: jax.jacfwd(c.state))),
    (2, "reverse over reverse", "functional"): Probe("grad(grad)", lambda c: _product(c, 2)(c.x)),
    (2, "reverse over reverse", "compiled"): Probe(
        "jit(grad(grad))", _at_x(lambda c: _product(c, 2))
    ),
    (2, "reverse over reverse", "Implicit(order=1)"): Probe(
        "grad(grad)", _at_x(lambda c: _product(c, 2))
    ),
    (2, "forward over reverse", "functional"): Probe(
        "jvp(grad)", _at_x(lambda c: _jvp(jax.grad(c.loss), c))
    ),
    (2, "forward over reverse", "compiled"): Probe(
        "jit(jvp(grad))", _at_x(lambda c: _jvp(jax.grad(c.loss), c))
    ),
    (2, "forward over reverse", "Hessian"): Probe("hessian", _at_x(lambda c: jax.hessian(c.loss))),
    (2, "reverse over forward", "functional"): Probe(
        "grad(jvp)", _at_x(lambda c: jax.grad(_jvp(c.loss, c)))
    ),
    (3, "reverse over reverse", "functional"): Probe(
        "grad(grad(grad))", _at_x(lambda c: _product(c, 3))
    ),
}
"""By order, mode and transform."""
