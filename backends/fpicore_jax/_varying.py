"""Under `jax.shard_map` an array has a type that names the mesh axes it varies along.

A loop wants its carry to have one type throughout, and the branches of a conditional to agree.
All that a solve makes therefore varies as its state does, which is as f makes it vary.
"""

from typing import Any

import jax
from jax import Array, lax
from jax.extend import core as jax_core

from fpicore import InputError

Axes = tuple[Any, ...]
_LOCAL = ("pvary", "pcast", "axis_index")
"""Primitives with an axis that send nothing along it."""


def axes_of(*kinds: Any) -> Axes:
    """Mesh axes that any of these types of arrays varies along, in a fixed order."""
    found: set[Any] = set()
    for kind in kinds:
        manual = getattr(kind, "manual_axis_type", None)  # older versions have it on the type
        found |= getattr(kind, "vma", frozenset()) if manual is None else manual.varying
    return tuple(sorted(found, key=str))


def on_mesh(*arrays: Any) -> bool:
    """Whether any of them lies, or may lie, on several devices, as far as its type tells."""
    kinds = [getattr(jax.typeof(x), "sharding", None) for x in arrays]
    return not all(kind is None or kind.mesh.empty for kind in kinds)


def vary(tensor: Array, axes: Axes) -> Array:
    """The array, as one that varies along these axes as well."""
    if not axes:
        return tensor
    present = axes_of(jax.typeof(tensor))
    missing = tuple(axis for axis in axes if axis not in present)
    return lax.pcast(tensor, missing, to="varying") if missing else tensor


def check_local(jaxpr: Any, axes: Axes) -> None:
    """Refuse a map that communicates along the axes that its state varies along.

    Raises:
        InputError: it does; each device would take its part for a system of its own.
    """
    for eqn in jaxpr.eqns:
        named = eqn.params.get("axes", eqn.params.get("axis_name", ()))
        named = named if isinstance(named, (tuple, list, frozenset)) else (named,)
        common = [axis for axis in axes if axis in named]
        if common and eqn.primitive.name not in _LOCAL:
            raise InputError(
                f"expected f not to communicate along mesh axis {common[0]!r}, along which its "
                f"state is split by shard_map, received {eqn.primitive.name}; solve outside of "
                "shard_map, with the state sharded under jax.jit, or gather the state first"
            )
        for inner in jax_core.jaxprs_in_params(eqn.params):
            check_local(inner, axes)
