"""One solve of one case by one method: evaluations until a point is good, and what was claimed.

Every method is given f through a counter that recomputes the certificate, in NumPy and outside of
any library, at each point at which f is evaluated. The first point that meets it ends the count:
so a peer is not charged for another stopping rule, and gets no credit for a wrong one.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import fpicore_numpy as fpi

from .case import Array, Case
from .peers import entered

BUDGET = 1000
Method = Callable[[Case, "Counter", float], None]


class Outcome(NamedTuple):
    """What came of it."""

    case: str
    start: int
    rtol: float
    method: str
    evaluations: int | None
    """Until the first point that meets the certificate; None if there was none in the budget."""
    false: bool
    """Whether the method called a point converged whose certificate fails."""


class Finished(Exception):  # noqa: N818
    """A good point was found, or the budget is spent: leave the peer."""


class Counter:
    """f, counted and judged."""

    finished = Finished

    def __init__(self, case: Case, rtol: float, budget: int = BUDGET) -> None:
        self.case, self.rtol, self.budget = case, rtol, budget
        self.count, self.found, self.false = 0, None, False

    def f(self, z: Array) -> Array:
        """The value; raises once nothing more is to be learned."""
        if self.found is not None or self.count >= self.budget:
            raise Finished
        self.count += 1
        value = self.case.f(z)
        if self.found is None and self.case.certified(z, value, self.rtol):
            self.found = self.count
            raise Finished
        return value

    def root(self, flat: Array) -> Array:
        """f(z) − z of a flat z, as peers that find roots want it."""
        z = np.asarray(flat, float).reshape(self.case.starts[0].shape)
        return (self.f(z) - z).ravel()


def own(solver: Any, case: Case, counter: Counter, rtol: float, start: int) -> None:
    """fpicore with its own stopping rule, whose claim is checked."""
    calls = 0

    def f(z: Array) -> Array:
        nonlocal calls
        calls += 1
        return case.f(z)

    sol = fpi.fixed_point(
        f,
        case.starts[start],
        solver=solver,
        rtol=rtol,
        atol=rtol * case.atol,
        max_steps=counter.budget - 1,
        batch_ndim=case.batch_ndim,
        on_failure="ignore",
    )
    assert calls >= sol.stats.evaluations
    good = case.certified(sol.value, case.f(sol.value), rtol)
    claimed = bool(np.all(sol.converged))
    counter.false = claimed and not good
    counter.found = sol.stats.evaluations if claimed and good else None


OWN: Mapping[str, Any] = {
    "Picard": fpi.Picard(),
    "Anderson": fpi.Anderson(),
    "Anderson(10)": fpi.Anderson(history=10),
    "Anderson(period=2)": fpi.Anderson(period=2),
    "Anderson(kind=1)": fpi.Anderson(kind=1),
    "Broyden": fpi.Broyden(),
    "Broyden(200)": fpi.Broyden(history=200),
    "Broyden(bad)": fpi.Broyden(kind="bad"),
    "Broyden(scaled)": fpi.Broyden(scaled=True),
    "Broyden(200, scaled)": fpi.Broyden(history=200, scaled=True),
    "Broyden(8, bad, scaled)": fpi.Broyden(history=8, kind="bad", scaled=True),
    "NewtonKrylov": fpi.NewtonKrylov(),
    "NewtonKrylov(forcing=0.001)": fpi.NewtonKrylov(forcing=1e-3),
    "Auto": fpi.Auto(),
    "Auto(10)": fpi.Auto(history=10),
    "Auto(60)": fpi.Auto(history=60),
}


def methods() -> dict[str, Callable[..., None]]:
    """Every method that is installed."""
    return {name: partial(own, solver) for name, solver in OWN.items()} | entered()


def solve(
    method: str,
    call: Callable[..., None],
    case: Case,
    start: int,
    rtol: float,
    budget: int = BUDGET,
) -> Outcome:
    """One solve; whatever a peer raises is a failure of its own."""
    counter = Counter(case, rtol, budget)
    with np.errstate(all="ignore"):
        try:
            call(case, counter, rtol, start)
        except Finished:
            pass
        except (
            Exception
        ) as error:  # NoConvergence, LinAlgError, ValueError on NaN, what XLA makes of Finished
            if method in OWN:
                raise
            del error
    return Outcome(case.name, start, rtol, method, counter.found, counter.false)
