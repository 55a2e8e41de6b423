"""Nested NumPy arrays: leaves, packing by system, relative errors."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .._tree import flatten, flatten_like

Array = np.ndarray[Any, np.dtype[Any]]
Tree = Any
"""Nested dicts, lists, tuples and named tuples of arrays, or of a framework's tensors."""


def is_leaf(value: Any) -> bool:
    """Whatever is no container is a leaf, so that one walk serves every framework's tensors."""
    return not isinstance(value, (Mapping, list, tuple))


def leaves(tree: Tree) -> tuple[Any, ...]:
    """The leaves of a tree, in the order in which its containers hold them."""
    return flatten(tree, is_leaf)[0]


def leaves_like(tree: Tree, like: Tree, path: str = "f(z)") -> tuple[Any, ...]:
    """The leaves of a tree in the order of the leaves of ``like``.

    Raises:
        InputError: the structures differ.
    """
    return flatten_like(tree, like, is_leaf, path)


def rebuild(like: Tree, parts: Sequence[Any]) -> Tree:
    """A tree of the structure of ``like`` that holds the given leaves."""
    return flatten(like, is_leaf)[1](tuple(parts))


def convert(function: Callable[[Any], Any], tree: Tree) -> Tree:
    """The tree with a function applied to every leaf."""
    parts, build = flatten(tree, is_leaf)
    return build(tuple(function(part) for part in parts))


def cast(array: Array, dtype: str) -> Array:
    """Floating-point arrays in another precision; integers and booleans as they are."""
    return array.astype(dtype) if array.dtype.kind == "f" else array


class Layout:
    """Packs a state whose leaves have shape (*batch, *own) as one array (systems, unknowns)."""

    def __init__(self, like: Tree, batch_ndim: int) -> None:
        """Read the shapes from ``like``."""
        self.like = like
        self.shapes = tuple(np.shape(leaf) for leaf in leaves(like))
        self.batch_shape = self.shapes[0][:batch_ndim]
        self.systems = math.prod(self.batch_shape)
        self.unknowns = sum(math.prod(shape[batch_ndim:]) for shape in self.shapes)

    def pack(self, tree: Tree, path: str = "f(z)") -> Array:
        """The state as an array (systems, unknowns).

        Raises:
            InputError: another structure, or a leaf of another shape.
        """
        found = [np.asarray(leaf) for leaf in leaves_like(tree, self.like, path)]
        for leaf, shape in zip(found, self.shapes, strict=True):
            if leaf.shape != shape:
                raise_shape(path, shape, leaf.shape)
        return np.concatenate([leaf.reshape(self.systems, -1) for leaf in found], axis=1)

    def unpack(self, packed: Array) -> Tree:
        """The state from an array (systems, unknowns)."""
        sizes = [math.prod(shape) // self.systems for shape in self.shapes]
        parts = np.split(packed, np.cumsum(sizes)[:-1], axis=1)
        return rebuild(self.like, [p.reshape(s) for p, s in zip(parts, self.shapes, strict=True)])


def raise_shape(path: str, expected: tuple[int, ...], received: tuple[int, ...]) -> None:
    """Raise the error about a leaf that is not shaped like its leaf of z."""
    from .._errors import MapError

    raise MapError(
        f"expected every leaf of {path} to be shaped like its leaf of z, {expected}; "
        f"received {received}; make the map return a state that looks like z"
    )


def weighted_sum(xp: Any, weights: Tree, value: Tree) -> Any:
    """Σ weights·value over all leaves."""
    parts = zip(leaves(weights), leaves_like(value, weights, "the value"), strict=True)
    terms = [xp.sum(w * z) for w, z in parts]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def system_error(layout: Layout, value: Tree, truth: Tree) -> float:
    """The largest ‖value − truth‖ / ‖truth‖ over the systems of a batch; inf if not finite."""
    a, b = layout.pack(value, "the value"), layout.pack(truth, "the value")
    difference = np.linalg.norm((a - b).astype(np.float64), axis=1)
    size = np.linalg.norm(b.astype(np.float64), axis=1)
    return _worst(difference / np.where(size > 0, size, 1.0))


def leaf_error(values: Sequence[Array], truths: Sequence[Array]) -> float:
    """The largest ‖value − truth‖ / ‖truth‖ over leaves; inf if not finite.

    A leaf whose norm is below a tenth of the largest is measured against that tenth: it may be
    zero, or the difference of large terms.
    """
    sizes = [float(np.linalg.norm(truth)) for truth in truths]
    floor = 0.1 * max(sizes, default=0.0) or 1.0
    errors = [
        float(np.linalg.norm(value - truth)) / max(size, floor)
        for value, truth, size in zip(values, truths, sizes, strict=True)
    ]
    return _worst(np.array(errors or [0.0]))


def _worst(errors: Array) -> float:
    return float(errors.max()) if np.isfinite(errors).all() else math.inf
