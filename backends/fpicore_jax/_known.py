"""Maps that are known again by their structure, and programs compiled once for all equal ones.

Outside of jit f is a new function in every call, and so is its jaxpr: JAX would compile a loop
around it anew each time. What the jaxpr says is the same, though, whatever the values of the arrays
that it closes over, and a program that takes these as arguments serves every later call.
"""

from collections.abc import Callable, Hashable
from functools import cached_property, partial
from threading import Lock
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.core import Tracer
from jax.extend import core as jax_core

from fpicore import Leaves

from ._varying import Axes, vary

_RULED = ("custom_jvp_call", "custom_vjp_call")
"""Primitives whose value is that of a jaxpr; their derivatives are functions, new in each trace."""
_VARIANTS = 2
"""Programs that differ in details alone and are compiled at once."""
_OFTEN = 8
"""How often another must come before it is compiled: a compilation costs some ten runs of it."""
_SEARCHES = ("jax_debug_nans", "jax_debug_infs")
"""Settings under which JAX looks at the result of every operation."""
_KINDS = (int, str, bytes, np.dtype, type(None))
"""What a parameter may be that belongs to the kind of an operation. Any other object may hold what
is new in each trace, as the callback of a jax.pure_callback does, though it compares by value."""
_REMEMBERED = 256
"""Programs, and what has come, of which the counts are kept."""


class Structure(NamedTuple):
    """What the values of a map depend on besides arrays."""

    skeleton: Hashable
    """Its operations, and what belongs to their kind."""
    details: Hashable
    """Numbers that are written into it, and objects such as functions."""


@jax.tree_util.register_static
class Map:
    """A jaxpr as a function of (constants, leaves), equal to every other of one structure."""

    def __init__(self, jaxpr: Any, axes: Axes = ()) -> None:
        """Of what a trace has found, and the mesh axes along which its results shall vary."""
        self._held, self.axes = len(jaxpr.constvars), axes
        # Newer versions keep the values in it, which must not live as long as a program does.
        self.jaxpr = jaxpr.with_consts(()) if hasattr(jaxpr, "with_consts") else jaxpr

    def __call__(self, constants: Any, leaves: Leaves) -> Leaves:
        call = jax_core.jaxpr_as_fun(jax_core.ClosedJaxpr(self.jaxpr, constants))
        return tuple(vary(leaf, self.axes) for leaf in call(*leaves))

    @cached_property
    def transposed(self) -> "Map":
        """Of a map that is linear in its leaves: ((), (*constants, *cotangents)) ↦ cotangents."""
        avals = [variable.aval for variable in (*self.jaxpr.constvars, *self.jaxpr.invars)]
        constants, leaves = avals[: self._held], avals[self._held :]

        def pull(*operands: Any) -> Leaves:
            held, v = operands[: len(constants)], operands[len(constants) :]
            turn = jax.linear_transpose(lambda *u: self(held, u), *leaves)
            return turn(v)

        return Map(jax.make_jaxpr(pull)(*constants, *leaves).jaxpr)

    @cached_property
    def structure(self) -> Structure | None:
        """None if Python cannot tell."""
        reader = _Reader()
        try:
            skeleton = reader.jaxpr(self.jaxpr)
        except _UnknownError:
            return None
        return Structure(_Hashed((skeleton, self._held, self.axes)), _Hashed(tuple(reader.details)))

    @cached_property
    def ruled(self) -> bool:
        """Whether its derivative is a rule of somebody's, which the structure does not show."""
        return _has_rules(self.jaxpr)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Map) or self.structure is None:
            return self is other
        return self.structure == other.structure

    def __hash__(self) -> int:
        return hash(self.structure)


def opened(apply: Callable[[Leaves], Leaves], like: Leaves) -> tuple[Map, Leaves]:
    """A function of such leaves as a map, and the constants that it closes over."""
    closed = jax.make_jaxpr(lambda *leaves: apply(leaves))(*like)
    return Map(closed.jaxpr), tuple(closed.consts)


class Known(Protocol):
    """What has a structure by which it is known again, and is equal where that is."""

    @property
    def structure(self) -> Structure | None: ...


class Program:
    """A function of something `Known`, further hashable things and pytrees of arrays.

    It is compiled outside of traces, for what is of known structure. Where details are new time
    and again, as when a number is counted up from call to call, it is run as it is, until the
    same has come often. So it is where JAX shall look for NaN after every operation. It must do
    the same either way.
    """

    def __init__(self, function: Callable[..., Any], hashable: int) -> None:
        """``hashable`` is the number of arguments that are, what is known among them first."""
        self.plain, self._hashable = function, hashable
        self._programs: dict[Any, Callable[..., Any]] = {}
        self._counts: dict[Any, int] = {}
        self._lock = Lock()

    def __call__(self, *given: Any) -> Any:
        """The value of the function."""
        fixed, arrays = given[: self._hashable], given[self._hashable :]
        if not any(isinstance(x, Tracer) for x in jax.tree.leaves(arrays)):
            compiled = self._compiled(fixed)
            if compiled is not None:
                return compiled(*arrays)
        return self.plain(*given)

    def _compiled(self, fixed: tuple[Any, ...]) -> Callable[..., Any] | None:
        """The program, where there is one or it pays to make one."""
        structure = fixed[0].structure
        if structure is None or any(getattr(jax.config, name) for name in _SEARCHES):
            return None
        try:
            with self._lock:
                program = self._programs.get(fixed)
                if program is None:
                    often = self._count(fixed) > _OFTEN
                    if not often and self._count((structure.skeleton, fixed[1:])) > _VARIANTS:
                        return None
                    program = jax.jit(partial(self.plain, *fixed))
                _keep(self._programs, fixed, program)
                return program
        except TypeError:  # somebody's strategy is not hashable
            return None

    def _count(self, key: Any) -> int:
        """How often it has come, this time included, as far as that is remembered."""
        count = self._counts.get(key, 0) + 1
        _keep(self._counts, key, count)
        return count


def _keep(store: dict[Any, Any], key: Any, value: Any) -> None:
    """As the newest in it; the oldest is lost."""
    store.pop(key, None)
    store[key] = value
    if len(store) > _REMEMBERED:
        del store[next(iter(store))]


class _UnknownError(Exception):
    """Something cannot be compared."""


class _Hashed:
    """A nested tuple that is hashed once."""

    def __init__(self, parts: Any) -> None:
        self._parts, self._hash = parts, hash(parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hashed) and self._parts == other._parts

    def __hash__(self) -> int:
        return self._hash


class _Reader:
    """Takes a jaxpr apart into hashable tuples, its details into a list."""

    def __init__(self) -> None:
        self.details: list[Any] = []
        self._contexts: dict[int, str] = {}

    def jaxpr(self, jaxpr: Any) -> Any:
        """Operations with their operands by number, in the order in which variables appear."""
        if jaxpr.effects:
            raise _UnknownError
        places: dict[Any, int] = {}

        def new(variables: Any) -> Any:
            for variable in variables:
                places[variable] = len(places)
            return tuple([variable.aval for variable in variables])

        def operand(atom: Any) -> Any:
            if not isinstance(atom, jax_core.Literal):
                return places[atom]
            self.details.append(self._value(atom.val))
            return atom.aval

        def operation(eqn: Any) -> Any:
            given = tuple([operand(atom) for atom in eqn.invars])
            context, parameters = self._context(eqn.ctx), self._parameters(eqn)
            return eqn.primitive, given, parameters, context, new(eqn.outvars)

        given = new(jaxpr.constvars), new(jaxpr.invars)
        operations = tuple([operation(eqn) for eqn in jaxpr.eqns])
        return given, operations, tuple([operand(atom) for atom in jaxpr.outvars])

    def _context(self, context: Any) -> str:
        if id(context) not in self._contexts:
            self._contexts[id(context)] = repr(context)
        return self._contexts[id(context)]

    def _parameters(self, eqn: Any) -> Any:
        ruled = eqn.primitive.name in _RULED
        inner = (jax_core.Jaxpr, jax_core.ClosedJaxpr)
        chosen = [x for x in eqn.params.items() if not ruled or isinstance(x[1], inner)]
        return tuple([(name, self._value(value)) for name, value in chosen])

    def _value(self, value: Any) -> Any:
        """A parameter, so that equal ones do the same: 1 is not True, nor 0.0 −0.0."""
        if isinstance(value, jax_core.ClosedJaxpr):  # first: newer versions know one class alone
            return self.jaxpr(value.jaxpr), self._value(list(value.consts))
        if isinstance(value, jax_core.Jaxpr):
            return self.jaxpr(value)
        if isinstance(value, (tuple, list)):
            return type(value), tuple([self._value(item) for item in value])
        if isinstance(value, dict):
            return tuple([(key, self._value(item)) for key, item in value.items()])
        if isinstance(value, (float, complex, np.ndarray, np.generic)):
            array = np.asarray(value)
            return array.dtype, array.shape, array.tobytes()
        try:
            hash(value)
        except TypeError as error:
            raise _UnknownError from error
        if isinstance(value, _KINDS):
            return type(value), value
        self.details.append(value)
        return type(value)


def _has_rules(jaxpr: Any) -> bool:
    return any(
        eqn.primitive.name in _RULED or any(map(_has_rules, jax_core.jaxprs_in_params(eqn.params)))
        for eqn in jaxpr.eqns
    )
