"""The cases of JAX under jit: fpicore, jaxopt, optimistix, banax and loops written by hand."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .ours import ours
from .runners import Case, Task


def fpicore_cases(problem: Any) -> list[Case]:
    """Every solver, for one system and for a batch of them."""
    import fpicore_jax as fpi

    return ours(fpi, problem, compiled=True)


def jaxopt_cases(problem: Any) -> list[Case]:
    """Fixed-point iteration with its defaults; three solvers with a GMRES adjoint."""
    import jaxopt
    from jaxopt import linear_solve

    gmres = partial(linear_solve.solve_gmres, tol=problem.rtol)

    def case(label: str, make: Any, tuned: str = "absolute", **options: Any) -> Case:
        def solve(task: Task, tolerance: Any, most: int) -> tuple[Any, Any]:
            more = dict(options)
            if tuned:
                more |= {"tol": tolerance, "maxiter": most}
                # A tolerance that is data is for a forward solve alone.
                traced = isinstance(tolerance, jax.core.Tracer)
                more |= {"implicit_diff": False, "unroll": False} if traced else {}
                more["implicit_diff_solve"] = gmres
            found = make(task, more).run(task.z0, task.params)
            return found.params, found.state.num_fun_eval

        settings = ", ".join(f"{k}={v}" for k, v in options.items()) or "none given"
        return Case(label, settings, solve, tuned)

    def iteration(task: Task, more: Any) -> Any:
        return jaxopt.FixedPointIteration(task.f, **more)

    def anderson(task: Task, more: Any) -> Any:
        return jaxopt.AndersonAcceleration(task.f, **more)

    def broyden(task: Task, more: Any) -> Any:
        def gap(z: Any, params: Any) -> Any:  # of this sign its first step is the plain one
            return jax.tree.map(jnp.subtract, z, task.f(z, params))

        return jaxopt.Broyden(gap, **more)

    return [
        case("FixedPointIteration, defaults", iteration, tuned=""),
        case("FixedPointIteration / gmres", iteration),
        case("AndersonAcceleration / gmres", anderson, history_size=6, ridge=1e-7),
        case("Broyden / gmres", broyden, history_size=20, stepsize=1.0),
    ]


def optimistix_cases(problem: Any) -> list[Case]:
    """Fixed-point iteration, with the default, dense adjoint where it fits, and with GMRES."""
    import lineax as lx
    import optimistix as optx

    # With its default of 20, GMRES raises an error of stagnation on most of these problems.
    krylov = lx.GMRES(rtol=problem.rtol, atol=problem.rtol, restart=40, stagnation_iters=100)

    def case(label: str, make: Any, adjoint: Any, settings: str, tuned: str = "absolute") -> Case:
        def solve(task: Task, tolerance: Any, most: int) -> tuple[Any, Any]:
            if adjoint is None and problem.size > 512:
                raise NotImplementedError(f"a dense Jacobian of {problem.size} unknowns")
            solver = make(tolerance)
            more = {} if adjoint is None else {"adjoint": optx.ImplicitAdjoint(adjoint)}
            found = optx.fixed_point(
                task.f, solver, task.z0, task.params, max_steps=most, throw=False, **more
            )
            return found.value, found.stats["num_steps"]

        return Case(label, settings, solve, tuned)

    def defaults(tolerance: Any) -> Any:
        return optx.FixedPointIteration(rtol=problem.rtol, atol=problem.rtol)

    def iteration(tolerance: Any) -> Any:
        return optx.FixedPointIteration(rtol=0.0, atol=tolerance, norm=optx.two_norm)

    return [
        case("FixedPointIteration, defaults", defaults, None, "largest entry, rtol=atol", tuned=""),
        case("FixedPointIteration / GMRES", iteration, krylov, "two_norm, stagnation_iters=100"),
    ]


def banax_cases(problem: Any) -> list[Case]:
    """Plain iteration with its defaults; three solvers, each with the same one for the adjoint.

    Its stopping rule is the one that is asked for, so no tolerance is looked for.
    """
    from banax import adjoint, solver

    def case(label: str, kind: Any, limits: bool = True, **options: Any) -> Case:
        def solve(task: Task, tolerance: float, most: int) -> tuple[Any, Any]:
            more = {"rtol": problem.rtol, "max_steps": most} if limits else {}
            method = kind(**more, **options)
            found = adjoint.Implicit(solver=method, b_solver=method)((task.f, task.params), task.z0)
            return found.value, found.stats.steps + 1  # and one before the first step

        settings = ", ".join(f"{k}={v}" for k, v in options.items()) or "none given"
        return Case(label, settings, solve)

    return [
        case("Picard / Picard, defaults", solver.Picard, limits=False),
        case("Picard / Picard", solver.Picard),
        case("Anderson / Anderson", solver.Anderson),
        case("Broyden / Broyden", solver.Broyden, history_size=20),
    ]


def bare_cases(problem: Any) -> list[Case]:
    """lax.while_loop, with a custom_vjp that runs another one."""

    def norm(tree: Any) -> Any:
        return jnp.sqrt(sum(jnp.sum(jnp.square(x.astype(jnp.promote_types(x.dtype, jnp.float32))))
                            for x in jax.tree.leaves(tree)))  # fmt: skip

    def iterate(f: Any, z: Any, rtol: float, most: int) -> tuple[Any, Any]:
        def going(carry: Any) -> Any:
            z, fz, count = carry
            gap = jax.tree.map(jnp.subtract, fz, z)
            return (norm(gap) > rtol * norm(fz)) & (count < most)

        def step(carry: Any) -> Any:
            _, fz, count = carry
            return fz, f(fz), count + 1

        z, _, count = jax.lax.while_loop(going, step, (z, f(z), jnp.int32(1)))
        return z, count

    def solve(task: Task, tolerance: float, most: int) -> tuple[Any, Any]:
        @jax.custom_vjp
        def layer(params: Any) -> Any:
            return iterate(lambda z: task.f(z, params), task.z0, tolerance, most)

        def forward(params: Any) -> Any:
            found = layer(params)
            return found, (found[0], params)

        def backward(kept: Any, cotangents: Any) -> Any:
            z, params = kept
            _, pull = jax.vjp(task.f, z, params)
            v = cotangents[0]
            g, _ = iterate(lambda g: jax.tree.map(jnp.add, pull(g)[0], v), v, problem.rtol, most)
            return (pull(g)[1],)

        layer.defvjp(forward, backward)
        return layer(task.params)

    return [Case("plain loop", "lax.while_loop, custom_vjp", solve)]
