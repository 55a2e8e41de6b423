"""How f is called during a solve: watched for writes, and in the caller's autocast state.

And whether two evaluations of it are the same.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from fpicore import Leaves, MapError

from ._levels import outside_transforms

Map = Callable[[Leaves], Leaves]
Function = TypeVar("Function", bound=Callable[..., Any])


def outside_compile(function: Function) -> Function:
    """``torch.compiler.disable``, with the type that it hides: dynamo breaks its graph here."""
    return cast(Function, torch.compiler.disable(function, reason=_REASON))


_REASON = (
    "an fpicore solve takes as many steps as it needs, which a compiled graph cannot. "
    "fullgraph=True takes fixed_point(f, z0, args) where f is a function or a method of a module "
    "and the adjoint is Implicit() or an approximation of it, without has_aux, compact, autocast, "
    "torch.func and torch.export; else leave the solve outside of what is compiled, and compile f"
)


def version(tensor: Tensor) -> int | None:
    """How often it was written to; None for one made in inference mode, which does not count."""
    return None if tensor.is_inference() else tensor._version


def watch(tensor: Tensor) -> Callable[[], bool]:
    """Tells whether it was written to since; of one made in inference mode, by its content."""
    if not tensor.is_inference():
        before = tensor._version
        return lambda: tensor._version != before
    with outside_transforms():
        content = tensor.clone()

    def changed() -> bool:
        with outside_transforms():
            return not bool(((tensor == content) | (tensor.isnan() & content.isnan())).all())

    return changed


def unwritten(f: Map, cut: bool = False) -> Map:
    """f, refused if it writes to its argument: f(z) − z would be zero without a word.

    Tensors of inference mode cannot tell, so that f is given copies of them, and copied from.
    With ``cut`` what it returns is detached.
    """

    def evaluate(z: Leaves) -> Leaves:
        if len(z) == 1:  # most states; a list for one costs as much as all else here
            leaf = z[0]
            if leaf.is_inference():
                return _own(f((leaf.clone(),)), cut)
            before = leaf._version
            (one,) = new = f(z)
            if leaf._version != before:
                raise MapError(_WRITES)
            return _own(new, cut) if one.is_inference() or (cut and one.requires_grad) else new
        z = _own(z)
        versions = [version(leaf) for leaf in z]
        new = _own(f(z), cut)
        if versions != [version(leaf) for leaf in z]:
            raise MapError(_WRITES)
        return new

    return evaluate


def _own(leaves: Leaves, cut: bool = False) -> Leaves:
    own = [leaf.clone() if leaf.is_inference() else leaf for leaf in leaves]
    return tuple([leaf.detach() if cut and leaf.requires_grad else leaf for leaf in own])


def watched(f: Map) -> Map:
    """``unwritten``, and cut off from any graph that f records.

    One that records under no_grad (an energy's gradient, say) would chain the graphs of all steps.
    """
    return unwritten(f, cut=True)


_WRITES = (
    "expected f to leave its argument as it is, received an f that writes to z in "
    "place (or to a buffer that it returned before); use out-of-place operations"
)


def without_autocast(device: str) -> AbstractContextManager[Callable[[Map], Map]]:
    """Keep the solver's own products out of autocast; gives a decorator that resumes it for f."""
    if not torch.is_autocast_enabled(device):
        return nullcontext(_unchanged)
    return _suspended_autocast(device)


def _unchanged(f: Map) -> Map:
    return f


@contextmanager
def _suspended_autocast(device: str) -> Iterator[Callable[[Map], Map]]:
    dtype, cache = torch.get_autocast_dtype(device), torch.is_autocast_cache_enabled()

    def resume(f: Map) -> Map:
        def evaluate(z: Leaves) -> Leaves:
            with torch.autocast(device, dtype=dtype, cache_enabled=cache):
                return f(z)

        return evaluate

    with torch.autocast(device, enabled=False):
        yield resume


def agree(a: Leaves, b: Leaves, batch_ndim: int, power: float) -> bool:
    """Whether two evaluations of f are the same but for rounding.

    That is |a − b| ≤ ε^power · max |b| in every entry, with the machine precision ε and the
    largest finite entry of the system of b; NaN is like NaN, infinity like infinity. Where all of
    b is zero, a must be: there is no scale that would tell rounding from a small f.
    """
    return all(_alike(x, y, batch_ndim, power) for x, y in zip(a, b, strict=True))


def _alike(a: Tensor, b: Tensor, batch_ndim: int, power: float) -> bool:
    size = torch.where(torch.isfinite(b), b.abs(), 0.0)
    entries = tuple(range(batch_ndim, b.ndim))
    peak = size.amax(entries, keepdim=True) if entries else size
    # The comparison comes first: the difference of infinities is NaN.
    same = (a == b) | ((a - b).abs() <= torch.finfo(b.dtype).eps ** power * peak)
    return bool((same | (torch.isnan(a) & torch.isnan(b))).all())
