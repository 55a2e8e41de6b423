"""A polyalgorithm: a cheap solver first, others where it gets stuck."""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple, cast

from .. import _tree as tree
from .._ops import EagerOps, Number, Ops
from .._options import check_count
from .._solver import AbstractLinearSolver, AbstractSolver, AbstractStage, Point
from .._tree import Leaves
from .broyden import Broyden
from .gmres import GMRES
from .newton_krylov import NewtonKrylov

_INF = float("inf")
_FIRST, _SECANT, _NEWTON = 0.0, 1.0, 2.0
_PATIENCE = {_FIRST: 20.0, _SECANT: 100.0, _NEWTON: 40.0}
"""Evaluations without progress after which a stage is left."""
_DOUBTFUL = 12.0
"""Those of the first stage while the residual has not been halved."""
_HALF = 0.5


class _State(NamedTuple):
    count: Number
    """Steps so far, one number for the whole batch: the clock of every stage."""
    stage: Number
    since: Number
    """Evaluations since there was progress, or since the stage was entered."""
    mark: Number
    """The residual by which progress is measured."""
    start: Number
    """The first residual."""
    best: Number
    """The least residual."""
    z: Leaves
    """The iterate where it was."""
    residual: Leaves
    """r there."""
    members: tuple[Any, ...]
    """The states of the stages; nothing for one that no system has entered, where that is known."""


@dataclass(frozen=True)
class Auto(AbstractSolver):
    """Broyden's bad method while it makes progress; then the good one, then Newton's, and again.

    A system begins with ``Broyden(history, kind="bad", scaled=True)``, which of all single solvers
    needs the fewest evaluations. It leaves once 20 of them in a row were no better than the best
    before (12 while that is not half of the first one), or where f is not finite. Every further
    stage begins at the best iterate so far, with an empty memory: ``Broyden(history,
    scaled=True)``, which leaves minima of ‖r‖ that are no roots, until 100 evaluations bring
    nothing, ``NewtonKrylov(history)`` until 40 do not halve the residual, and the first again.

    For maps of which nothing is known. On a benign one it costs what the first stage does; a
    hard one it solves, as a rule, if some of its stages can, for up to some dozens of evaluations
    more than that stage alone. Where progress is slow and uneven, as to roots where the Jacobian is
    nearly singular, it leaves stages that would have arrived: hundreds more, or a failure.

    Systems of a batch change stages each by itself. Memory: 2·history + 6 states, and history + 3
    and history + 6 more where the other stages are entered; in traced code, which cannot tell, all
    of it from the start. A step costs the arithmetic of the stages that systems are in.

    The order and the numbers are those that served best on the first 31 problems of
    benchmarks/solvers; polyalgorithms: Rice, in Mathematical Software (1971), 15.

    Attributes:
        history: pairs, and Krylov vectors, of every stage, ≥ 1.

    Raises:
        InputError: history is not a positive integer.
    """

    history: int = 20
    name: ClassVar[str] = "auto"
    uniform: ClassVar[bool] = True
    tentative: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_count("history", self.history, 1)

    @property
    def _stages(self) -> tuple[AbstractStage, ...]:
        return (
            Broyden(self.history, kind="bad", scaled=True),
            Broyden(self.history, scaled=True),
            NewtonKrylov(self.history),
        )

    def linear(self) -> AbstractLinearSolver:
        """GMRES."""
        return GMRES(self.history)

    def init(self, ops: Ops, z: Leaves) -> _State:
        """All systems in the first stage."""
        zero, most = ops.numbers(z[0], 0.0), ops.numbers(z[0], _INF)
        first, *rest = self._stages
        later = [stage.init(ops, z) if ops.traced else () for stage in rest]
        return _State(
            count=ops.scalar(0.0),
            stage=zero,
            since=zero,
            mark=most,
            start=most,
            best=most,
            z=z,
            residual=z,
            members=(_begun(ops, first, z), *later),
        )

    def step(self, ops: Ops, point: Point, state: _State) -> tuple[Leaves, _State]:
        """Decide where each system is, and let every stage step for its own."""
        xp = ops.xp
        state = self._judged(ops, point, state)
        leaving = _leaving(ops, point, state)
        following = xp.where(state.stage == _NEWTON, _FIRST, state.stage + 1.0)
        state = state._replace(
            stage=xp.where(leaving, following, state.stage),
            since=xp.where(leaving, 0.0, state.since),
            mark=xp.where(leaving, state.best, state.mark),
        )
        return self._stepped(ops, point, xp.logical_not(leaving), state)

    def _judged(self, ops: Ops, point: Point, state: _State) -> _State:
        """The best iterate, and how long ago there was progress."""
        xp, error = ops.xp, point.error
        better = error < state.best
        share = xp.where(state.stage == _NEWTON, _HALF, ops.scalar(1.0))
        progress = better & (error <= share * state.mark)
        z, residual = point.z, point.residual
        if ops.traced or not xp.all(better):
            z = tree.select(ops, better, z, state.z)
            residual = tree.select(ops, better, residual, state.residual)
        return state._replace(
            since=xp.where(progress, 0.0, state.since + 1.0),
            mark=xp.where(progress, error, state.mark),
            start=xp.where(state.start < _INF, state.start, error),
            best=xp.where(better, error, state.best),
            z=z,
            residual=residual,
        )

    def _stepped(
        self, ops: Ops, point: Point, staying: Number, state: _State
    ) -> tuple[Leaves, _State]:
        """The proposals of the stages."""
        xp, members = ops.xp, list(state.members)
        for k, stage in enumerate([] if ops.traced or not xp.all(staying) else self._stages):
            if xp.all(state.stage == float(k)):  # the common step, where Python can see
                out, members[k] = stage.step(ops, point, members[k])
                return out, state._replace(count=state.count + 1.0, members=tuple(members))
        out = tree.add(state.z, state.residual)
        best = Point(state.z, out, state.residual, state.best, point.tolerance)
        for k, stage in enumerate(self._stages):
            within = state.stage == float(k)
            now = _Now(point, best, within, within & staying, state.count)
            step = partial(_step, ops, stage, now, out, members[k])
            same = partial(_nothing, out, members[k])
            out, members[k] = ops.cond(xp.any(within), step, same)
        return out, state._replace(count=state.count + 1.0, members=tuple(members))


class _Now(NamedTuple):
    """Where the systems are that a stage shall move."""

    point: Point
    best: Point
    within: Number
    """Which of them are its own."""
    staying: Number
    """Which of these were so before."""
    count: Number


def _step(
    ops: Ops, stage: AbstractStage, now: _Now, out: Leaves, member: Any
) -> tuple[Leaves, Any]:
    """``out`` with the proposals of the stage for its systems, and its state."""
    if not member:
        member = _begun(ops, stage, now.point.z)
    others = ops.xp.logical_not(now.staying)
    here = _chosen(ops, now.staying, now.point, now.best)
    if ops.traced or ops.xp.any(others):
        member = stage.renew(ops, others, here, member, now.count)
    proposal, member = stage.step(ops, here, member)
    return tree.select(ops, now.within, proposal, out), member


def _begun(ops: Ops, stage: AbstractStage, z: Leaves) -> Any:
    """The state of a stage, of which every system shall make the same, whenever it enters."""
    state = stage.init(ops, z)
    return state if ops.traced else cast(EagerOps, ops).opened(state)


def _nothing(out: Leaves, member: Any) -> tuple[Leaves, Any]:
    return out, member


def _leaving(ops: Ops, point: Point, state: _State) -> Number:
    """Where a stage has had its time; not where the system is solved, or never had a residual."""
    xp = ops.xp
    hopeful = state.best < _HALF * state.start
    patience = xp.where(hopeful, _PATIENCE[_FIRST], ops.scalar(_DOUBTFUL))
    for stage in (_SECANT, _NEWTON):
        patience = xp.where(state.stage == stage, _PATIENCE[stage], patience)
    lost = xp.logical_not(point.error < _INF) & (state.stage != _NEWTON)
    spent = (state.since >= patience) | lost
    return spent & xp.logical_not(point.error <= point.tolerance) & (state.best < _INF)


def _chosen(ops: Ops, mask: Number, a: Point, b: Point) -> Point:
    """a where the mask is true, else b."""
    if not ops.traced and ops.xp.all(mask):
        return a
    return Point(
        tree.select(ops, mask, a.z, b.z),
        tree.select(ops, mask, a.f, b.f),
        tree.select(ops, mask, a.residual, b.residual),
        ops.xp.where(mask, a.error, b.error),
        a.tolerance,
    )
