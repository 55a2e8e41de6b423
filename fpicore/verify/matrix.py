"""The matrix: framework by (order, mode, transform), each right, refused or missing.

A row is a derivative of the tanh layer and its exact value. What a framework calls it is a `Probe`
of that framework's ``_probes``; a row without one is missing there.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..solvers import Anderson, Picard
from .arrays import Array, leaves
from .harness import Harness
from .layer import DIRECTION, INPUTS, derivatives
from .probes import Case, Key, Probe
from .status import Outcome, Status, attempt

_FIRST, *_OTHERS = [derivatives(x) for x in INPUTS]
_ALL = [_FIRST, *_OTHERS]
_PUSHED = _FIRST.state[0] @ DIRECTION
_SLOPE, _HESSIAN, _THIRD = _FIRST.loss
_SLOPES = np.stack([d.loss[0] for d in _ALL])
_JACOBIANS = np.stack([d.state[0] for d in _ALL])


@dataclass(frozen=True, eq=False)
class Row:
    """A derivative that a framework may offer."""

    order: int
    mode: str
    transform: str
    truth: tuple[Array, ...]
    levels: int | None = None
    """The order that `Implicit` is asked for; None is its default, every order."""
    batched: bool = False
    """Whether the solve by the default solver is what a transform has to batch."""

    @property
    def key(self) -> Key:
        """What tells rows apart."""
        return self.order, self.mode, self.transform

    def case(self, harness: Harness, way: str) -> Case:
        """What a probe of this row differentiates.

        Damped Picard converges on the layer and is quickest to compile. Where batching is the
        point the default solver takes part, with its least-squares problems.
        """
        return Case(
            library=harness.library,
            xp=harness.namespace,
            asarray=harness.asarray,
            solver=Anderson() if self.batched else Picard(damping=0.5),
            levels=self.levels,
            way=way,
        )


def _rows() -> Iterator[Row]:
    first = partial(Row, 1, "reverse")
    yield Row(0, "value", "vmap", (np.stack([d.z for d in _ALL]),), batched=True)
    yield first("recorded", (_SLOPE,))
    yield first("functional", (_SLOPE,))
    yield first("in a graph", (_SLOPE,))
    yield first("by XLA", (_SLOPE,))
    yield first("parameters of a module", (np.outer(_SLOPE, _FIRST.z), _SLOPE))
    yield first("Jacobian, recorded", (_FIRST.state[0],))
    yield first("Jacobian, functional", (_FIRST.state[0],))
    yield first("batch of Jacobians", (_JACOBIANS,))
    yield first("vmap of gradient", (_SLOPES,))
    yield first("gradient of vmap", (_SLOPES,))
    yield first("checkpoint", (_SLOPE,))
    yield first("scan", (_SLOPES,))
    yield first("shard_map", (_SLOPES,))
    forward = partial(Row, 1, "forward")
    yield forward("recorded", (_PUSHED,))
    yield forward("functional", (_PUSHED,))
    yield forward("compiled", (_PUSHED,))
    yield forward("linearize", (_PUSHED,))
    yield forward("Jacobian", (_FIRST.state[0],))
    twice = partial(Row, 2, "reverse over reverse")
    product = (_HESSIAN @ DIRECTION,)
    yield twice("recorded", product)
    yield twice("functional", product)
    yield twice("compiled", product)
    yield twice("Implicit(order=1)", product, levels=1)
    yield Row(2, "forward over reverse", "recorded", product)
    yield Row(2, "forward over reverse", "functional", product)
    yield Row(2, "forward over reverse", "compiled", product)
    yield Row(2, "forward over reverse", "Hessian", (_HESSIAN,))
    yield Row(2, "reverse over forward", "recorded", product)
    yield Row(2, "reverse over forward", "functional", product)
    thrice = (_THIRD @ DIRECTION @ DIRECTION,)
    yield Row(3, "reverse over reverse", "recorded", thrice)
    yield Row(3, "reverse over reverse", "functional", thrice)


ROWS: tuple[Row, ...] = tuple(_rows())
"""Every derivative that is asked for.

Of a recorded one the framework keeps a tape or graph of operations on tensors; a functional one
takes a function to another function."""


@dataclass(frozen=True)
class Finding:
    """What came of one probe."""

    framework: str
    order: int
    mode: str
    transform: str
    spelling: str
    """What the framework calls it; empty if it has none."""
    way: str
    """How x reached the map; empty if it did not."""
    status: Status
    error: float | None = None
    note: str = ""
    seconds: float = 0.0


def explore(
    harnesses: Sequence[Harness], announce: Callable[[str], None], rows: Sequence[Row] = ROWS
) -> list[Finding]:
    """Run every probe of every framework."""
    findings = []
    for harness in harnesses:
        for row in rows:
            announce(f"{harness.name}: {row.mode}, {row.transform}")
            findings += _find(harness, row)
    return findings


def by_cell(findings: Sequence[Finding]) -> dict[Key, dict[str, list[Finding]]]:
    """The findings by row and by framework, rows in the order in which they were found."""
    table: dict[Key, dict[str, list[Finding]]] = {}
    for finding in findings:
        row = table.setdefault((finding.order, finding.mode, finding.transform), {})
        row.setdefault(finding.framework, []).append(finding)
    return table


def word(found: Sequence[Finding]) -> str:
    """One cell: a status, or one for each way where they differ."""
    statuses = list(dict.fromkeys(finding.status for finding in found))
    if len(statuses) < 2:
        return str(statuses[0] if statuses else Status.MISSING)
    return ", ".join(f"{finding.status} ({finding.way})" for finding in found)


def _find(harness: Harness, row: Row) -> Iterator[Finding]:
    """One finding for each way in which the framework may be given x."""
    probe = harness.probes.get(row.key)
    if probe is None:
        yield Finding(harness.name, *row.key, spelling="", way="", status=Status.MISSING)
        return
    for way in harness.ways:
        started = time.perf_counter()
        outcome = _attempt(harness, probe, row, way)
        seconds = time.perf_counter() - started
        yield Finding(harness.name, *row.key, probe.spelling, way, *outcome, seconds=seconds)


def _attempt(harness: Harness, probe: Probe, row: Row, way: str) -> Outcome:
    def compute() -> list[Array]:
        with harness.precision("float64"):
            found: Any = probe.compute(row.case(harness, way))
            return [harness.to_numpy(tensor) for tensor in leaves(found)]

    return attempt(compute, row.truth)
