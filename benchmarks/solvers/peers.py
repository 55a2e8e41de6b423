"""Peers in the contest, with their default options: SciPy, torchdeq, jaxopt, optimistix.

All are asked for more than any tolerance, so that they go on until the referee or the budget stops
them. torchdeq is given the batch axis that it wants; the others see one system. optimistix's
Newton method is charged n evaluations for the dense Jacobian of a step, besides the one of f.
"""

from collections.abc import Callable
from functools import cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np

from .case import Case
from .suite import CASES

_NEVER = 1e-300


def scipy_method(name: str, case: Case, counter: Any, rtol: float, start: int) -> None:
    """A solver of scipy.optimize."""
    from scipy.optimize import root

    limit = "maxiter" if name in ("anderson", "broyden1", "krylov") else "maxfev"
    options: dict[str, Any] = {limit: counter.budget, "xtol" if name == "hybr" else "fatol": _NEVER}
    root(counter.root, case.starts[start].ravel(), method=name, options=options)


def torchdeq_method(name: str, case: Case, counter: Any, rtol: float, start: int) -> None:
    """A solver of torchdeq, on a batch of one system where the case has none."""
    import torch
    from torchdeq.solver import get_solver

    alone = case.batch_ndim == 0
    z0 = torch.from_numpy(case.starts[start].copy())

    def f(z: Any) -> Any:
        value = torch.from_numpy(np.array(counter.f((z[0] if alone else z).numpy().copy())))
        return value[None] if alone else value

    with torch.no_grad():
        get_solver(name)(f, z0[None] if alone else z0, max_iter=counter.budget, tol=_NEVER)


class _Present:
    """The counter of the solve that runs: a compiled one serves all starts and tolerances."""

    counter: Any = None


def _evaluated(more: int, z: Any) -> Any:
    """f, with so many evaluations more; NaN once there is nothing to learn, as XLA logs errors."""
    counter = _Present.counter
    counter.count += more
    try:
        return counter.f(np.array(z))
    except counter.finished:
        return np.full(z.shape, np.nan)


def _jax_method(
    make: Callable[..., Any], case: Case, counter: Any, rtol: float, start: int
) -> None:
    import jax

    _Present.counter = counter
    name = next(key for key, made in CASES.items() if made() is case)
    with jax.enable_x64(True):
        jax.block_until_ready(_compiled(make, name, counter.budget)(case.starts[start]))


@cache
def _compiled(make: Callable[..., Any], name: str, budget: int) -> Any:
    import jax

    return jax.jit(make(_traceable(CASES[name]()), budget))


def _traceable(case: Case) -> Callable[[Any], Any]:
    """f as JAX may trace it: counted outside of it, with a derivative that is charged for."""
    import jax
    from jax import numpy as jnp

    shape = jax.ShapeDtypeStruct(case.starts[0].shape, np.float64)

    @jax.custom_jvp
    def f(z: Any) -> Any:
        return jax.pure_callback(partial(_evaluated, 0), shape, z)

    @f.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        _, slope = jax.jvp(lambda z: case.map(jnp, z, *case.args), primals, tangents)
        columns = case.starts[0].size
        return jax.pure_callback(partial(_evaluated, columns), shape, primals[0]), slope

    return f


def _jaxopt_anderson(f: Callable[[Any], Any], budget: int) -> Callable[[Any], Any]:
    from jaxopt import AndersonAcceleration

    solver = AndersonAcceleration(f, tol=_NEVER, maxiter=budget, implicit_diff=False)
    return lambda z: solver.run(z).params


def _jaxopt_broyden(f: Callable[[Any], Any], budget: int) -> Callable[[Any], Any]:
    """Without its line search, which takes gradients; of this sign its first step is plain."""
    from jaxopt import Broyden

    options: dict[str, Any] = {"stepsize": 1.0, "history_size": 20, "implicit_diff": False}
    solver = Broyden(lambda z: z - f(z), tol=_NEVER, maxiter=budget, **options)
    return lambda z: solver.run(z).params


def _optimistix(name: str, f: Callable[[Any], Any], budget: int) -> Callable[[Any], Any]:
    import optimistix

    solver = getattr(optimistix, name)(rtol=_NEVER, atol=_NEVER)

    def solve(z: Any) -> Any:
        return optimistix.fixed_point(
            lambda z, _: f(z), solver, z, max_steps=budget, throw=False
        ).value

    return solve


PEERS: dict[str, dict[str, Callable[..., None]]] = {
    "scipy": {
        name: partial(scipy_method, name)
        for name in ("hybr", "anderson", "broyden1", "df-sane", "krylov")
    },
    "torchdeq": {name: partial(torchdeq_method, name) for name in ("anderson", "broyden")},
    "jaxopt": {
        "anderson": partial(_jax_method, _jaxopt_anderson),
        "broyden": partial(_jax_method, _jaxopt_broyden),
    },
    "optimistix": {
        "iteration": partial(_jax_method, partial(_optimistix, "FixedPointIteration")),
        "newton": partial(_jax_method, partial(_optimistix, "Newton")),
    },
}


PEER_NAMES = [f"{library} {name}" for library, methods in PEERS.items() for name in methods]


def versions() -> dict[str, str]:
    """Of the peers; a library without one is listed as not installed."""
    return {name: version(name) if find_spec(name) else "not installed" for name in PEERS}


def entered() -> dict[str, Callable[..., None]]:
    """The methods of those that are."""
    return {
        f"{library} {name}": method
        for library, methods in PEERS.items()
        if find_spec(library)
        for name, method in methods.items()
    }
