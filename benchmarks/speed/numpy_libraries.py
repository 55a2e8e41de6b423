"""The cases of NumPy: fpicore, scipy.optimize and a loop written by hand. None differentiates."""

from typing import Any

import numpy as np

from .ours import ours
from .runners import Case, Task


def fpicore_cases(problem: Any) -> list[Case]:
    """Every solver, for one system and for a batch of them."""
    import fpicore_numpy as fpi

    return ours(fpi, problem)


def scipy_cases(problem: Any) -> list[Case]:
    """anderson and broyden1, which look for the root of f(z) − z."""
    from scipy import optimize

    def case(label: str, method: Any, tuned: str = "absolute", **options: Any) -> Case:
        def solve(task: Task, tolerance: float, most: int) -> tuple[Any, Any]:
            if isinstance(task.z0, tuple):
                raise NotImplementedError("SciPy takes one array, not a nested state")

            def gap(z: Any) -> Any:
                return task.at(z) - z

            more = dict(options)
            if tuned:
                more |= {"f_tol": tolerance, "maxiter": most, "tol_norm": np.linalg.norm}
            return method(gap, task.z0, **more), None

        settings = ", ".join(f"{k}={v}" for k, v in options.items()) or "none given"
        return Case(label, settings, solve, tuned)

    best = {"alpha": 1.0, "line_search": None}
    return [
        case("anderson, defaults", optimize.anderson, tuned=""),
        case("anderson", optimize.anderson, M=5, **best),
        case("broyden1, defaults", optimize.broyden1, tuned=""),
        case("broyden1", optimize.broyden1, max_rank=20, reduction_method="restart", **best),
    ]


def bare_cases(problem: Any) -> list[Case]:
    """Plain iteration as one writes it by hand."""

    def solve(task: Task, tolerance: float, most: int) -> tuple[Any, Any]:
        z, count = task.z0, 1
        while True:
            fz = task.at(z)
            if isinstance(z, tuple):
                gap = sum(float(((b - a) ** 2).sum()) for a, b in zip(z, fz, strict=True))
                met = gap**0.5 <= tolerance * sum(float((b**2).sum()) for b in fz) ** 0.5
            else:
                met = np.linalg.norm(fz - z) <= tolerance * np.linalg.norm(fz)
            if met or count == most:
                return z, count
            z, count = fz, count + 1

    return [Case("plain loop", "one stop test for all systems", solve)]
