"""How a backward pass went, told from within compiled code as well."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer
from jax.extend import core as jax_core

from fpicore import Leaves, Result, Results, Stats

from ._lanes import anywhere, only_mapped


def conclude(sweep: Any, results: Results, stats: Stats, found: Leaves) -> Leaves:
    """Report what ``found`` came from, through a host callback where that is traced.

    Within a program the callback of a failure is no effect but a part of what is found: JAX calls
    programs with effects by way of Python, which costs more than a small solve.
    """
    codes = results.codes
    if not isinstance(codes, Tracer):
        sweep.conclude(results, stats)
        return found
    if sweep.callback is not None:
        jax.debug.callback(sweep.conclude, results, stats)
        return found
    if sweep.on_failure == "ignore":
        return found
    failed = jnp.any((codes != Result.CONVERGED) & (codes != Result.TRUNCATED))
    if not only_mapped():
        return _heard(sweep, anywhere(failed), results, stats, found)
    if anywhere(failed):
        jax.debug.callback(sweep.conclude, results, stats)
    return found


def effects(sweep: Any) -> Any:
    """Those of reporting, so that JAX keeps track of the callback."""
    if sweep.callback is None:
        return jax_core.no_effects
    return jax.make_jaxpr(lambda: jax.debug.callback(lambda: None))().effects


def _heard(sweep: Any, failed: Array, results: Results, stats: Stats, found: Leaves) -> Leaves:
    """What was found, once Python was told if it failed."""

    def told(failed: Any, results: Results, stats: Stats) -> Any:
        sweep.conclude(results, stats)
        return np.ones_like(failed)

    def tell() -> Array:
        # Of a vmap Python is told at once, all samples together.
        like = jax.ShapeDtypeStruct((), bool)
        given = lax.stop_gradient((failed, results, stats))
        # Under shard_map both branches vary as the flag does.
        return failed & jax.pure_callback(told, like, *given, vmap_method="broadcast_all")

    heard = lax.cond(failed, tell, lambda: ~failed)
    return tuple([jnp.where(heard, leaf, jnp.nan) for leaf in found])
