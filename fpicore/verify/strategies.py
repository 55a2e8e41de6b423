"""Every gradient strategy against its own exact formula.

On the tanh layer with v = ∂L/∂z: `Implicit` gives (I − Jᵀ)⁻¹ v, the truncated series their terms,
and `Unrolled` the derivative of the iterate that the solver was stopped at.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from .._adjoint import AbstractAdjoint, AbstractPullBack, Forward
from .._solution import Results, Stats
from .._solver import AbstractSolver
from ..adjoints import Implicit, Neumann, OneStep, Phantom, Reversible, Unrolled
from ..solvers import GMRES, Anderson, Broyden, Picard
from .arrays import Array, leaf_error
from .harness import Harness, Run, Task
from .layer import INPUTS, LOSS, UNITS, WEIGHT, fixed_point
from .problem import Problem
from .status import Status, attempt

_RTOL, _MAX_STEPS = 1e-12, 500
_CUT, _DAMPING = 8, 0.5
_DAMPED = Picard(damping=_DAMPING)
"""Converges on the layer, where plain Picard does not."""


class Answer(NamedTuple):
    """What a strategy should give."""

    value: Array
    gradients: tuple[Array, Array]
    """∂L/∂W and ∂L/∂x."""


Formula = Callable[[], Answer]


def _pulled_back(g: Callable[[Array, Array], Array]) -> Formula:
    """The gradient by a rule g of Jᵀ and v at z*."""

    def answer() -> Answer:
        z = fixed_point(INPUTS[0])
        slope = 1 - z**2
        through = slope * g((slope[:, None] * WEIGHT).T, LOSS * np.exp(z))
        return Answer(z, (np.outer(through, z), through))

    return answer


def _series(terms: int, damping: float = 1.0) -> Formula:
    """λ Σ_{k<terms} ((1 − λ) I + λ Jᵀ)ᵏ v."""

    def g(transposed: Array, v: Array) -> Array:
        step = (1 - damping) * np.eye(UNITS) + damping * transposed
        return damping * np.sum([np.linalg.matrix_power(step, k) @ v for k in range(terms)], axis=0)

    return _pulled_back(g)


def _iterate() -> Answer:
    """The derivative of damped Picard's iterate number _CUT."""
    return _carried(lambda before, now, f: (1 - _DAMPING) * now + _DAMPING * f)


def _leapfrog() -> Answer:
    """The same of Reversible's recurrence."""
    return _carried(lambda before, now, f: (1 - _DAMPING) * before + _DAMPING * f)


def _carried(step: Callable[[Array, Array, Array], Array]) -> Answer:
    """The derivative of iterate number _CUT, carried along from z = 0; ``step`` is linear."""
    eye = np.eye(UNITS)
    now = before = (np.zeros(UNITS), np.zeros((UNITS, UNITS)), np.zeros((UNITS, UNITS, UNITS)))
    for _ in range(_CUT):
        z, by_x, by_w = now
        f = np.tanh(WEIGHT @ z + INPUTS[0])
        slope = 1 - f**2
        new_x = slope[:, None] * (WEIGHT @ by_x + eye)
        new_w = np.einsum("i,ijk->ijk", slope, np.einsum("il,ljk->ijk", WEIGHT, by_w))
        new_w += np.einsum("i,ij,k->ijk", slope, eye, z)
        old, new = before, (f, new_x, new_w)
        before = now
        now = (
            step(old[0], z, new[0]),
            step(old[1], by_x, new[1]),
            step(old[2], by_w, new[2]),
        )
    z, by_x, by_w = now
    v = LOSS * np.exp(z)
    return Answer(z, (np.einsum("i,ijk->jk", v, by_w), v @ by_x))


_exact = _pulled_back(lambda transposed, v: np.linalg.solve(np.eye(UNITS) - transposed, v))


@dataclass(frozen=True)
class Strategy:
    """One line of the table."""

    name: str
    adjoint: AbstractAdjoint
    formula: Formula
    solver: AbstractSolver = _DAMPED
    """Of the forward solve."""
    max_steps: int = _MAX_STEPS


def _implicit(**options: Any) -> Implicit:
    return Implicit(rtol=_RTOL, on_failure="ignore", **options)


STRATEGIES: tuple[Strategy, ...] = (
    Strategy("Implicit, Picard", _implicit(solver=_DAMPED), _exact),
    Strategy("Implicit, Anderson", _implicit(solver=Anderson()), _exact, Anderson()),
    Strategy("Implicit, Broyden", _implicit(solver=Broyden()), _exact, Broyden()),
    Strategy(
        "Implicit, fallback", _implicit(solver=Picard(), max_steps=20, fallback=Broyden()), _exact
    ),
    Strategy("Implicit, GMRES", _implicit(solver=GMRES(), fallback=None), _exact),
    Strategy("Implicit, reuse", _implicit(reuse=True), _exact, Broyden()),
    Strategy("OneStep", OneStep(), _series(1)),
    Strategy("Neumann", Neumann(terms=6), _series(6)),
    Strategy("Phantom", Phantom(steps=6, damping=0.3), _series(6, 0.3)),
    Strategy("Unrolled", Unrolled(), _iterate, max_steps=_CUT),
    Strategy("Unrolled, checkpoint", Unrolled(checkpoint=True), _iterate, max_steps=_CUT),
    Strategy("Reversible", Reversible(damping=_DAMPING), _leapfrog, max_steps=_CUT),
)
"""Name, strategy, formula and forward solver; a new strategy is one more line."""


@dataclass(frozen=True)
class StrategyCheck:
    """One strategy in one framework."""

    strategy: str
    framework: str
    mode: str
    status: Status
    value_error: float | None = None
    """Relative error of the forward solve."""
    gradient_error: float | None = None
    """Relative, the largest over W and x."""
    products: int | None = None
    """Products with Jᵀ; None where the strategy takes none as such."""
    note: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Observed(AbstractPullBack):
    """A pull-back without a callback of its own, given one."""

    strategy: AbstractPullBack
    callback: Callable[[Results, Stats], Any] | None = None

    @property
    def uniform(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As the strategy is."""
        return self.strategy.uniform

    def forward(self, *args: Any, **options: Any) -> Forward:
        """What the strategy keeps."""
        return self.strategy.forward(*args, **options)

    def pull_back(self, *args: Any, **options: Any) -> Any:
        """What the strategy computes."""
        return self.strategy.pull_back(*args, **options)


def compare(
    harnesses: Sequence[Harness],
    mode_of: Callable[[Harness], str],
    announce: Callable[[str], None],
    strategies: Sequence[Strategy] = STRATEGIES,
) -> list[StrategyCheck]:
    """Run every strategy in every framework."""
    checks = []
    for strategy in strategies:
        for harness in harnesses:
            announce(f"{strategy.name}: {harness.name}")
            checks.append(_check(strategy, harness, mode_of(harness)))
    return checks


def _check(strategy: Strategy, harness: Harness, mode: str) -> StrategyCheck:
    check = StrategyCheck(strategy.name, harness.name, mode, Status.MISSING)
    if not harness.offers(strategy.adjoint):
        return check
    started = time.perf_counter()
    truth = strategy.formula()
    runs: list[Run] = []
    products: list[int] = []

    def compute() -> list[Array]:
        run = _run(strategy, harness, mode, products)
        runs.append(run)
        return [run.value, *run.gradients]

    outcome = attempt(compute, [truth.value, *truth.gradients])
    check = replace(
        check,
        status=outcome.status,
        products=sum(products) if products else None,
        note=outcome.note,
        seconds=time.perf_counter() - started,
    )
    if outcome.error is None:
        return check
    return replace(
        check,
        value_error=leaf_error([runs[0].value], [truth.value]),
        gradient_error=leaf_error(runs[0].gradients, truth.gradients),
    )


def _run(strategy: Strategy, harness: Harness, mode: str, products: list[int]) -> Run:
    """Solve and differentiate; notes the products of each pull-back."""

    def count(results: Results, stats: Stats) -> None:
        del results
        products.append(int(np.asarray(stats.evaluations)))

    problem = _problem(strategy.max_steps)
    mapping, loss = problem.bind(harness.name, harness.namespace)
    adjoint = _observed(strategy.adjoint, count)
    solver = strategy.solver
    task = Task(problem, mapping, loss, solver, _RTOL, "float64", mode, strategy=adjoint)
    run = harness.prepare(task)(problem.args, problem.data)
    harness.settle()
    return run


def _observed(adjoint: AbstractAdjoint, callback: Callable[[Results, Stats], Any]) -> Any:
    if isinstance(adjoint, Implicit):
        return replace(adjoint, callback=callback)
    return Observed(adjoint, callback) if isinstance(adjoint, AbstractPullBack) else adjoint


@cache
def _problem(max_steps: int) -> Problem:
    def f(xp: Any, z: Any, weight: Any, x: Any, weights: Any) -> Any:
        del weights
        return xp.tanh(xp.matmul(weight, z) + x)

    def loss(xp: Any, z: Any, weight: Any, x: Any, weights: Any) -> Any:
        del weight, x
        return xp.sum(weights * xp.exp(z))

    args = (WEIGHT, INPUTS[0])
    return Problem("strategies", f, np.zeros(UNITS), args, (LOSS,), loss=loss, max_steps=max_steps)
