"""Ops on NumPy arrays, and the way of an eager framework's states to them and back.

An operation of NumPy's on a few thousand numbers takes a fraction of the time of an eager
framework's, a half of PyTorch's, a tenth of TensorFlow's; so where tensors can be had as arrays
on the same memory, the solver iterates arrays and only f sees tensors.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ._host import HostNumbers
from ._tree import Leaves

Array = Any
Map = Callable[[Leaves], Leaves]
_HALF = "e"
"""NumPy's character for float16."""


class ArrayHistory(NamedTuple):
    """Slots of one leaf, in arrays of shape batch + (slots, entries)."""

    whole: Array
    """All of them."""
    slots: tuple[Array, ...]
    """Each of them, as a view shaped like the leaf."""
    used: Array
    """Those that have been written to, a view: the others are not read, and count as zero."""


class ArrayOps(HostNumbers):
    """Leaves are ndarrays; products of half precision are summed in float32."""

    def dot(self, a: Array, b: Array) -> Any:
        """Per system Re Σ conj(a)·b."""
        if not self.batch_ndim:
            if a.dtype.char == _HALF:
                a, b = a.astype(np.float32), b.astype(np.float32)
            return np.vdot(a, b).item().real  # which, unlike x.dot(y), warns of nothing
        x = self._rows(a)
        y = x if a is b else self._rows(b)
        if x.dtype.kind == "c":
            x = x.conj()
        return (x[..., None, :] @ y[..., None]).real[..., 0, 0].astype(np.float64)

    def peak(self, a: Array) -> Any:
        """Per system max |a|."""
        top = np.abs(self._rows(a)).max(axis=-1)
        return top.astype(np.float64) if self.batch_ndim else float(top)

    def scale(self, s: Any, a: Array) -> Array:
        """s·a."""
        wide = a.astype(np.float32) if a.dtype == np.float16 else a
        return (self._spread(s, a) * wide).astype(a.dtype, copy=False)

    def select(self, mask: Any, a: Array, b: Array) -> Array:
        """a or b by system, without a copy where one of them serves all."""
        if not self.batch_ndim:
            return a if mask else b
        count = np.count_nonzero(mask)
        if count == mask.size:
            return a
        return np.where(self._spread(mask, a), a, b) if count else b

    def history(self, leaf: Array, length: int) -> ArrayHistory:
        """No slot in use: memory is neither touched nor read before it is needed."""
        axis, kind = self.batch_ndim, leaf.dtype
        kind = np.float32 if kind == np.float16 else kind
        return self._slots(leaf.shape[:axis], length, leaf.shape[axis:], kind)

    def _slots(self, batch: Any, length: int, entries: Any, kind: Any) -> ArrayHistory:
        shaped = np.empty((*batch, length, *entries), kind)
        every = (slice(None),) * self.batch_ndim
        slots = [shaped[(*every, index, ...)] for index in range(length)]
        whole = shaped.reshape(*batch, length, -1)
        return ArrayHistory(whole, tuple(slots), whole[..., :0, :])

    def take(self, tree: Any, systems: Any) -> Any:
        """Also of histories."""
        if not isinstance(tree, ArrayHistory):
            return super().take(tree, systems)
        used = self._regrouped(self._systems_of(tree.used)[systems])
        axis, filled = self.batch_ndim, used.shape[-2]
        entries = tree.slots[0].shape[axis:]
        whole, slots, _ = self._slots(used.shape[:axis], len(tree.slots), entries, used.dtype)
        whole[..., :filled, :] = used
        return ArrayHistory(whole, slots, whole[..., :filled, :])

    def opened(self, tree: Any) -> Any:
        """Also of histories."""
        if not isinstance(tree, ArrayHistory):
            return super().opened(tree)
        tree.whole[...] = 0.0
        return tree._replace(used=tree.whole)

    def store(self, history: ArrayHistory, slot: Any, leaf: Array) -> ArrayHistory:
        """Overwrite a slot."""
        whole, slots, used = history
        index, filled = int(slot), used.shape[-2]
        if leaf is not slots[index]:
            slots[index][...] = leaf
        if index < filled:
            return history
        if index > filled:
            whole[..., filled:index, :] = 0.0
        return ArrayHistory(whole, slots, whole[..., : index + 1, :])

    def difference(self, history: ArrayHistory, slot: Any, a: Array, b: Array) -> Array:
        """In the slot, unless that is wider."""
        place = history.slots[int(slot)]
        return np.subtract(a, b, out=place) if place.dtype == a.dtype else a - b

    def project(self, history: ArrayHistory, leaf: Array) -> Any:
        """Products of every slot with leaf."""
        whole, _, used = history
        row = self._rows(leaf)
        if row.dtype.kind == "c":
            row = row.conj()
        products = used @ row if row.ndim == 1 else (used @ row[..., None])[..., 0]
        if used.shape == whole.shape:
            return products.real.astype(np.float64)
        padded = np.zeros(whole.shape[:-1])
        padded[..., : used.shape[-2]] = products.real
        return padded

    def combine(self, weights: Any, history: ArrayHistory, like: Array) -> Array:
        """Weighted sum of the slots."""
        used = history.used
        weights = weights[..., : used.shape[-2]].astype(used.real.dtype)
        mixed = weights @ used if used.ndim == 2 else weights[..., None, :] @ used
        return mixed.reshape(like.shape).astype(like.dtype, copy=False)

    def _rows(self, a: Array) -> Array:
        """a as batch + (entries,), half precision widened."""
        rows = a
        if not self.batch_ndim:
            rows = a.ravel()
        elif a.ndim != self.batch_ndim + 1:
            rows = a.reshape(*a.shape[: self.batch_ndim], -1)
        return rows.astype(np.float32) if rows.dtype.char == _HALF else rows

    def _spread(self, s: Any, a: Array) -> Any:
        if not self.batch_ndim or isinstance(s, float):
            return s
        return s.reshape(*s.shape, *(1,) * (a.ndim - self.batch_ndim))


class Passage:
    """The way of a state to the solver and back: as it is."""

    def __init__(self, ops: Any) -> None:
        """The Ops that the solver works with."""
        self._ops = ops

    def __call__(self, solve: Callable[..., Any], f: Map, leaves: Leaves, *more: Any) -> Any:
        """``solve(ops, f, leaves, *more)``, which returns leaves and further outcomes."""
        return solve(self._ops, f, leaves, *more)


class ArrayPassage(Passage):
    """A solve between tensors, done between arrays: only f meets tensors."""

    def __init__(
        self,
        ops: ArrayOps,
        array: Callable[[Any], Array],
        tensor: Callable[[Array], Any],
        same: bool,
    ) -> None:
        """The Ops, and how a tensor becomes an array on the same memory, and back.

        With ``same``, an array that has just entered leaves as the very tensor that it came from:
        so f meets its own output again as such, and can be caught writing to it.
        """
        super().__init__(ops)
        self._array, self._tensor, self._same = array, tensor, same
        self._known: tuple[Leaves, Leaves] = (), ()

    def __call__(self, solve: Callable[..., Any], f: Map, leaves: Leaves, *more: Any) -> Any:
        """The same between tensors."""
        start = self._enter(leaves)
        between = self._single(f) if len(leaves) == 1 else self._several(f)
        with np.errstate(all="ignore"):
            found, *rest = solve(self._ops, between, start, *more)
        return self._leave(found), *rest

    def _several(self, f: Map) -> Map:
        """f between arrays."""
        return lambda z: self._enter(f(self._leave(z)))

    def _single(self, f: Map) -> Map:
        """The same where the state is one leaf, as most are: all there is between two steps."""
        to_array, to_tensor, same = self._array, self._tensor, self._same

        def evaluate(z: Leaves) -> Leaves:
            arrays, tensors = self._known
            new = f(tensors if same and z[0] is arrays[0] else (to_tensor(z[0]),))
            entered = (to_array(new[0]),)
            if same:
                self._known = entered, new
            return entered

        return evaluate

    def _enter(self, leaves: Leaves) -> Leaves:
        arrays = tuple([self._array(leaf) for leaf in leaves])
        if self._same:
            self._known = arrays, leaves
        return arrays

    def _leave(self, leaves: Leaves) -> Leaves:
        arrays, tensors = self._known
        if len(leaves) == 1 == len(arrays):  # most states
            return tensors if leaves[0] is arrays[0] else (self._tensor(leaves[0]),)
        known = {id(array): tensor for array, tensor in zip(arrays, tensors, strict=True)}
        return tuple([known[id(x)] if id(x) in known else self._tensor(x) for x in leaves])
