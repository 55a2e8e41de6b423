"""Fixed points of optimisation methods: gradient, proximal, projected and splitting steps."""

from typing import Any

import numpy as np

from .case import Case


def energy() -> Case:
    """A gradient step on a logistic loss with a small ridge: slow, smooth, symmetric Jacobian."""
    random, n = np.random.default_rng(10), 50
    data = random.standard_normal((120, n)) * np.linspace(0.1, 1.0, n)
    labels = np.sign(data @ random.standard_normal(n) + random.standard_normal(120))
    rows = labels[:, None] * data
    step = 1.0 / (0.25 * np.linalg.norm(data, 2) ** 2 / 120 + 1e-3)

    def f(xp: Any, x: Any, rows: Any, across: Any) -> Any:
        slope = -1.0 / (1.0 + xp.exp(xp.matmul(rows, x)))
        return x - step * (xp.matmul(across, slope) / 120.0 + 1e-3 * x)

    starts = (np.zeros(n), np.ones(n), random.standard_normal(n))
    source = "the layer FPI_GD of Jeon, Lee, Choi, arXiv 2002.02868"
    return Case("energy", f, source, starts, (rows, rows.T.copy()))


def lasso() -> Case:
    """Soft thresholding after a gradient step (ISTA), 40 equations for 100 unknowns."""
    random, n = np.random.default_rng(11), 100
    matrix = random.standard_normal((40, n)) / np.sqrt(40)
    truth = np.where(random.random(n) < 0.1, random.standard_normal(n), 0.0)
    right = matrix @ truth + 0.01 * random.standard_normal(40)
    step = 1.0 / np.linalg.norm(matrix, 2) ** 2

    def f(xp: Any, x: Any, a: Any, across: Any, b: Any) -> Any:
        moved = x - step * xp.matmul(across, xp.matmul(a, x) - b)
        return moved - xp.clip(moved, min=-0.02 * step, max=0.02 * step)

    starts = (np.zeros(n), np.ones(n), random.standard_normal(n))
    source = "Beck and Teboulle, SIAM J. Imaging Sci. 2 (2009), 183"
    return Case("lasso", f, source, starts, (matrix, matrix.T.copy(), right))


def projected() -> Case:
    """A projected gradient step: least squares with coefficients of at least 0."""
    random, n = np.random.default_rng(12), 60
    matrix = random.random((90, n))
    right = matrix @ np.maximum(random.standard_normal(n), 0.0) + 0.1 * random.standard_normal(90)
    step = 1.0 / np.linalg.norm(matrix, 2) ** 2

    def f(xp: Any, x: Any, a: Any, across: Any, b: Any) -> Any:
        return xp.clip(x - step * xp.matmul(across, xp.matmul(a, x) - b), min=0.0)

    starts = (np.zeros(n), np.ones(n), random.random(n))
    source = "Goldstein (1964), Levitin and Polyak (1966)"
    return Case("projected", f, source, starts, (matrix, matrix.T.copy(), right))


def admm() -> Case:
    """ADMM on a quadratic program in a box, as a map of its one vector v = x + y."""
    random, n, rho = np.random.default_rng(13), 60, 0.1
    factor = random.standard_normal((40, n))
    hessian, slope = factor.T @ factor / n + 0.01 * np.eye(n), random.standard_normal(n)
    inverse = np.linalg.inv(hessian + rho * np.eye(n))

    def f(xp: Any, v: Any, inverse: Any, slope: Any) -> Any:
        boxed = xp.clip(v, min=-1.0, max=1.0)
        return xp.matmul(inverse, rho * (2.0 * boxed - v) - slope) + v - boxed

    starts = (np.zeros(n), np.ones(n), 5.0 * random.standard_normal(n))
    source = "Boyd et al., Found. Trends Mach. Learn. 3 (2011), 1, §5.2"
    return Case("admm", f, source, starts, (inverse, slope))


def sinkhorn() -> Case:
    """Entropic transport of 60 points, the logarithm of one scaling; its mean is held at 0."""
    random, n = np.random.default_rng(14), 60
    x, y = random.random((n, 2)), random.random((n, 2)) ** 2
    kernel = np.exp(-np.sum((x[:, None] - y) ** 2, axis=-1) / 0.01)
    a, b = random.dirichlet(np.full(n, 5.0)), random.dirichlet(np.full(n, 5.0))

    def f(xp: Any, u: Any, kernel: Any, across: Any, a: Any, b: Any) -> Any:
        other = b / xp.matmul(across, xp.exp(u))
        new = xp.log(a) - xp.log(xp.matmul(kernel, other))
        return new - xp.mean(new)

    starts = (np.zeros(n), np.log(a) - np.log(a).mean(), random.standard_normal(n))
    source = "Sinkhorn (1964); Cuturi, NeurIPS 2013"
    return Case("sinkhorn", f, source, starts, (kernel, kernel.T.copy(), a, b))


OPTIMISATION = (energy, lasso, projected, admm, sinkhorn)
