"""Records of what was checked, and the verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
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


def distance(problem: Problem, a: Sequence[Run], b: Sequence[Run | Reference]) -> Measure:
    """How far a is from b, relative to b."""
    layout = Layout(problem.z0, problem.batch_ndim)
    values, gradients = [0.0], [0.0]
    for one, other in zip(a, b, strict=True):
        loss = abs(one.loss - other.loss) / (abs(other.loss) or 1.0)
        values += [system_error(layout, one.value, other.value), loss]
        gradients.append(leaf_error(one.gradients, other.gradients))
    return Measure(_largest(values), _largest(gradients))


def statuses(runs: Sequence[Run]) -> dict[str, int]:
    """How many systems ended in which way, over all runs."""
    codes = np.concatenate([np.ravel(run.codes) for run in runs]).tolist()
    return {r.name: codes.count(int(r)) for r in Result if int(r) in codes}


def judge(
    excluded: bool,
    counts: dict[str, int],
    measure: Measure | None,
    references: Sequence[Reference],
    tolerances: Tolerances,
) -> Verdict:
    """The verdict on a solver's runs of one problem."""
    converged = counts.get(Result.CONVERGED.name, 0)
    if excluded:
        return Verdict.FALSE_CONVERGENCE if converged else Verdict.NOT_APPLICABLE
    if converged < sum(counts.values()):
        return Verdict.NOT_CONVERGED
    if measure is None:
        return Verdict.NO_REFERENCE
    if not measure.value <= max(tolerances.value(r) for r in references):
        return Verdict.WRONG_VALUE
    if not measure.gradient <= max(tolerances.gradient(r) for r in references):
        return Verdict.WRONG_GRADIENT
    return Verdict.OK


def _largest(errors: Sequence[float]) -> float:
    return float(np.nan_to_num(np.array(errors), nan=np.inf).max())
