"""Problem: the user's map and start, checked, and spoken to in leaves."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ._errors import InputError, MapError
from ._ops import Leaf, Precision, precision_of
from ._snapshot import snapshot
from ._tree import Leaves, describe


class Structure(Protocol):
    """How a framework reads and writes nested structures of its tensors."""

    def flatten(self, tree: Any) -> tuple[Leaves, Callable[[Leaves], Any]]:
        """Leaves of a nested structure, and the function that rebuilds it from leaves.

        Raises:
            InputError: something in it is not a tensor of this framework.
        """
        ...

    def flatten_like(self, tree: Any, like: Any) -> Leaves:
        """Leaves of a tree that must have the structure of ``like``.

        Raises:
            InputError: it has not.
        """
        ...

    def dtype_name(self, leaf: Leaf) -> str:
        """The dtype by NumPy's name: "float32"."""
        ...

    def admit(self, new: Leaf, old: Leaf) -> Leaf | None:
        """``new`` if it has the shape and dtype of ``old``, or can be taken for it; else None."""
        ...


@dataclass(frozen=True, eq=False)
class Problem:
    """z = f(z, *args), with z as a tuple of leaves."""

    structure: Structure
    f: Callable[..., Any]
    args: tuple[Any, ...]
    z0: Any
    leaves: Leaves
    rebuild: Callable[[Leaves], Any]
    precision: Precision
    batch_ndim: int
    has_aux: bool
    bare: bool
    """z is a single tensor and f returns nothing else."""
    budget: Any = None
    """Most steps of this solve: None is max_steps; data, as the leaves are."""

    def evaluate(self, z: Leaves) -> tuple[Leaves, Any]:
        """The leaves of f(z) and its auxiliary output (None without).

        Raises:
            MapError: f(z) differs from z in structure, shape or dtype, or is no pair (z, aux).
        """
        return self._read(self.f(self.rebuild(z), *self.args), z)

    def _read(self, out: Any, z: Leaves) -> tuple[Leaves, Any]:
        """What f returned, checked."""
        aux = None
        if self.has_aux:
            if not isinstance(out, tuple) or len(out) != 2:
                raise MapError(
                    "expected f(z) to return a pair (z, aux) because has_aux=True, "
                    f"received {describe(out)}"
                )
            out, aux = out
        try:
            new = self.structure.flatten_like(out, self.z0)
        except InputError as error:
            raise MapError(f"{error}; f must return the structure of z0") from None
        if len(new) == 1:
            return (self._admit(0, new[0], z[0]),), aux
        pairs = enumerate(zip(new, z, strict=True))
        return tuple([self._admit(i, a, b) for i, (a, b) in pairs]), aux

    def map(self, z: Leaves) -> Leaves:
        """The leaves of f(z)."""
        if self.bare:  # the common case: one tensor in, one out
            out = self.f(z[0], *self.args)
            if out.__class__ is z[0].__class__:
                leaf = self.structure.admit(out, z[0])
                if leaf is not None:
                    return (leaf,)
            return self._read(out, z)[0]
        return self.evaluate(z)[0]

    def _admit(self, index: int, new: Any, old: Any) -> Any:
        leaf = self.structure.admit(new, old)
        if leaf is None:
            raise MapError(
                f"expected leaf {index} of f(z) to be like that of z, {self._kind(old)}; "
                f"received {self._kind(new)}; cast or reshape inside f, or change z0"
            )
        return leaf

    def _kind(self, leaf: Any) -> str:
        return f"shape {tuple(leaf.shape)} dtype {self.structure.dtype_name(leaf)}"


def make_problem(
    structure: Structure,
    f: Any,
    z0: Any,
    args: Any,
    *,
    batch_ndim: int,
    has_aux: bool,
) -> Problem:
    """Check what the user passed, before any work is done.

    Raises:
        InputError: f is not callable, args is no tuple, or z0 is empty, of an integer dtype,
            of another framework, or has fewer axes than batch_ndim.
    """
    if not callable(f):
        raise InputError(f"expected f to be callable as f(z, *args), received {describe(f)}")
    if not isinstance(args, (tuple, list)):
        raise InputError(
            f"expected args to be a tuple of further arguments of f, received {describe(args)}; "
            "write args=(x,) for a single one"
        )
    leaves, rebuild = structure.flatten(z0)
    check_state(leaves, batch_ndim)
    start = rebuild(leaves)
    return Problem(
        structure=structure,
        f=snapshot(f),
        args=tuple(args),
        z0=start,
        leaves=leaves,
        rebuild=rebuild,
        precision=precision_of(tuple([structure.dtype_name(leaf) for leaf in leaves])),
        batch_ndim=batch_ndim,
        has_aux=bool(has_aux),
        bare=not has_aux and len(leaves) == 1 and start is leaves[0],
    )


def check_state(leaves: Leaves, batch_ndim: int) -> None:
    """Raise `InputError` unless the leaves can be a state with ``batch_ndim`` batch axes."""
    for leaf in leaves:
        if getattr(leaf.shape, "rank", 0) is None:
            raise InputError("expected z0 of known rank, received a tensor of unknown shape")
    if not leaves:
        raise InputError("expected z0 to hold at least one tensor, received an empty structure")
    for index, leaf in enumerate(leaves):
        shape = tuple(leaf.shape)
        if 0 in shape:
            raise InputError(
                f"expected z0 to have entries, received leaf {index} of shape {shape}; "
                "skip the solve for an empty batch"
            )
        if len(shape) < batch_ndim:
            raise InputError(
                f"expected every leaf of z0 to begin with batch_ndim={batch_ndim} batch axes, "
                f"received leaf {index} of shape {shape}; lower batch_ndim or add axes to z0"
            )
        if shape[:batch_ndim] != tuple(leaves[0].shape)[:batch_ndim]:
            raise InputError(
                f"expected the leaves of z0 to share their {batch_ndim} batch axes, received "
                f"shapes {tuple(leaves[0].shape)} and {shape} (leaf {index})"
            )
