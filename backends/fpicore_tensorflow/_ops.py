"""Ops on TensorFlow tensors. A history is a tuple of slots.

Measured, microseconds an update of five slots of 32×128, eager / graph / XLA: a tuple of slots
88 / 7 / 3, a scatter into one tensor 254 / 10 / 1, a TensorArray 123 / 6 / 1.
"""

from collections.abc import Callable
from functools import partial, reduce
from operator import add
from typing import Any

import tensorflow as tf

from fpicore import Branch, HostNumbers, Process

from ._numbers import TensorFlowNumbers
from ._systems import solved_by_elimination, solved_by_qr
from ._tapes import unseen
from ._telling import shown, tell, within_xla

Tensor = Any
History = tuple[Tensor, ...]
_FEW = 2**16
"""Entries up to which a state is copied to float64."""
_DOUBLED = {
    tf.float16: tf.float64,
    tf.bfloat16: tf.float64,
    tf.float32: tf.float64,
    tf.complex64: tf.complex128,
}


class TensorFlowJoints:
    """TensorFlow under the names that packing uses."""

    fused = False
    reshape = staticmethod(tf.reshape)
    concatenate = staticmethod(partial(tf.concat, axis=-1))
    split = staticmethod(partial(tf.split, axis=-1))


class _Leaves:
    """Operations on leaves, the same in eager and in graph mode up to where numbers live."""

    batch_ndim: int
    dtype: Any

    def dot(self, a: Tensor, b: Tensor) -> Any:
        """Per system Re Σ conj(a)·b."""
        wide = _wide(a)
        return self._number(_products(wide, wide if a is b else _wide(b), self.batch_ndim))

    def peak(self, a: Tensor) -> Any:
        """Per system max |a|."""
        return self._number(tf.reduce_max(tf.abs(a), axis=_inner(a, self.batch_ndim)))

    def scale(self, s: Any, a: Tensor) -> Tensor:
        """s·a."""
        wide = _wide(a)
        return tf.cast(self._spread(s, a, wide.dtype) * wide, a.dtype)

    def history(self, leaf: Tensor, length: int) -> History:
        """Zeros, in float32 if the leaf is narrower."""
        return (tf.zeros_like(_wide(leaf)),) * length

    def difference(self, history: History, slot: Any, a: Tensor, b: Tensor) -> Tensor:
        """a − b."""
        return a - b

    def project(self, history: History, leaf: Tensor) -> Any:
        """Products of every slot with leaf."""
        wide = _wide(leaf)
        rows = [_products(slot, wide, self.batch_ndim) for slot in history]
        return self._number(tf.stack(rows, axis=-1))

    def combine(self, weights: Any, history: History, like: Tensor) -> Tensor:
        """Weighted sum of the slots."""
        kind = history[0].dtype
        spread = [self._spread(w, like, kind) for w in tf.unstack(weights, len(history), axis=-1)]
        return tf.cast(tf.add_n([w * h for w, h in zip(spread, history, strict=True)]), like.dtype)

    def _number(self, x: Tensor) -> Any:
        raise NotImplementedError

    def _spread(self, s: Any, a: Tensor, dtype: Any) -> Tensor:
        # A Python float must not pass through float32 on its way to float64.
        column: Tensor = tf.cast(s, dtype) if tf.is_tensor(s) else tf.convert_to_tensor(s, dtype)
        if not self.batch_ndim:
            return column  # meets every leaf as it is
        return column[(..., *(None,) * (len(a.shape) - self.batch_ndim))]


class TensorFlowEagerOps(_Leaves, HostNumbers):
    """Eager: numbers on the host."""

    def select(self, mask: Any, a: Tensor, b: Tensor) -> Tensor:
        """a or b by system."""
        if not self.batch_ndim:
            return a if mask else b
        return a if mask.all() else tf.where(self._spread(mask, a, tf.bool), a, b)

    def store(self, history: History, slot: Any, leaf: Tensor) -> History:
        """Replace a slot."""
        index = int(slot)
        return (*history[:index], _wide(leaf), *history[index + 1 :])

    def loop(self, f: Callable[[Any], Any], process: Process, carry: Any) -> Any:
        """Python's while, which a tape around it does not follow.

        f itself runs as ever, as it may open a tape of its own; what it returns is cut off, so that
        a tape outside lets go of each evaluation as soon as its tensors are gone.
        """
        return super().loop(lambda z: tf.nest.map_structure(tf.stop_gradient, f(z)), process, carry)

    def take(self, tree: Any, systems: Any) -> Any:
        """Also of tensors."""
        if not tf.is_tensor(tree):
            return super().take(tree, systems)
        return self._regrouped(tf.gather(self._systems_of(tree), systems))

    def put(self, whole: Any, systems: Any, part: Any) -> Any:
        """Also of tensors."""
        if not tf.is_tensor(whole):
            return super().put(whole, systems, part)
        flat = self._systems_of(whole)
        new = tf.tensor_scatter_nd_update(flat, systems[:, None], self._systems_of(part))
        return tf.reshape(new, whole.shape)

    def _systems_of(self, x: Any) -> Any:
        return (
            tf.reshape(x, (-1, *x.shape[self.batch_ndim :]))
            if tf.is_tensor(x)
            else super()._systems_of(x)
        )

    def _regrouped(self, x: Any) -> Any:
        shape = (x.shape[0], *(1,) * (self.batch_ndim - 1), *x.shape[1:])
        return tf.reshape(x, shape) if tf.is_tensor(x) else super()._regrouped(x)

    def report(self, number: Any, integer: bool = False) -> Any:
        """Tensors."""
        return shown(super().report(number, integer), integer)

    def _number(self, x: Tensor) -> Any:
        found = x.numpy()
        return found.astype("float64") if found.ndim else float(found)


class TensorFlowGraphOps(_Leaves):
    """In a tf.function: numbers are tensors, control flow is staged."""

    traced = True
    roomy = False

    def __init__(self, batch_ndim: int, eps: float, dtype: Any) -> None:
        """``dtype`` is that of the numbers."""
        self.batch_ndim, self.eps, self.dtype = batch_ndim, eps, dtype
        self.xp = TensorFlowNumbers(dtype)

    def select(self, mask: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """a or b by system."""
        if self.batch_ndim > 1:
            return tf.where(self._spread(mask, a, tf.bool), a, b)
        return _chosen(mask, a, b)

    def store(self, history: History, slot: Tensor, leaf: Tensor) -> History:
        """Replace a slot."""
        wide, length = _wide(leaf), len(history)
        here = tf.unstack(tf.range(length, dtype=slot.dtype) == slot)
        return tuple(_chosen(h, wide, old) for h, old in zip(here, history, strict=True))

    def norm(self, x: tuple[Tensor, ...]) -> Tensor | None:
        """By squares in float64 where a copy of x in it costs less than a branch in the graph.

        A branch is some thirty operations, of which each takes its time whether it runs or not.
        """
        sizes = [leaf.shape.num_elements() for leaf in x]
        if None in sizes or sum(sizes) > _FEW or not all(leaf.dtype in _DOUBLED for leaf in x):
            return None
        wide = [tf.cast(leaf, _DOUBLED[leaf.dtype]) for leaf in x]
        squares = [_products(leaf, leaf, self.batch_ndim) for leaf in wide]
        return self._number(tf.sqrt(reduce(add, squares)))

    def numbers(self, leaf: Tensor, fill: float, shape: tuple[int, ...] = ()) -> Tensor:
        """A filled tensor, also for a batch size that is not known yet."""
        batch = tf.shape(leaf)[: self.batch_ndim]
        filled = tf.fill(tf.concat([batch, shape], 0), tf.constant(fill, self.dtype))
        return tf.ensure_shape(filled, leaf.shape[: self.batch_ndim].concatenate(shape))

    def scalar(self, value: Any) -> Tensor:
        """One number."""
        return tf.cast(value, self.dtype) if tf.is_tensor(value) else tf.constant(value, self.dtype)

    tell = staticmethod(tell)

    def solve(self, matrix: Tensor, right: Tensor) -> Tensor:
        """By whichever way takes less time; tf.linalg.solve would raise if one is singular."""
        one = not self.batch_ndim and not within_xla()
        return solved_by_qr(matrix, right) if one else solved_by_elimination(matrix, right)

    def cut(self, tree: Any, keep: Tensor | None = None) -> Any:
        """As it is: the loop is not differentiated."""
        return tree

    def cond(self, predicate: Tensor, true: Branch, false: Branch, wait: bool = False) -> Any:
        """tf.cond."""
        return self._control(tf.cond, predicate, true, false)

    def loop(self, f: Callable[[Any], Any], process: Process, carry: Any) -> Any:
        """tf.while_loop."""

        def body(c: Any) -> Any:
            # The optimiser of graphs does not know that the condition holds in here. Told so, it
            # takes a third of the logic of a single system away.
            going, true = process.active(self, c), tf.constant(True)
            known = tf.nest.map_structure(lambda x: true if x is going else x, c)
            return (process.update(self, known, f(c.z)),)

        (carry,) = self._control(
            tf.while_loop,
            lambda c: process.active(self, c),
            body,
            (carry,),
            parallel_iterations=1,
            maximum_iterations=self._most(process),
        )
        return carry

    def _most(self, process: Process) -> int | None:
        """A bound of the loop itself, which costs five operations a step: the process keeps it."""
        return None

    def report(self, number: Tensor, integer: bool = False) -> Tensor:
        """As it is, or as int32."""
        return tf.cast(number, tf.int32) if integer else number

    def _number(self, x: Tensor) -> Tensor:
        return tf.cast(x, self.dtype)

    _control = staticmethod(unseen)


class TensorFlowRecordedOps(TensorFlowGraphOps):
    """For loops that tapes follow, in eager mode as well."""

    @staticmethod
    def _control(operation: Any, *functions: Any, **options: Any) -> Any:
        return operation(*functions, **options)

    def _most(self, process: Process) -> int | None:
        """XLA has to know it where a loop is differentiated, and a segment ends by it."""
        return process.limit

    def cut(self, tree: Any, keep: Tensor | None = None) -> Any:
        """By tf.stop_gradient; a history is a tuple of leaves."""

        def one(x: Tensor) -> Tensor:
            if not (tf.is_tensor(x) and (x.dtype.is_floating or x.dtype.is_complex)):
                return x
            fixed = tf.stop_gradient(x)
            if keep is None or len(x.shape) < self.batch_ndim:
                return fixed if keep is None else x
            return tf.where(self._spread(keep, x, tf.bool), x, fixed)

        return tf.nest.map_structure(one, tree)


def _wide(a: Tensor) -> Tensor:
    return tf.cast(a, tf.float32) if a.dtype in (tf.float16, tf.bfloat16) else a


def _inner(a: Tensor, batch_ndim: int) -> list[int]:
    return list(range(batch_ndim, len(a.shape)))


def _chosen(mask: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """a or b, by one truth value or by row.

    tf.where broadcasts, and so copies; this operation hands on what one truth value chooses. In
    a graph, of 32×128 and of 10⁶ numbers: 1 and 6 microseconds for 4 and 670.
    """
    return tf.raw_ops.Select(condition=mask, x=a, y=b)


def _products(a: Tensor, b: Tensor, batch_ndim: int) -> Tensor:
    if a is b and not batch_ndim and a.dtype in (tf.float32, tf.float64):
        return 2.0 * tf.nn.l2_loss(a)  # one pass, and no square is written
    if a.dtype.is_complex:
        return tf.reduce_sum(tf.math.real(tf.math.conj(a) * b), axis=_inner(a, batch_ndim))
    return tf.reduce_sum(a * b, axis=_inner(a, batch_ndim))
