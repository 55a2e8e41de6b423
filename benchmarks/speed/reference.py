"""The answer in float64, by plain iteration and plain adjoint iteration; nothing of fpicore."""

from dataclasses import dataclass

import numpy as np

from .problems import Problem
from .spaces import TorchSpace

PRECISION = 1e-13


@dataclass(frozen=True)
class Reference:
    """The problem, its fixed point and the gradient of the loss there."""

    problem: Problem
    value: tuple[np.ndarray, ...]
    gradient: dict[str, np.ndarray]

    def residual(self, z: tuple[np.ndarray, ...]) -> float:
        """‖f(z) − z‖ / ‖f(z)‖ of the whole state, in float64."""
        map_, _, leaves, _ = _lift(self.problem, z)
        fz = map_(leaves)
        gap = sum(float(((b - a) ** 2).sum()) for a, b in zip(leaves, fz, strict=True))
        size = sum(float((b**2).sum()) for b in fz)
        return (gap / size) ** 0.5

    def gradient_error(self, found: dict[str, np.ndarray]) -> float:
        """Relative to the norm of all gradients together."""
        gap = sum(((found[k] - g) ** 2).sum() for k, g in self.gradient.items())
        size = sum((g**2).sum() for g in self.gradient.values())
        return float((gap / size) ** 0.5)


def solve(problem: Problem, limit: int = 20_000) -> Reference:
    """Iterate until nothing changes any more.

    Raises:
        RuntimeError: the plain iteration does not arrive.
    """
    import torch

    map_, space, z, params = _lift(problem, problem.z0)
    with torch.no_grad():
        z = _iterate(map_, z, limit)
    z = tuple(leaf.requires_grad_() for leaf in z)
    for parameter in params.values():
        parameter.requires_grad_()
    fz = map_(z)
    v = tuple(space.tensor(w, problem.roles.get("z", "")) for w in problem.weight)

    def pull(g: tuple) -> tuple:
        products = torch.autograd.grad(fz, z, g, retain_graph=True)
        return tuple(a + b for a, b in zip(products, v, strict=True))

    found = torch.autograd.grad(fz, list(params.values()), _iterate(pull, v, limit))
    gradient = {
        key: space.array(g, problem.roles.get(key, ""))
        for key, g in zip(params, found, strict=True)
    }
    role = problem.roles.get("z", "")
    return Reference(problem, tuple(space.array(leaf, role) for leaf in z), gradient)


def _lift(problem: Problem, z: tuple[np.ndarray, ...]) -> tuple:
    """f on tuples of leaves, the space, z and the parameters, all in float64."""
    space = TorchSpace("float64")
    params = {k: space.tensor(a, problem.roles.get(k, "")) for k, a in problem.params.items()}
    leaves = tuple(space.tensor(leaf, problem.roles.get("z", "")) for leaf in z)

    def map_(leaves: tuple) -> tuple:
        if len(leaves) > 1:
            return tuple(problem.f(space, leaves, params))
        return (problem.f(space, leaves[0], params),)

    return map_, space, leaves, params


def _iterate(f, z: tuple, limit: int) -> tuple:
    for _ in range(limit):
        fz = f(z)
        gap = sum(float(((b - a) ** 2).sum()) for a, b in zip(z, fz, strict=True))
        size = sum(float((b**2).sum()) for b in fz)
        z = fz
        if gap <= PRECISION**2 * size:
            return z
    raise RuntimeError(f"no fixed point to {PRECISION} in {limit} plain steps")
