"""What Python can see inside an un-jitted vmap: whether anything holds in any of its lanes."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.core import Tracer
from jax.extend import core as jax_core
from jax.interpreters import batching, mlir


def anywhere(predicate: Array) -> Array:
    """Whether it holds in any lane of the vmaps around; a tracer only of what else is around."""
    return _anywhere_p.bind(predicate)


def only_mapped() -> bool:
    """Whether nothing but vmap, and derivatives, are around: no jit, scan or shard_map."""
    return not isinstance(anywhere(jnp.zeros((), bool)), Tracer)


def staged(given: Any) -> bool:
    """Whether a loop on these arrays must be staged, as something in them is traced for later."""
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(given))
    return traced and not only_mapped()


def _batch(operands: tuple[Array], dims: tuple[int]) -> tuple[Array, None]:
    """Not mapped, so that vmap hands out the array itself."""
    return _anywhere_p.bind(jnp.any(operands[0], axis=dims[0])), None


_anywhere_p = jax_core.Primitive("fpicore_anywhere")
_anywhere_p.def_impl(lambda predicate: predicate)
_anywhere_p.def_abstract_eval(lambda predicate: predicate)
batching.primitive_batchers[_anywhere_p] = _batch
mlir.register_lowering(_anywhere_p, lambda _, predicate: [predicate])
