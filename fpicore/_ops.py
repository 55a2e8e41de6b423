"""Ops: the tensor protocol between the framework-free core and a framework.

Two kinds of arrays pass through it.

*Leaves* are the user's tensors: the state z is a tuple of leaves, and every leaf begins with the
same ``batch_ndim`` axes that index independent systems.

*Numbers* are the few values per system that steer a solve: norms, Gram matrices, coefficients,
masks, step counts. Their shape is the batch shape, plus trailing axes where they are vectors or
matrices. An eager framework keeps them on the host (`fpicore.HostNumbers`), where a step costs
microseconds less; a traced one keeps them as its own arrays. They support Python's operators
and are at least float32 whatever the dtype of the leaves.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from ._errors import InputError

Leaf = Any
Number = Any
History = Any
Branch = Callable[[], Any]


class Numbers(Protocol):
    """Functions on numbers, with the meaning that NumPy gives to their names.

    ``indicator`` is 1 where a mask is true, else 0. ``sum`` and ``max`` reduce the last axis,
    ``any`` and ``all`` every axis; ``transpose`` and ``matvec`` act on the last two;
    ``roll`` shifts the last axis in a circle.
    """

    where: Callable[..., Number]
    any: Callable[[Number], Number]
    all: Callable[[Number], Number]
    logical_not: Callable[[Number], Number]
    indicator: Callable[[Number], Number]
    isfinite: Callable[[Number], Number]
    sqrt: Callable[[Number], Number]
    abs: Callable[[Number], Number]
    reciprocal: Callable[[Number], Number]
    maximum: Callable[[Number, Number], Number]
    sum: Callable[[Number], Number]
    max: Callable[[Number], Number]
    arange: Callable[[int], Number]
    eye: Callable[[int], Number]
    transpose: Callable[[Number], Number]
    matvec: Callable[[Number, Number], Number]
    zeros_like: Callable[[Number], Number]
    roll: Callable[[Number, int], Number]


class Process(Protocol):
    """What ``Ops.loop`` repeats."""

    @property
    def limit(self) -> int:
        """The most evaluations of f."""
        ...

    def active(self, ops: "Ops", carry: Any) -> Number:
        """Whether any system still iterates: one boolean."""
        ...

    def update(self, ops: "Ops", carry: Any, f: Any) -> Any:
        """The next carry, from f at the current one; pure."""
        ...


class Ops(Protocol):
    """What the core needs of a framework; about twenty entries."""

    @property
    def batch_ndim(self) -> int:
        """Leading axes of every leaf that index independent systems."""
        ...

    @property
    def traced(self) -> bool:
        """True where Python must not look at values.

        In staged code they are unknown to it; on an accelerator it would have to wait for them.
        """
        ...

    @property
    def eps(self) -> float:
        """Unit of the precision in which products of leaves are known."""
        ...

    @property
    def roomy(self) -> bool:
        """True where ``dot`` of a leaf with itself neither over- nor underflows."""
        ...

    @property
    def xp(self) -> Any:
        """Namespace of numbers, a `Numbers`."""
        ...

    def dot(self, a: Leaf, b: Leaf) -> Number:
        """Per system Re Σ conj(a)·b, accumulated in float32 or better."""
        ...

    def norm(self, x: tuple[Leaf, ...]) -> Number | None:
        """Per system ‖x‖₂ of traced code, by an arithmetic wider than that of the leaves.

        None where there is no such, or it costs more than the branch of ``cond`` that it saves.
        """
        ...

    def peak(self, a: Leaf) -> Number:
        """Per system max |a|; NaN if a holds one."""
        ...

    def scale(self, s: Number, a: Leaf) -> Leaf:
        """s·a with one number per system, in the dtype of a."""
        ...

    def select(self, mask: Number, a: Leaf, b: Leaf) -> Leaf:
        """a where the system's mask is true, else b, bit for bit; never a multiplication."""
        ...

    def history(self, leaf: Leaf, length: int) -> History:
        """A buffer of ``length`` zero slots, each shaped like leaf."""
        ...

    def store(self, history: History, slot: Number, leaf: Leaf) -> History:
        """Put a copy of leaf into a slot; the passed buffer may be reused."""
        ...

    def difference(self, history: History, slot: Number, a: Leaf, b: Leaf) -> Leaf:
        """a − b, to be stored in that slot: an eager framework writes it there at once.

        It is in use from ``store`` on, and the tensor is not changed before the slot is.
        """
        ...

    def project(self, history: History, leaf: Leaf) -> Number:
        """Per system the ``length`` inner products <slot, leaf>."""
        ...

    def combine(self, weights: Number, history: History, like: Leaf) -> Leaf:
        """Per system Σ weights[i]·slot[i], with shape and dtype of ``like``."""
        ...

    def numbers(self, leaf: Leaf, fill: float, shape: tuple[int, ...] = ()) -> Number:
        """One ``shape``-d block per system, filled with a constant."""
        ...

    def solve(self, matrix: Number, right: Number) -> Number:
        """Per system x with matrix·x = right, the matrix symmetric and positive definite.

        ``right`` may lack the batch axes. A matrix that is singular or not finite gives rubbish
        for its own system, never an exception.
        """
        ...

    def cond(self, predicate: Number, true: Branch, false: Branch, wait: bool = False) -> Any:
        """``true()`` or ``false()`` by one boolean, evaluating only one where that is possible.

        With ``wait`` also where Python has to wait for a device to say which, as between loops.
        """
        ...

    def loop(self, f: Callable[[Any], Any], process: Process, carry: Any) -> Any:
        """``while process.active(self, carry): carry = process.update(self, carry, f(carry.z))``.

        ``process`` is hashable, so that an implementation may cache what it compiles of it, and
        tells its ``limit``, which XLA wants to know.
        """
        ...

    def cut(self, tree: Any, keep: Number | None = None) -> Any:
        """The tree of leaves, histories and numbers, without its derivative.

        With ``keep`` the systems of that mask have theirs all the same. As it is, where nothing
        differentiates the loop.
        """
        ...

    def scalar(self, value: Any) -> Number:
        """One number for the whole batch, of a Python number or a tensor without axes."""
        ...

    def tell(self, receive: Callable[..., Any], numbers: tuple[Number, ...]) -> None:
        """``receive(*numbers)``, which are NumPy arrays there or Python's; in a trace when it runs.

        Raises:
            InputError: what is traced cannot call the host.
        """
        ...

    def report(self, number: Number, integer: bool = False) -> Any:
        """A number as the user shall see it in the solution."""
        ...


class EagerOps(Ops, Protocol):
    """What is needed besides where Python decides which systems go on.

    The namespace of numbers then has ``count(mask)`` and ``positions(mask)`` as well.
    """

    def take(self, tree: Any, systems: Number) -> Any:
        """The tree of leaves, histories and numbers, for the systems at these positions.

        Positions count through all batch axes in order, and the systems come in a batch of the
        same number of axes. Numbers with fewer axes than the batch are the same for all.
        """
        ...

    def put(self, whole: Any, systems: Number, part: Any) -> Any:
        """A tree of leaves and numbers with ``part`` in place of the systems at these positions."""
        ...

    def opened(self, tree: Any) -> Any:
        """The tree with every slot of its new histories in use, as zero.

        Sums over slots round alike for all systems then, whenever one begins to use them.
        """
        ...


class Precision(NamedTuple):
    """What the dtypes of a state can resolve."""

    eps: float
    """Unit of the coarsest leaf dtype: the distance from 1 to the next number."""
    tiny: float
    """Sums of squares below this may have lost terms to underflow."""
    huge: float
    """Sums of squares above this may be about to overflow; its reciprocal is a normal number."""
    smallest: float
    """The smallest normal number: its reciprocal is still finite."""


_DTYPE = re.compile(r"(?:bfloat|float|complex)\d+")
_SINGLE = (1e-30, 1e37, 2.0**-126)
_DOUBLE = (1e-270, 1e300, 2.0**-1022)
_PRECISIONS = {
    "float16": Precision(2.0**-10, *_SINGLE),
    "bfloat16": Precision(2.0**-7, *_SINGLE),
    "float32": Precision(2.0**-23, *_SINGLE),
    "complex64": Precision(2.0**-23, *_SINGLE),
    "float64": Precision(2.0**-52, *_DOUBLE),
    "complex128": Precision(2.0**-52, *_DOUBLE),
}


@lru_cache
def precision_of(dtypes: tuple[str, ...]) -> Precision:
    """The precision of a state whose leaves have these dtypes: the coarsest of them.

    Raises:
        InputError: a dtype is not a floating-point or complex one.
    """
    for name in dtypes:
        if name not in _PRECISIONS:
            raise InputError(
                f"expected a state of floating-point or complex dtype ({', '.join(_PRECISIONS)}), "
                f"received {name}; cast z0 before the call"
            )
    found = [_PRECISIONS[name] for name in dtypes]
    return Precision(
        eps=max(p.eps for p in found),
        tiny=max(p.tiny for p in found),
        huge=min(p.huge for p in found),
        smallest=max(p.smallest for p in found),
    )


def unit_of(leaves: tuple[Leaf, ...]) -> float:
    """Unit of the coarsest dtype of a state; every framework prints the names that NumPy has."""
    return precision_of(tuple([_DTYPE.findall(str(leaf.dtype))[0] for leaf in leaves])).eps


@lru_cache
def accumulation_eps(dtypes: tuple[str, ...]) -> float:
    """Unit of the precision in which products of leaves of these dtypes are summed."""
    return min(_PRECISIONS["float32"].eps, precision_of(dtypes).eps)
