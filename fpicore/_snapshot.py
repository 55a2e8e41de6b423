"""A function as it is now, whatever happens later to the names that it refers to.

A backward pass may evaluate f again, long after the loop that defined it has gone on::

    for W in weights:
        h = fixed_point(lambda z: tanh(W @ z + h), z0).value

Python looks names up when a function is called, so all these functions would be the last one.
Automatic differentiation by recording does not have that trap, and neither shall this library.
"""

import dis
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import lru_cache
from types import CellType, CodeType, FunctionType
from typing import Any, Self

_WRITES = ("STORE_GLOBAL", "DELETE_GLOBAL", "STORE_DEREF", "DELETE_DEREF")
_MODULE = ("__builtins__", "__name__", "__package__", "__spec__", "__path__", "__file__")
"""What an import statement within f, and Python itself, look up."""


class Composite(ABC):
    """A map made of other functions."""

    @abstractmethod
    def held(self) -> Self:
        """The same of snapshots of them."""

    @abstractmethod
    def __call__(self, z: Any, *args: Any) -> Any:
        """One evaluation."""


def snapshot(f: Callable[..., Any]) -> Callable[..., Any]:
    """f with the present values of its closure and of its global names.

    Of plain Python functions; what a bound method or a module refers to lies in its object. A
    function that assigns to an outer name is left as it is, as the outer name is where it is
    looked for. The objects themselves are not copied, nor the global names of a library whose
    wrapper f is: they are its state.
    """
    if isinstance(f, Composite):
        return f.held()
    if f.__class__ is not FunctionType:
        return f
    names = _outer_names(f.__code__)
    if names is None:
        return f
    around = f.__globals__
    here = around
    if not hasattr(f, "__wrapped__") or around.get("__name__") == f.__module__:
        here = {name: around[name] for name in names if name in around}
    cells = tuple([_copy(cell) for cell in f.__closure__]) if f.__closure__ else None
    copy = FunctionType(f.__code__, here, f.__name__, f.__defaults__, cells)
    copy.__kwdefaults__, copy.__qualname__ = f.__kwdefaults__, f.__qualname__
    copy.__dict__.update(f.__dict__)
    return copy


def _copy(cell: CellType) -> CellType:
    try:
        return CellType(cell.cell_contents)
    except ValueError:  # not assigned yet
        return cell


@lru_cache(maxsize=512)
def _outer_names(code: CodeType) -> tuple[str, ...] | None:
    """The names that the code may look up globally, and Python itself for it.

    None if it assigns to an outer name.
    """
    names: set[str] = set()
    outer = set(code.co_freevars)
    for part in _parts(code):
        names.update(part.co_names)
        for instruction in dis.get_instructions(part):
            if instruction.opname in _WRITES:
                local = instruction.opname.endswith("DEREF") and instruction.argval not in outer
                if not local:
                    return None
    return (*names, *_MODULE)


def _parts(code: CodeType) -> Iterator[CodeType]:
    """The code and that of the functions within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _parts(constant)
