"""Records of what was checked, and the verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np

from .._solution import Result
from .arrays import Layout, leaf_error, system_error
from .harness import Run
from .problem import Problem
from .reference import Reference
from .tolerances import Tolerances


class Verdict(StrEnum):
    """The outcome of a check."""

    OK = "ok"
    NOT_APPLICABLE = "n/a"
    """The problem says that the solver cannot converge, and it did not claim to."""
    NO_REFERENCE = "converged"
    """Converged; there is no reference, so that only the frameworks can be compared."""
    NO_MAP = "no map"
    """The problem gives no map for this framework."""
    NOT_CONVERGED = "not converged"
    FALSE_CONVERGENCE = "false claim"
    """The problem says that the solver cannot converge, and it claims to have."""
    WRONG_VALUE = "wrong value"
    WRONG_GRADIENT = "wrong gradient"
    WRONG_REFERENCE = "wrong reference"
    """The reference is not the answer that the problem states."""
    ERROR = "error"

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        accepted = (Verdict.OK, Verdict.NOT_APPLICABLE, Verdict.NO_REFERENCE, Verdict.NO_MAP)
        return self in accepted

    @property
    def converged(self) -> bool:
        """Whether there is an answer to compare with other frameworks' answers."""
        comparable = (Verdict.OK, Verdict.NO_REFERENCE, Verdict.WRONG_VALUE, Verdict.WRONG_GRADIENT)
        return self in comparable


@dataclass(frozen=True)
class Check:
    """One problem, solved and differentiated in one framework by one solver."""

    problem: str
    framework: str
    mode: str
    solver: str
    verdict: Verdict
    statuses: dict[str, int] = field(default_factory=dict)
    """How many systems ended in which way."""
    steps: int | None = None
    """Most steps of a system, summed over optimiser steps; so are the evaluations."""
    evaluations: int | None = None
    value_error: float | None = None
    """Relative, the largest over systems and optimiser steps, and of the loss."""
    gradient_error: float | None = None
    """Relative, the largest over parameters and optimiser steps."""
    value_tolerance: float | None = None
    gradient_tolerance: float | None = None
    seconds: float = 0.0
    note: str = ""
    """Why a solver is excluded, or what was raised."""


@dataclass(frozen=True)
class Agreement:
    """The largest distance between two frameworks on one problem with one solver."""

    problem: str
    solver: str
    frameworks: tuple[str, ...]
    value_error: float
    gradient_error: float
    value_tolerance: float
    gradient_tolerance: float

    @property
    def passed(self) -> bool:
        """Whether they agree."""
        value = self.value_error <= self.value_tolerance
        return value and self.gradient_error <= self.gradient_tolerance


@dataclass(frozen=True)
class Measure:
    """Errors of a run, the worst over its optimiser steps."""

    value: float
    gradient: float


def distance(
    problem: Problem,
    a: Sequence[Run],
    b: Sequence[Run | Reference],
    references: Sequence[Reference],
) -> Measure:
    """How far a is from b, relative to b; losses relative to the size of their terms."""
    layout = Layout(problem.z0, problem.batch_ndim)
    scales = [reference.loss_scale for reference in references] or [abs(other.loss) for other in b]
    values, gradients = [0.0], [0.0]
    for one, other, scale in zip(a, b, scales, strict=True):
        loss = abs(one.loss - other.loss) / (scale or 1.0)
        values += [system_error(layout, one.value, other.value), loss]
        gradients.append(leaf_error(one.gradients, other.gradients))
    return Measure(_largest(values), _largest(gradients))


def judged(
    check: Check,
    problem: Problem,
    runs: Sequence[Run],
    references: Sequence[Reference],
    tolerances: Tolerances,
) -> Check:
    """The check with what the runs cost, how far they are from the references, and a verdict."""
    excluded = check.solver in problem.excluded
    codes = np.concatenate([np.ravel(run.codes) for run in runs]).tolist()
    check = replace(
        check,
        statuses={r.name: codes.count(int(r)) for r in Result if int(r) in codes},
        steps=sum(int(run.steps.max()) for run in runs),
        evaluations=sum(run.evaluations for run in runs),
        note=problem.excluded.get(check.solver, check.note),
    )
    if references and not excluded:
        measure = distance(problem, runs, references, references)
        check = replace(
            check,
            value_error=measure.value,
            gradient_error=measure.gradient,
            value_tolerance=max(tolerances.value(r) for r in references),
            gradient_tolerance=max(tolerances.gradient(r) for r in references),
        )
    return replace(check, verdict=_verdict(check, excluded=excluded))


def _verdict(check: Check, *, excluded: bool) -> Verdict:
    converged = check.statuses.get(Result.CONVERGED.name, 0)
    if excluded:
        return Verdict.FALSE_CONVERGENCE if converged else Verdict.NOT_APPLICABLE
    if converged < sum(check.statuses.values()):
        return Verdict.NOT_CONVERGED
    if check.value_error is None:
        return Verdict.NO_REFERENCE
    if not _within(check.value_error, check.value_tolerance):
        return Verdict.WRONG_VALUE
    if not _within(check.gradient_error, check.gradient_tolerance):
        return Verdict.WRONG_GRADIENT
    return Verdict.OK


def _within(error: float | None, tolerance: float | None) -> bool:
    return error is not None and tolerance is not None and error <= tolerance


def _largest(errors: Sequence[float]) -> float:
    return float(np.nan_to_num(np.array(errors), nan=np.inf).max())
