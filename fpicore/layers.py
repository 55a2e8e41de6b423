"""What the layers of every framework share: options, where a solve starts, what it leaves behind.

A layer is z* = f(z*, x…) with a cell for f. `LayerOptions` says how it is solved, and can be
written to a configuration and read back; the frameworks' layers differ only in how they keep
parameters.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Self

from ._adjoint import AbstractAdjoint
from ._backend import Backend
from ._entry import given, make_adjoint, make_iteration
from ._errors import InputError
from ._ops import precision_of
from ._options import check_count
from ._reporting import check_on_failure
from ._solution import Backward, Results, Solution, Stats
from ._solver import AbstractLinearSolver, AbstractSolver
from ._tree import describe
from ._watch import Callback, watch
from .solvers import Picard

Strategy = AbstractSolver | AbstractLinearSolver | AbstractAdjoint


class LayerReport(NamedTuple):
    """What the last call of a layer left behind, without the value and its graph."""

    result: Results
    """Per system how the solve ended."""
    stats: Stats
    """Cost and certificate."""
    backward: Backward | None = None
    """The adjoint's outcome once a backward pass has run, in eager frameworks."""


def report_of(solution: Solution) -> LayerReport:
    """The part of a solution that a layer keeps."""
    return LayerReport(solution.result, solution.stats, solution.backward)


class LayerSummary(NamedTuple):
    """A `LayerReport` over the whole batch, of a fixed shape: what traced code can keep."""

    steps: Any
    """Most steps that a system took."""
    residual: Any
    """Largest residual over tolerance; at most 1 where all converged."""
    failed: Any
    """Systems that did not converge."""


def summarize(xp: Any, solution: Solution) -> LayerSummary:
    """The summary of a solve, in a namespace with max, where and sum.

    Only a residual of 0 meets a tolerance of 0; beside it, and beside NaN, any other is infinite.
    """
    stats = solution.stats
    positive = stats.tolerance > 0.0
    ratio = stats.residual / xp.where(positive, stats.tolerance, 1.0)
    bare = xp.where(stats.residual <= 0.0, 0.0, float("inf"))
    return LayerSummary(
        xp.max(stats.steps),
        xp.max(xp.where(positive, ratio, bare)),
        xp.sum(xp.where(solution.converged, 0, 1)),
    )


@dataclass(frozen=True)
class LayerOptions:
    """How a layer solves z = f(z, x…).

    Attributes:
        z0: where a solve starts. None: zeros of the shape of the first input. An integer or a
            tuple of integers: zeros of this shape for each system, with the batch axes and dtype
            of the first input. A function: z0(x…), a state of any structure.
        solver, adjoint, rtol, atol, norm, max_steps, batch_ndim, on_failure: as in
            ``fixed_point``; batch_ndim is 1 unless said otherwise.
        warm_start: start from the last value instead, where its shapes and dtypes are those of
            the start; a system that did not converge starts from z0 again. The value is the same,
            to the tolerance, if the map has one fixed point.
        trace, callback: as in ``fixed_point``. A trace is found in the stats of the layer's
            ``last`` call, and not in its ``summary``; a callback cannot be written to a
            configuration.

    Raises:
        InputError: an option is not usable.
    """

    z0: Any = None
    solver: AbstractSolver | None = None
    adjoint: AbstractAdjoint | None = None
    rtol: float | None = None
    atol: float = 0.0
    norm: str = "l2"
    max_steps: int = 100
    batch_ndim: int = 1
    on_failure: str = "warn"
    warm_start: bool = False
    trace: bool = False
    callback: Callback | None = None

    def __post_init__(self) -> None:
        solver, precision = given(self.solver, _PICARD), precision_of(("float64",))
        limits = (self.rtol, self.atol, self.norm, self.max_steps)
        watch(make_iteration(solver, *limits, precision, 0), self.trace, self.callback)
        make_adjoint(self.adjoint)
        check_on_failure(self.on_failure)
        check_count("batch_ndim", self.batch_ndim, 0)
        if not isinstance(self.warm_start, bool):
            raise InputError(f"expected warm_start to be True or False, received {self.warm_start}")
        if isinstance(self.z0, (tuple, list)):
            object.__setattr__(self, "z0", tuple(check_count("z0", n, 1) for n in self.z0))
        elif self.z0 is not None and not callable(self.z0):
            object.__setattr__(self, "z0", (check_count("z0", self.z0, 1),))

    def keywords(self) -> dict[str, Any]:
        """The options of ``fixed_point``."""
        names = [f.name for f in fields(self) if f.name not in ("z0", "warm_start")]
        return {name: getattr(self, name) for name in names}

    def start_shape(
        self, inputs: tuple[Any, ...], shape_of: Callable[[Any], Any] = lambda x: x.shape
    ) -> tuple[Any, ...]:
        """The shape of the zeros to start from; not where z0 is a function.

        Raises:
            InputError: there is no tensor to take the batch axes from.
        """
        first = inputs[0] if inputs else None
        if not hasattr(first, "shape"):
            raise InputError(
                "expected the first input to be a tensor, whose batch axes and dtype the start "
                f"takes; received {describe(first) if inputs else 'no input'}. Pass z0=function "
                "of the inputs"
            )
        shape = tuple(shape_of(first))
        return shape if self.z0 is None else (*shape[: self.batch_ndim], *self.z0)

    def config(self) -> dict[str, Any]:
        """The options as numbers, strings and dicts, without z0 where it is a function.

        Raises:
            InputError: there is a callback, or a strategy holds what cannot be written.
        """
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        if found.pop("callback") is not None:
            raise InputError(
                "expected callback=None, as a configuration cannot hold a function; received "
                f"{self.callback!r}: save the layer without it"
            )
        found["solver"], found["adjoint"] = map(strategy_config, (self.solver, self.adjoint))
        found["z0"] = None if callable(self.z0) else self.z0
        return found

    @classmethod
    def split(cls, options: Mapping[str, Any]) -> tuple[Self, dict[str, Any]]:
        """The options of a solve, and what is left."""
        names = {f.name for f in fields(cls)}
        mine = {name: value for name, value in options.items() if name in names}
        return cls(**mine), {k: v for k, v in options.items() if k not in names}

    @staticmethod
    def restore(config: Mapping[str, Any]) -> dict[str, Any]:
        """What `config` gave, and whatever else is in it, with the strategies made again.

        Raises:
            InputError: a strategy is unknown in this process.
        """
        parts = {name: strategy_from_config(config.get(name)) for name in ("solver", "adjoint")}
        return {**config, **parts}


def warm(backend: Backend, kept: Any, start: Any) -> Any:
    """``kept`` where it can stand in for ``start``, which it has not been asked for; else start."""
    if kept is None:
        return start
    leaves, rebuild = backend.flatten(start)
    try:
        old = backend.flatten_like(kept, start)
    except InputError:
        return start
    admitted = tuple([backend.admit(a, b) for a, b in zip(old, leaves, strict=True)])
    return start if any(leaf is None for leaf in admitted) else rebuild(admitted)


def strategy_config(strategy: Strategy | None) -> dict[str, Any] | None:
    """A solver or adjoint as its name and fields.

    Raises:
        InputError: it is no dataclass of numbers, strings and strategies.
    """
    if strategy is None:
        return None
    found: dict[str, Any] = {"name": type(strategy).__name__}
    for field in fields(strategy):  # type: ignore[arg-type]
        value = getattr(strategy, field.name)
        if isinstance(value, Strategy):
            value = strategy_config(value)
        elif value is not None and not isinstance(value, (bool, int, float, str)):
            raise InputError(
                f"expected the fields of {type(strategy).__name__} to be numbers, strings or "
                f"strategies, which a configuration can hold; received {field.name}={value!r}"
            )
        found[field.name] = value
    return found


def strategy_from_config(config: Mapping[str, Any] | None) -> Any:
    """The strategy again; of a class of fpicore or one that is defined in this process.

    Raises:
        InputError: there is no such class, or there are several.
    """
    if config is None:
        return None
    kinds = {k for kind in _ROOTS for k in _below(kind) if k.__name__ == config["name"]}
    if len(kinds) != 1:
        raise InputError(
            f"expected one solver or adjoint named {config['name']!r}, received "
            f"{sorted(map(repr, kinds))}; import the module that defines it"
        )
    parts = {name: value for name, value in config.items() if name != "name"}
    for name, value in parts.items():
        if isinstance(value, Mapping):
            parts[name] = strategy_from_config(value)
    return kinds.pop()(**parts)


def activation_of(functions: Mapping[str, Callable[..., Any]], wanted: Any) -> Callable[..., Any]:
    """The function of this name, or the function itself.

    Raises:
        InputError: it is neither.
    """
    if isinstance(wanted, str) and wanted in functions:
        return functions[wanted]
    if callable(wanted):
        return wanted
    raise InputError(
        f"expected activation to be a function or one of {sorted(functions)}, received {wanted!r}"
    )


def check_part(name: str, part: Any) -> Any:
    """The part of a layer that f is made of, which must be callable, else `InputError`."""
    if not callable(part):
        raise InputError(f"expected {name} to be a module or a function, received {part!r}")
    return part


NORMALIZATIONS = ("spectral", "weight", None)
"""How an equilibrium block keeps its matrix W contractive: see `check_block`."""


def check_block(normalization: Any, radius: float) -> float:
    """The radius of an equilibrium block z = σ(W z + U x + b), checked.

    With "spectral" W = radius·V/‖V‖₂, with ‖V‖₂ from one power iteration a training step; with
    "weight" every row of W is g·v/‖v‖, and W only begins with ‖W‖₂ = radius, as with None.

    Raises:
        InputError: an option is not usable.
    """
    if normalization not in NORMALIZATIONS:
        raise InputError(
            f"expected normalization to be one of {NORMALIZATIONS}, received {normalization!r}"
        )
    if isinstance(radius, bool) or not isinstance(radius, (int, float)) or not 0 < radius < 100:
        raise InputError(
            f"expected radius to be a number > 0, below 1 to contract; received {radius!r}"
        )
    return float(radius)


def _below(kind: type) -> Iterator[type]:
    """A class and all that derive from it."""
    yield kind
    for child in kind.__subclasses__():
        yield from _below(child)


_ROOTS = (AbstractSolver, AbstractLinearSolver, AbstractAdjoint)
_PICARD = Picard()
