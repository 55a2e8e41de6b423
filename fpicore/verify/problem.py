"""Problem: a map, where to start, and what is known of the answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from .._errors import InputError
from .arrays import Array, Tree, convert, leaves, leaves_like

FRAMEWORKS = ("numpy", "torch", "jax", "tensorflow")
"""Names by which a map may be given per framework."""

Map = Callable[..., Any] | Mapping[str, Callable[..., Any]]


@dataclass(frozen=True, eq=False)
class Problem:
    """The fixed-point problem z = f(z, *args, *data), and a loss whose gradient is checked.

    Raises:
        InputError: a field is not usable.
    """

    name: str
    """Shown in the report."""
    map: Map
    """``f(xp, z, *args, *data)`` in array-API style, called with each framework's namespace as
    xp; or a dict {"torch": f, "jax": f, ...} of plain ``f(z, *args, *data)``. It returns a state
    of the structure of z."""
    z0: Tree
    """The start: nested dicts, lists, tuples of float arrays, each (*batch, *own)."""
    args: tuple[Any, ...] = ()
    """What the loss is differentiated with respect to: nested float arrays."""
    data: tuple[Any, ...] = ()
    """Further arguments of f, not differentiated; integers are allowed."""
    loss: Map | None = None
    """``loss(xp, z, *args, *data)``, or a dict as for ``map``: a scalar of z* and the arguments.
    By default Σ cotangent·z."""
    cotangent: Tree = None
    """Weights of the default loss, shaped like z0; fixed pseudo-random numbers by default."""
    batch_ndim: int = 0
    """Leading axes of every leaf of z that index independent systems."""
    max_steps: int = 5000
    """Steps allowed to each solve, forward and adjoint."""
    exact: Tree = None
    """z*, where it is known."""
    exact_gradients: tuple[Any, ...] | None = None
    """Gradients of the loss, of the structure of args, where they are known."""
    excluded: Mapping[str, str] = field(default_factory=dict)
    """Solvers that cannot converge, {"picard": reason}. They must then end not converged."""

    def __post_init__(self) -> None:
        """Check every field and turn numbers into float64 arrays."""
        if not isinstance(self.name, str) or not self.name:
            _refuse("the name of a problem", "a non-empty string", self.name)
        _check_map(self.map, "map")
        if self.loss is not None:
            _check_map(self.loss, "loss")
        for name in ("args", "data"):
            if not isinstance(getattr(self, name), tuple):
                received = getattr(self, name)
                _refuse(f"{name} of problem {self.name!r}", "a tuple, as (a, b) or (a,)", received)
        self._set("z0", _arrays(self.z0, "z0", floating=True))
        self._set("args", _arrays(self.args, "args", floating=True))
        self._set("data", _arrays(self.data, "data", floating=False))
        if self.exact is not None:
            self._set("exact", _arrays(self.exact, "exact", floating=True))
        self._check_batch()
        _check_count(self.max_steps, "max_steps", 1)
        self._check_cotangent()

    def bind(self, framework: str, xp: Any) -> tuple[Callable[..., Any], Callable[..., Any] | None]:
        """The map and the loss of one framework, plain functions of z and the arguments.

        Raises:
            InputError: the map is given per framework, and not for this one.
        """
        loss = None if self.loss is None else _choose(self.loss, framework, xp, "loss")
        return _choose(self.map, framework, xp, "map"), loss

    def supports(self, framework: str) -> bool:
        """Whether the map, and the loss if there is one, exist for a framework."""
        given = [part for part in (self.map, self.loss) if isinstance(part, Mapping)]
        return all(framework in part for part in given)

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # the dataclass is frozen from here on

    def _check_batch(self) -> None:
        _check_count(self.batch_ndim, "batch_ndim", 0)
        shapes = [leaf.shape for leaf in leaves(self.z0)]
        if not shapes or 0 in [leaf.size for leaf in leaves(self.z0)]:
            _refuse("z0", "at least one array, and no empty one", f"arrays of shapes {shapes}")
        batches = {shape[: self.batch_ndim] for shape in shapes}
        if len(batches) > 1 or min(len(shape) for shape in shapes) < self.batch_ndim:
            expected = f"the same {self.batch_ndim} leading axes in every leaf (batch_ndim)"
            _refuse("z0", expected, f"arrays of shapes {shapes}")

    def _check_cotangent(self) -> None:
        if self.cotangent is None:
            random = np.random.default_rng(20_240_229)
            self._set("cotangent", convert(lambda z: random.standard_normal(z.shape), self.z0))
        self._set("cotangent", _arrays(self.cotangent, "cotangent", floating=True))
        found = leaves_like(self.cotangent, self.z0, "the cotangent")
        shapes = [leaf.shape for leaf in found]
        if shapes != [leaf.shape for leaf in leaves(self.z0)]:
            _refuse("cotangent", "arrays shaped like z0", f"arrays of shapes {shapes}")


def _refuse(subject: str, expected: str, received: Any) -> None:
    raise InputError(f"expected {subject} to be {expected}, received {received!r}")


def _check_map(given: Any, name: str) -> None:
    style = f"{name}(xp, z, *args) in array-API style"
    table = f"a dict {{framework: {name}(z, *args)}} with frameworks of {', '.join(FRAMEWORKS)}"
    parts = given.values() if isinstance(given, Mapping) else [given]
    names = list(given) if isinstance(given, Mapping) else []
    if not all(callable(part) for part in parts) or not set(names) <= set(FRAMEWORKS):
        _refuse(name, f"{style}, or {table}", given)
    if isinstance(given, Mapping) and not given:
        _refuse(name, f"{style}, or {table}", given)


def _check_count(value: Any, name: str, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        _refuse(name, f"an integer of at least {least}", value)


def _arrays(tree: Tree, name: str, *, floating: bool) -> Tree:
    return convert(lambda leaf: _array(leaf, name, floating=floating), tree)


def _array(leaf: Any, name: str, *, floating: bool) -> Array:
    array = np.asarray(leaf)
    if array.dtype.kind == "f":
        return array.astype(np.float64)
    if floating or array.dtype.kind not in "iub":
        hint = " (integers belong in data)" if name == "args" else ""
        _refuse(f"every leaf of {name}", f"a NumPy array of floats{hint}", leaf)
    return array


def _choose(given: Map, framework: str, xp: Any, name: str) -> Callable[..., Any]:
    if not isinstance(given, Mapping):
        return partial(given, xp)
    if framework not in given:
        raise InputError(
            f"expected the {name} to be given for {framework}, received one for "
            f"{', '.join(given)}; add it, or leave {framework} out with --backend"
        )
    return given[framework]
