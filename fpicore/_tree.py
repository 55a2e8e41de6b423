"""Vector-space operations on a state: a tuple of leaves, worked leaf by leaf.

Leaves are not ravelled and concatenated: that costs a copy of the state a step, and on several
devices a redistribution of it; small states that are traced come as one leaf, see `_packed`. Inner
products are summed over the leaves, so a nested state gives what the flattened one gives. Most
states are one leaf, and in eager code a loop over one costs half a microsecond a call: such a state
is spared it.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from ._errors import InputError
from ._ops import History, Leaf, Number, Ops

Leaves = tuple[Leaf, ...]
Histories = tuple[History, ...]


def subtract(a: Leaves, b: Leaves) -> Leaves:
    """a - b."""
    if len(a) == 1:
        return (a[0] - b[0],)
    return tuple([x - y for x, y in zip(a, b, strict=True)])


def add(a: Leaves, b: Leaves) -> Leaves:
    """a + b."""
    if len(a) == 1:
        return (a[0] + b[0],)
    return tuple([x + y for x, y in zip(a, b, strict=True)])


def dot(ops: Ops, a: Leaves, b: Leaves) -> Number:
    """Per system the real inner product over all leaves."""
    total = ops.dot(a[0], b[0])
    if len(a) == 1:
        return total
    for x, y in zip(a[1:], b[1:], strict=True):
        total = total + ops.dot(x, y)
    return total


def peak(ops: Ops, a: Leaves) -> Number:
    """Per system the largest magnitude over all leaves."""
    top = ops.peak(a[0])
    for x in a[1:]:
        top = ops.xp.maximum(top, ops.peak(x))
    return top


def scale(ops: Ops, s: Number, a: Leaves) -> Leaves:
    """Per system s·a."""
    return tuple([ops.scale(s, x) for x in a])


def select(ops: Ops, mask: Number, a: Leaves, b: Leaves) -> Leaves:
    """a where a system's mask is true, else b."""
    return tuple([ops.select(mask, x, y) for x, y in zip(a, b, strict=True)])


def history(ops: Ops, a: Leaves, length: int) -> Histories:
    """Empty buffers for ``length`` states like a."""
    return tuple([ops.history(x, length) for x in a])


def zeros(ops: Ops, like: Leaves) -> Leaves:
    """0 of the same kind, whatever ``like`` holds: 0·NaN is not 0."""
    return combine(ops, ops.numbers(like[0], 0.0, (1,)), history(ops, like, 1), like)


def store(ops: Ops, buffers: Histories, slot: Number, a: Leaves) -> Histories:
    """Write a into one slot."""
    if len(a) == 1:
        return (ops.store(buffers[0], slot, a[0]),)
    return tuple([ops.store(h, slot, x) for h, x in zip(buffers, a, strict=True)])


def difference(ops: Ops, buffers: Histories, slot: Number, a: Leaves, b: Leaves) -> Leaves:
    """a − b, where ``store`` into that slot will find it."""
    if len(a) == 1:
        return (ops.difference(buffers[0], slot, a[0], b[0]),)
    triples = zip(buffers, a, b, strict=True)
    return tuple([ops.difference(h, slot, x, y) for h, x, y in triples])


def project(ops: Ops, buffers: Histories, a: Leaves) -> Number:
    """Per system the inner product of a with every slot, over all leaves."""
    total = ops.project(buffers[0], a[0])
    if len(a) == 1:
        return total
    for h, x in zip(buffers[1:], a[1:], strict=True):
        total = total + ops.project(h, x)
    return total


def combine(ops: Ops, weights: Number, buffers: Histories, like: Leaves) -> Leaves:
    """Per system the weighted sum of the slots."""
    if len(like) == 1:
        return (ops.combine(weights, buffers[0], like[0]),)
    return tuple([ops.combine(weights, h, x) for h, x in zip(buffers, like, strict=True)])


# -- plain containers, for frameworks that bring no tree utilities of their own ----------------


def flatten(tree: Any, is_leaf: Callable[[Any], bool]) -> tuple[Leaves, Callable[[Leaves], Any]]:
    """Split nested dicts, lists, tuples and named tuples into leaves and a function that rebuilds.

    Raises:
        InputError: something in the tree is neither a leaf nor one of these containers.
    """
    if is_leaf(tree):
        return (tree,), _first
    if isinstance(tree, Mapping):
        keys = tuple(tree)
        parts, rebuild = _flatten_all([tree[key] for key in keys], is_leaf)
        kind = OrderedDict if isinstance(tree, OrderedDict) else dict
        return parts, lambda leaves: kind(zip(keys, rebuild(leaves), strict=True))
    if isinstance(tree, list):
        parts, rebuild = _flatten_all(tree, is_leaf)
        return parts, lambda leaves: list(rebuild(leaves))
    if isinstance(tree, tuple):
        named: Any = type(tree)
        parts, rebuild = _flatten_all(list(tree), is_leaf)
        if hasattr(named, "_fields"):
            return parts, lambda leaves: named(*rebuild(leaves))
        return parts, rebuild
    raise InputError(
        "expected a tensor of this backend, or a dict, list, tuple or named tuple of them; "
        f"received {describe(tree)}"
    )


def flatten_like(
    tree: Any, like: Any, is_leaf: Callable[[Any], bool], path: str = "f(z)"
) -> Leaves:
    """The leaves of a tree, in the order of the leaves of ``like``.

    Raises:
        InputError: the structures differ; the message names the place.
    """
    if is_leaf(like):
        if is_leaf(tree):
            return (tree,)
    elif isinstance(like, Mapping):
        if isinstance(tree, Mapping) and set(tree) == set(like):
            parts = [flatten_like(tree[k], like[k], is_leaf, f"{path}[{k!r}]") for k in like]
            return tuple(leaf for part in parts for leaf in part)
    elif isinstance(tree, type(like)) and len(tree) == len(like):
        pairs = enumerate(zip(tree, like, strict=True))
        parts = [flatten_like(t, part, is_leaf, f"{path}[{i}]") for i, (t, part) in pairs]
        return tuple(leaf for part in parts for leaf in part)
    raise InputError(f"expected {path} to be {describe(like)} as in z, received {describe(tree)}")


def map_leaves(tree: Any, is_leaf: Callable[[Any], bool], change: Callable[[Leaf], Leaf]) -> Any:
    """The tree with its leaves changed, whatever else it holds."""
    if is_leaf(tree):
        return change(tree)
    inner = lambda part: map_leaves(part, is_leaf, change)  # noqa: E731
    if isinstance(tree, Mapping):
        kind = OrderedDict if isinstance(tree, OrderedDict) else dict
        return kind((key, inner(part)) for key, part in tree.items())
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        named: Any = type(tree)
        return named(*map(inner, tree))
    return type(tree)(map(inner, tree)) if isinstance(tree, (list, tuple)) else tree


def describe(tree: Any) -> str:
    """A short description of a value for an error message."""
    if isinstance(tree, Mapping):
        return f"a dict with keys {sorted(map(str, tree))}"
    if isinstance(tree, (list, tuple)):
        return f"a {type(tree).__name__} of length {len(tree)}"
    if hasattr(tree, "shape") and hasattr(tree, "dtype"):
        return f"a {type(tree).__module__.split('.')[0]} array of shape {tuple(tree.shape)}"
    return f"{type(tree).__module__}.{type(tree).__qualname__}"


def _first(leaves: Leaves) -> Leaf:
    return leaves[0]


def _flatten_all(
    children: list[Any], is_leaf: Callable[[Any], bool]
) -> tuple[Leaves, Callable[[Leaves], tuple[Any, ...]]]:
    flat = [flatten(child, is_leaf) for child in children]
    sizes = [len(leaves) for leaves, _ in flat]

    def rebuild(leaves: Leaves) -> tuple[Any, ...]:
        out, start = [], 0
        for (_, build), size in zip(flat, sizes, strict=True):
            out.append(build(leaves[start : start + size]))
            start += size
        return tuple(out)

    return tuple(leaf for leaves, _ in flat for leaf in leaves), rebuild
