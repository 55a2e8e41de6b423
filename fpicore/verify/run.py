"""Solve and differentiate every problem in every framework by every solver, and compare."""

import itertools
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from .._bind import SOLVER
from .._errors import ConvergenceWarning, PrecisionWarning
from .._solver import AbstractSolver
from ..solvers import Anderson, NewtonKrylov, Picard
from .arrays import cast, convert
from .checks import Agreement, Check, Verdict, distance, judged
from .dense import Functions
from .frameworks import load
from .harness import Harness, Run, Task
from .matrix import Finding
from .problem import Problem
from .reference import NoReferenceError, Reference, exactness, solve_reference
from .status import describe
from .strategies import StrategyCheck
from .tolerances import TOLERANCES, Tolerances
from .training import Subject, Training, follow, problem_of

SOLVERS: Mapping[str, AbstractSolver] = {
    "picard": Picard(),
    "anderson": Anderson(),
    "broyden": SOLVER,
    "newton_krylov": NewtonKrylov(),
}
"""The strategies by name; Broyden's is what a call takes that names none."""


@dataclass(frozen=True)
class ReferenceSummary:
    """What is known of a problem's reference; the first optimiser step of a training."""

    problem: str
    verdict: Verdict
    condition: float | None = None
    gradient_condition: float | None = None
    radius: float | None = None
    method: str | None = None
    accuracy: float | None = None
    source: str | None = None
    exact_error: float | None = None
    """Distance from the answer that the problem states, if it does."""
    note: str = ""
    """Why there is no reference."""


@dataclass
class Findings:
    """Everything that a run of ``fpicore verify`` found."""

    tolerances: Tolerances
    references: list[ReferenceSummary] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    agreements: list[Agreement] = field(default_factory=list)
    strategies: list[StrategyCheck] = field(default_factory=list)
    matrix: list[Finding] = field(default_factory=list)

    @property
    def failures(self) -> int:
        """Whatever is not as it should be."""
        return (
            sum(not item.verdict.passed for item in (*self.checks, *self.references))
            + sum(not agreement.passed for agreement in self.agreements)
            + len(self.uncompared)
            + sum(not item.status.passed for item in (*self.strategies, *self.matrix))
        )

    @property
    def uncompared(self) -> list[Check]:
        """Solves that were compared with nothing: no reference, and no second framework."""
        compared = {(a.problem, a.solver) for a in self.agreements}
        found = [c for c in self.checks if c.verdict is Verdict.NO_REFERENCE]
        return [c for c in found if (c.problem, c.solver) not in compared]


@dataclass(frozen=True, eq=False)
class Campaign:
    """What to run."""

    harnesses: Sequence[Harness]
    solvers: Sequence[str]
    dtype: str = "float64"
    mode: str | None = None
    """A mode that replaces the default one in those frameworks that have it."""

    def run(self, subjects: Sequence[Subject], announce: Callable[[str], None]) -> Findings:
        """Verify each subject in turn; describes each piece of work to ``announce`` before it."""
        findings = Findings(TOLERANCES[self.dtype])
        for subject in subjects:
            self._verify(_rounded(subject, self.dtype), findings, announce)
        return findings

    def pieces(self, subjects: Sequence[Subject]) -> int:
        """How often ``announce`` will be called."""
        return len(subjects) * (1 + len(self.harnesses) * len(self.solvers))

    def mode_of(self, harness: Harness) -> str:
        """The mode in which a framework is run."""
        chosen = self.mode
        return harness.modes[0] if chosen is None or chosen not in harness.modes else chosen

    def _verify(
        self, subject: Subject, findings: Findings, announce: Callable[[str], None]
    ) -> None:
        problem, tolerances = problem_of(subject), findings.tolerances
        announce(f"{problem.name}: reference")
        references, summary = _reference(subject, self.harnesses, tolerances)
        findings.references.append(summary)
        runs: dict[str, dict[str, list[Run]]] = {name: {} for name in self.solvers}
        for harness, solver in itertools.product(self.harnesses, self.solvers):
            announce(f"{problem.name}: {harness.name}, {solver}")
            check, found = self._check(subject, harness, solver, references, tolerances)
            findings.checks.append(check)
            if found and check.verdict.converged:
                runs[solver][harness.name] = found
        for solver, by_framework in runs.items():
            if len(by_framework) > 1:
                agreement = _agreement(problem, solver, by_framework, references, tolerances)
                findings.agreements.append(agreement)

    def _check(
        self,
        subject: Subject,
        harness: Harness,
        solver: str,
        references: list[Reference],
        tolerances: Tolerances,
    ) -> tuple[Check, list[Run]]:
        problem = problem_of(subject)
        mode = self.mode_of(harness)
        check = Check(problem.name, harness.name, mode, solver, Verdict.NO_MAP)
        if not problem.supports(harness.name):
            return check, []
        started = time.perf_counter()
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                task = _task(problem, harness, solver, tolerances, mode)
                runs = follow(subject, harness.prepare(task))
        except Exception as error:  # whatever a framework raises is a finding, not an abort
            return replace(check, verdict=Verdict.ERROR, note=describe(error)), []
        seconds = time.perf_counter() - started
        check = replace(check, seconds=seconds, note=_own_warnings(caught))
        return judged(check, problem, runs, references, tolerances), runs


def _task(
    problem: Problem, harness: Harness, solver: str, tolerances: Tolerances, mode: str
) -> Task:
    mapping, loss = problem.bind(harness.name, harness.namespace)
    strategy, rtol, dtype = SOLVERS[solver], tolerances.rtol, tolerances.dtype
    return Task(problem, mapping, loss, strategy, rtol, dtype, mode)


def _reference(
    subject: Subject, harnesses: Sequence[Harness], tolerances: Tolerances
) -> tuple[list[Reference], ReferenceSummary]:
    problem = problem_of(subject)
    try:
        functions = _functions(problem, harnesses)
        references = follow(
            subject, lambda args, data: solve_reference(problem, functions, args, data)
        )
    except NoReferenceError as error:
        return [], ReferenceSummary(problem.name, Verdict.NO_REFERENCE, note=str(error))
    except Exception as error:  # a user's map may raise anything
        return [], ReferenceSummary(problem.name, Verdict.ERROR, note=describe(error))
    first = references[0]
    error = exactness(problem, first)
    wrong = error is not None and not error <= tolerances.reference(first)
    return references, ReferenceSummary(
        problem=problem.name,
        verdict=Verdict.WRONG_REFERENCE if wrong else Verdict.OK,
        condition=max(r.condition for r in references),
        gradient_condition=max(r.gradient_condition for r in references),
        radius=max(r.radius for r in references),
        method=first.method,
        accuracy=max(r.accuracy for r in references),
        source=first.source,
        exact_error=error,
    )


def _functions(problem: Problem, harnesses: Sequence[Harness]) -> Functions:
    """The map in NumPy if there is one, else through the first framework that has one."""
    candidates = [load("numpy"), *harnesses]
    harness = next(harness for harness in candidates if problem.supports(harness.name))
    mapping, loss = problem.bind(harness.name, harness.namespace)
    if harness.name == "numpy":
        return Functions(mapping, loss, "numpy", may_be_complex=True)
    on_numpy = None if loss is None else harness.on_numpy(loss)
    return Functions(harness.on_numpy(mapping), on_numpy, harness.name, may_be_complex=False)


def _agreement(
    problem: Problem,
    solver: str,
    runs: dict[str, list[Run]],
    references: list[Reference],
    tolerances: Tolerances,
) -> Agreement:
    pairs = itertools.combinations(runs.values(), 2)
    measures = [distance(problem, a, b, references) for a, b in pairs]
    allowed = [tolerances.agreement(reference) for reference in references or [None]]
    return Agreement(
        problem=problem.name,
        solver=solver,
        frameworks=tuple(runs),
        value_error=max(m.value for m in measures),
        gradient_error=max(m.gradient for m in measures),
        value_tolerance=max(value for value, _ in allowed),
        gradient_tolerance=max(gradient for _, gradient in allowed),
    )


def _rounded(subject: Subject, dtype: str) -> Subject:
    """The subject with the numbers that the dtype can hold, for the reference too."""
    if isinstance(subject, Training):
        batches = tuple(_round(batch, dtype) for batch in subject.batches)
        return replace(subject, problem=_rounded_problem(subject.problem, dtype), batches=batches)
    return _rounded_problem(subject, dtype)


def _rounded_problem(problem: Problem, dtype: str) -> Problem:
    fields = ("z0", "args", "data", "cotangent")
    return replace(problem, **{name: _round(getattr(problem, name), dtype) for name in fields})


def _round(tree: object, dtype: str) -> object:
    return convert(lambda leaf: cast(cast(leaf, dtype), "float64"), tree)


def _own_warnings(caught: Sequence[warnings.WarningMessage]) -> str:
    own = [w for w in caught if issubclass(w.category, (ConvergenceWarning, PrecisionWarning))]
    return "; ".join(dict.fromkeys(str(w.message) for w in own))
