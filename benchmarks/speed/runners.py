"""How a case is run: once with f counted, and as often as wanted against the clock."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from .problems import Problem
from .spaces import NumpySpace

F_SECONDS = 0.02
"""What f is measured over, so that the clock's own resolution does not matter."""


@dataclass(frozen=True)
class Task:
    """What a case solves: z = f(z, params), in the framework's own arrays."""

    f: Callable[[Any, dict[str, Any]], Any]
    z0: Any
    """A tensor, or a tuple of them."""
    params: dict[str, Any]
    problem: Problem

    def at(self, z: Any) -> Any:
        """f of z alone."""
        return self.f(z, self.params)


class Case(NamedTuple):
    """A solver of a library with its settings."""

    label: str
    settings: str
    solve: Callable[[Task, Any, int], tuple[Any, Any]]
    """(task, tolerance, most evaluations) to z and the evaluations reported, or None."""
    tuned: str = ""
    """Its tolerance is looked for: "absolute" is to begin at rtol·‖z‖, "relative" at rtol."""
    tight: bool = False
    """What it costs grows with the steps allowed: they are set to twice those needed."""
    jit: bool = True
    """Whether JAX or TensorFlow compiles the whole."""


class Found(NamedTuple):
    """What one counted run says."""

    arrays: Any
    """z, or the gradients by name."""
    count: int | None = None
    """Evaluations or products that were seen."""
    reported: int | None = None
    """Evaluations that the library tells of."""


class Runner:
    """NumPy's, and what the others share."""

    space_type: Any = NumpySpace
    compiles = False

    def __init__(self, problem: Problem, device: str, clock: Callable[[], float]) -> None:
        self.problem, self.device, self.clock = problem, device, clock
        self.space = self.make_space()
        self.role = problem.roles.get("z", "")
        roles = problem.roles
        params = {k: self.space.tensor(a, roles.get(k, "")) for k, a in problem.params.items()}
        leaves = tuple(self.space.tensor(leaf, self.role) for leaf in problem.z0)
        self.weight = tuple(self.space.tensor(w, self.role) for w in problem.weight)
        self.nested = len(leaves) > 1
        f = problem.f
        self.task = Task(
            f=lambda z, params: f(self.space, z, params),
            z0=leaves if self.nested else leaves[0],
            params=params,
            problem=problem,
        )

    def make_space(self) -> Any:
        """The functions of the framework."""
        return self.space_type(self.problem.dtype)

    def leaves(self, z: Any) -> tuple[Any, ...]:
        """The leaves of a state."""
        return tuple(z) if self.nested else (z,)

    def arrays(self, z: Any) -> tuple[np.ndarray, ...]:
        """A state in float64."""
        return tuple(self.space.array(leaf, self.role) for leaf in self.leaves(z))

    def named(self, gradients: Any) -> dict[str, np.ndarray]:
        """Gradients in float64, by the names of the parameters."""
        roles = self.problem.roles
        pairs = zip(self.task.params, gradients, strict=True)
        return {k: self.space.array(g, roles.get(k, "")) for k, g in pairs}

    def sync(self) -> None:
        """Wait for the device."""

    def solve(self, case: Case, tolerance: float, most: int) -> Found:
        """Forward, f counted in Python as it is called."""
        calls = []

        def f(z: Any, params: Any) -> Any:
            calls.append(None)
            return self.task.f(z, params)

        z, reported = self.forward(replace(self.task, f=f), case, tolerance, most)
        reported = None if reported is None else int(reported)
        return Found(self.arrays(z), len(calls), reported)

    def forward(self, task: Task, case: Case, tolerance: float, most: int) -> Any:
        """z and the evaluations reported, outside of every derivative."""
        return case.solve(task, tolerance, most)

    def make_forward(self, case: Case, tolerance: float, most: int) -> Callable[[], Any]:
        """What the forward time is the time of."""
        return lambda: self.forward(self.task, case, tolerance, most)[0]

    def make_both(self, case: Case, tolerance: float, most: int) -> Callable[[], Any] | None:
        """Forward and backward, to the gradients; None without derivatives."""
        return None

    def gradient(self, case: Case, tolerance: float, most: int) -> Found:
        """Gradients and the products they took, if these can be counted."""
        run = self.make_both(case, tolerance, most)
        return Found(self.named(run()))

    def make_f(self, case: Case | None = None) -> tuple[Callable[[], Any], int]:
        """Evaluations of f in a row, in the mode of the solves, and how many."""

        def run() -> None:
            for _ in range(count):
                self.task.at(self.task.z0)

        count = 1
        count = self.enough(run)
        return run, count

    def enough(self, run: Callable[[], Any]) -> int:
        """How many runs fill the time that f is measured over."""
        run()
        return max(1, min(2000, round(F_SECONDS / self.seconds(run))))

    def seconds(self, run: Callable[[], Any], repeats: int = 1) -> float:
        """Of one run, by the clock."""
        self.sync()
        start = self.clock()
        for _ in range(repeats):
            run()
        self.sync()
        return (self.clock() - start) / repeats

    def compiling(self, case: Case, tolerance: float, most: int) -> float:
        """Seconds that compilation took before the first call."""
        return 0.0

    def memory(self, case: Case, tolerance: float, most: int) -> float | None:
        """Peak bytes of forward and backward beyond what is there before, if it can be told."""
        return None


def clock_of(name: str) -> Callable[[], float]:
    """ "cpu": processor time of the whole process, which other work on the machine leaves alone."""
    return time.process_time if name == "cpu" else time.perf_counter
