"""A layer beside the exact solution of its program, and the exact derivatives."""

import time
from typing import Any

import numpy as np

from fpicore import Implicit

from ..frameworks import Framework
from .problems import PROBLEMS

RTOL = 1e-11


def measure(framework: Framework, name: str, seed: int) -> dict[str, Any]:
    """Errors relative to the largest entry, and what the solves took.

    Raises:
        RuntimeError: a solve did not converge.
    """
    problem, seen = PROBLEMS[name](seed), []
    adjoint = Implicit(rtol=RTOL, on_failure="ignore", callback=lambda *told: seen.append(told))

    def loss(parameters: Any, batch: Any) -> tuple[Any, dict[str, Any]]:
        x, figures = problem.layer(framework, parameters, batch, adjoint)
        return framework.sum(x * batch["slope"]), {**figures, "x": framework.constant(x)}

    step, begin = framework.step(loss), time.process_time()
    _, figures, gradients = step(problem.parameters, problem.batch)
    results, stats = seen[-1]
    if np.any(np.asarray(figures["codes"])) or np.any(np.asarray(results.codes)):
        raise RuntimeError(
            f"expected {name} to converge both ways, received {figures['codes']} forward and "
            f"{results.codes} backward; allow more steps"
        )
    errors = {key: relative(gradients[key], exact) for key, exact in problem.gradients.items()}
    return {
        "problem": name,
        "seed": seed,
        "value_error": relative(np.asarray(figures["x"]), problem.value),
        "gradient_error": max(errors.values()),
        "gradient_errors": errors,
        "steps_forward": int(np.max(np.asarray(figures["steps"]))),
        "evaluations_forward": int(np.asarray(figures["evaluations"])),
        "steps_backward": int(np.max(np.asarray(stats.steps))),
        "evaluations_backward": int(np.asarray(stats.evaluations)),
        "cpu_seconds": round(time.process_time() - begin, 2),
    }


def relative(found: np.ndarray, exact: np.ndarray) -> float:
    """The largest difference over the largest entry."""
    return float(np.max(np.abs(found - exact)) / np.max(np.abs(exact)))
