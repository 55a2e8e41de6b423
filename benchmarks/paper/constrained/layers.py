"""Fixed points that solve ½xᵀQx + cᵀx under constraints, for one or many c, (systems, n).

Written once for all frameworks. Parameters p and the batch are dictionaries of tensors; whatever
a layer needs it finds in either, and it has derivatives with respect to p.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from ..frameworks import Framework

RTOL, MAX_STEPS = 1e-11, 5000
WEIGHT = 1.0
"""ADMM's penalty ρ; the answer does not depend on it, the number of steps does."""

Project = Callable[[Framework, Any, Any], Any]
"""(framework, v, parameters) ↦ the nearest point of a set."""


def between(framework: Framework, v: Any, p: Any) -> Any:
    """Onto lower ≤ v ≤ upper."""
    up = p["lower"] + framework.relu(v - p["lower"])
    return up - framework.relu(up - p["upper"])


def below(framework: Framework, v: Any, p: Any) -> Any:
    """Onto v ≤ upper."""
    return p["upper"] - framework.relu(p["upper"] - v)


def onto(framework: Framework, v: Any, p: Any) -> Any:
    """Onto the one point v = upper."""
    del framework
    return 0.0 * v + p["upper"]


def share(framework: Framework, v: Any, p: Any) -> Any:
    """The first entry onto ``total``, the others onto v ≥ 0: rows [1ᵀ; I] of a simplex."""
    return p["total"] * p["first"] + framework.relu(v) * (1.0 - p["first"])


def projected_gradient(
    framework: Framework, p: Any, batch: Any, adjoint: Any
) -> tuple[Any, dict[str, Any]]:
    """x = P(x − γ(Qx + c)) with P onto a box: the box is an argument, so it has derivatives."""

    p = {**batch, **p}

    def energy(x: Any, p: Any) -> Any:
        return framework.sum(0.5 * (x @ p["quadratic"]) * x + p["linear"] * x)

    def f(x: Any, p: Any) -> Any:
        project = partial(between, framework, p=p)
        return framework.fpi.projected_step(energy, project, p["step"])(x, p)

    return solve(framework, f, p["start"], (p,), adjoint)


def admm(project: Project) -> Callable[..., tuple[Any, dict[str, Any]]]:
    """x of least ½xᵀQx + cᵀx where Nx lies in a set, by ADMM, a map of y ≈ Nx and the dual u.

        x = (Q + ρNᵀN)⁻¹ (ρNᵀ(y − u) − c),  y⁺ = P(Nx + u),  u⁺ = u + Nx − y⁺

    Boyd et al., Found. Trends Mach. Learn. 3 (2011), 1, §5.
    """

    def layer(framework: Framework, p: Any, batch: Any, adjoint: Any) -> tuple[Any, dict[str, Any]]:
        p = {**batch, **p}
        turned = framework.transpose(p["normals"])
        quadratic = 0.5 * (p["quadratic"] + framework.transpose(p["quadratic"]))
        inverse = framework.inverse(quadratic + WEIGHT * (turned @ p["normals"]))

        def primal(state: Any, p: Any, inverse: Any) -> Any:
            y, u = state
            return (WEIGHT * (y - u) @ p["normals"] - p["linear"]) @ inverse

        def f(state: Any, p: Any, inverse: Any, turned: Any) -> Any:
            image = primal(state, p, inverse) @ turned + state[1]
            y = project(framework, image, p)
            return y, image - y

        start = p["start"] @ turned
        args = p, inverse, turned
        state, figures = solve(framework, f, (start, 0.0 * start), args, adjoint)
        return primal(state, p, inverse), figures

    return layer


def solve(
    framework: Framework, f: Any, start: Any, args: Any, adjoint: Any
) -> tuple[Any, dict[str, Any]]:
    """The fixed point and what the solve told."""
    solution = framework.fpi.fixed_point(
        f,
        start,
        args,
        adjoint=adjoint,
        rtol=RTOL,
        max_steps=MAX_STEPS,
        batch_ndim=1,
        on_failure="ignore",
    )
    figures = {
        "codes": solution.result.codes,
        "steps": solution.stats.steps,
        "evaluations": solution.stats.evaluations,
    }
    return solution.value, figures
