"""What a caller may see of an iteration while it runs and afterwards."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

from . import _tree as tree
from ._errors import InputError
from ._iterate import Carry, Iteration, Map
from ._numbers import set_entry
from ._ops import Number, Ops
from ._tree import Leaves

_INF = float("inf")
_NOTHING = -1.0
"""In a trace, where nothing was evaluated; a residual is never negative."""


class Progress(NamedTuple):
    """One evaluation of f, as a ``callback`` is told of it: numbers and NumPy arrays.

    The numbers are per system, of the batch shape; plain numbers where there is no batch axis.
    """

    step: int
    """Solver steps before this evaluation; 0 at the start."""
    residual: Any
    """‖f(z) − z‖ at the iterate; of no meaning for a system that had stopped before."""
    tolerance: Any
    """atol + rtol·‖f(z)‖ there."""
    active: Any
    """Which systems go on. After the last call none does."""


Callback = Callable[[Progress], Any]


class _Facts(NamedTuple):
    """What a callback will be told of the latest evaluation; before the first, step −1."""

    step: Number
    residual: Number
    tolerance: Number
    active: Number


class _Seen(NamedTuple):
    """A carry, and what is kept of it for the caller."""

    carry: Carry
    trace: Any
    """Residual of every evaluation so far; () if it is not asked for."""
    facts: Any
    """() if there is no callback."""

    @property
    def z(self) -> Any:
        """What f is called with: the iterate, and the facts if there is someone to tell."""
        return (self.carry.z, self.facts) if self.facts else self.carry.z


@dataclass(frozen=True, kw_only=True)
class Watched(Iteration):
    """An iteration that keeps its residuals, or tells of every evaluation, or both.

    The callback is told on the way to f, from facts that travel in the carry: f alone is outside
    of what a framework compiles and caches on this object, so another callback compiles nothing
    anew, and it takes no part in comparisons.
    """

    inner: Iteration
    keeps: bool
    tells: bool
    callback: Callback | None = field(compare=False)

    @property
    def limit(self) -> int:
        """That of the iteration itself."""
        return self.inner.limit

    @property
    def silent(self) -> bool:
        """Whether there is no callback."""
        return not self.tells

    def around(self, iteration: Iteration) -> Iteration:
        """Another iteration, watched as this one is."""
        return replace(self, solver=iteration.solver, inner=iteration)

    def start(self, ops: Ops, z: Leaves, active: Number | None = None, budget: Any = None) -> _Seen:
        """The carry before the first evaluation, with nothing seen yet."""
        carry = self.inner.start(ops, z, active, budget)
        number = partial(ops.numbers, z[0])
        facts = _Facts(ops.scalar(-1.0), number(_INF), number(0.0), carry.active)
        trace = number(_NOTHING, (self.limit,)) if self.keeps else ()
        return _Seen(carry, trace, facts if self.tells else ())

    def active(self, ops: Ops, carry: _Seen) -> Number:
        """Whether any system still iterates."""
        return self.inner.active(ops, carry.carry)

    def update(self, ops: Ops, carry: _Seen, f: Leaves) -> _Seen:
        """The step of the iteration itself, after a look at the residual."""
        xp, before = ops.xp, carry.carry
        residual = tree.subtract(f, before.z)
        error = ops.cut(self.tolerance.measure(ops, residual))
        new = self.inner.update(ops, before, f)
        trace, facts = carry.trace, carry.facts
        if self.keeps:
            known = xp.where(error < _INF, error, _INF)
            entry = xp.where(before.active, known, _NOTHING)
            trace = set_entry(ops, trace, before.step, entry)
        if self.tells:
            tolerance = ops.cut(self.tolerance.threshold(ops, f))
            facts = _Facts(before.step, error, tolerance, new.active)
        return _Seen(new, trace, facts)

    def iterate(
        self, ops: Ops, f: Map, z: Leaves, active: Number | None = None, budget: Any = None
    ) -> Carry:
        """Iterate as ever, with f told to speak before it answers."""
        if not self.tells:
            return super().iterate(ops, f, z, active, budget)

        def telling(seen: Any) -> Leaves:
            leaves, facts = seen
            ops.tell(partial(self._tell, False), facts)
            return f(leaves)

        last = ops.loop(telling, self, self.start(ops, z, active, budget))
        ops.tell(partial(self._tell, True), last.facts)
        return self.end(ops, last)

    def end(self, ops: Ops, carry: _Seen) -> Carry:
        """The last carry of the iteration itself, with the trace."""
        if not self.keeps:
            return carry.carry
        nothing = ops.xp.where(carry.trace < 0.0, float("nan"), carry.trace)
        return carry.carry._replace(trace=nothing)

    def _tell(self, last: bool, step: Any, residual: Any, tolerance: Any, active: Any) -> None:
        """Tell the callback, but not of what has stopped: under vmap the others go on."""
        going = bool(active.any()) if hasattr(active, "any") else bool(active)
        if self.callback is not None and step >= 0 and (going or last):
            # A copy of each: the loop goes on with the numbers, whatever the callback writes to.
            own = [getattr(x, "copy", lambda x=x: x)() for x in (residual, tolerance, active)]
            self.callback(Progress(int(step), *own))


def watch(iteration: Iteration, trace: Any, callback: Any) -> Iteration:
    """The iteration, watched if that is asked for.

    Raises:
        InputError: trace is no bool, or the callback cannot be called.
    """
    if not isinstance(trace, bool):
        raise InputError(f"expected trace to be True or False, received {trace!r}")
    if callback is not None and not callable(callback):
        raise InputError(
            f"expected callback to be a function of one argument, a Progress, received {callback!r}"
        )
    if not trace and callback is None:
        return iteration
    return Watched(
        iteration.solver,
        iteration.tolerance,
        iteration.max_steps,
        inner=iteration,
        keeps=trace,
        tells=callback is not None,
        callback=callback,
    )
