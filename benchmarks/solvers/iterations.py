"""Natural fixed points: equations of physics, layers, Markov chains, linear maps."""

from typing import Any

import numpy as np

from .case import Array, Case


def _starts(*starts: Any) -> tuple[Array, ...]:
    return tuple(np.asarray(start, float) for start in starts)


def _orthogonal(random: np.random.Generator, n: int) -> Array:
    return np.linalg.qr(random.standard_normal((n, n)))[0]


def _affine(xp: Any, z: Any, m: Any, b: Any) -> Any:
    return xp.matmul(m, z) + b


def _linear(name: str, source: str, matrix: Array, shift: Array) -> Case:
    n = len(shift)
    random = np.random.default_rng(0)
    answer = np.linalg.solve(np.eye(n) - matrix, shift)
    starts = _starts(np.zeros(n), np.ones(n), 10.0 * random.standard_normal(n))
    return Case(name, _affine, source, starts, (matrix, shift), answer=answer)


def rotations() -> Case:
    """Block rotations, n = 14: every eigenvalue is on the unit circle."""
    matrix = np.zeros((14, 14))
    for k, angle in enumerate(np.linspace(0.3, 3.0, 7)):
        c, s = np.cos(angle), np.sin(angle)
        matrix[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = [[c, -s], [s, c]]
    shift = np.random.default_rng(1).standard_normal(14)
    return _linear(
        "rotations", "Toth and Kelley, SIAM J. Numer. Anal. 53 (2015), 805", matrix, shift
    )


def diagonal() -> Case:
    """Three slow components."""
    return _linear(
        "diagonal", "Varadhan and Roland (2008)", np.diag([0.9, 0.99, 0.999]), np.ones(3)
    )


def symmetric() -> Case:
    """Spectrum 0 … 0.99 in 100 unknowns."""
    random = np.random.default_rng(2)
    basis = _orthogonal(random, 100)
    matrix = basis * np.linspace(0.0, 0.99, 100) @ basis.T
    return _linear("symmetric", "Walker and Ni (2011)", matrix, random.standard_normal(100))


def pagerank() -> Case:
    """x = d Pᵀx + (1 − d)/n with d = 0.99 on a ring of 500 pages with few long links."""
    random, n, d = np.random.default_rng(3), 500, 0.99
    links = np.zeros((n, n))
    for page in range(n):
        near = (page + random.integers(1, 8, 5)) % n
        links[page, near] = 1.0
        if page % 25 == 0:
            links[page, random.integers(0, n)] = 1.0
    matrix = d * (links / links.sum(1, keepdims=True)).T
    shift = np.full(n, (1 - d) / n)
    source = "Brin and Page, Comput. Netw. 30 (1998), 107"
    uneven = random.dirichlet(np.full(n, 0.1))
    answer = np.linalg.solve(np.eye(n) - matrix, shift)
    starts = _starts(np.full(n, 1.0 / n), uneven, np.eye(n)[0])
    return Case("pagerank", _affine, source, starts, (matrix, shift), answer=answer)


def chandrasekhar() -> Case:
    """H = 1/(1 − c/2 ∫ μ H(ν)/(μ + ν) dν), c = 0.9999, 100 midpoints."""
    n, c = 100, 0.9999
    mu = (np.arange(n) + 0.5) / n
    kernel = c / (2 * n) * mu[:, None] / (mu[:, None] + mu)

    def f(xp: Any, h: Any, kernel: Any) -> Any:
        return 1.0 / (1.0 - xp.matmul(kernel, h))

    starts = _starts(np.ones(n), np.zeros(n), 1.0 + mu)
    source = "Chandrasekhar, Radiative Transfer (1960); Kelley (1995), §5.6"
    return Case("chandrasekhar", f, source, starts, (kernel,), unique=False)


def discrete_integral() -> Case:
    """A discretised integral equation, n = 100."""
    n = 100
    t = np.arange(1, n + 1) / (n + 1)
    lower = np.tril(np.ones((n, n)))
    kernel = (1 - t)[:, None] * lower * t + t[:, None] * (1 - lower) * (1 - t)
    kernel = -0.5 / (n + 1) * kernel

    def f(xp: Any, z: Any, kernel: Any, t: Any) -> Any:
        return xp.matmul(kernel, (z + t + 1.0) ** 3)

    starts = _starts(t * (t - 1), np.zeros(n), 10 * t * (t - 1))
    source = "Moré, Garbow, Hillstrom, ACM TOMS 7 (1981), 17, no. 29"
    return Case("discrete integral", f, source, starts, (kernel, t))


def tanh_layer() -> Case:
    """An equilibrium layer tanh(W z + b), W triangular in a random basis, radius 0.99."""
    random, n = np.random.default_rng(4), 80
    triangle = np.triu(random.standard_normal((n, n)) / np.sqrt(n), 1)
    triangle += np.diag(random.uniform(-0.99, 0.99, n))
    triangle[0, 0] = 0.99
    basis = _orthogonal(random, n)
    weight, bias = basis @ triangle @ basis.T, 0.1 * random.standard_normal(n)

    def f(xp: Any, z: Any, w: Any, b: Any) -> Any:
        return xp.tanh(xp.matmul(w, z) + b)

    starts = _starts(np.zeros(n), np.ones(n), random.standard_normal(n))
    source = "Bai, Kolter, Koltun, NeurIPS 2019 (deep equilibrium models)"
    return Case("tanh layer", f, source, starts, (weight, bias), unique=False)


def bratu() -> Case:
    """−Δu = 6 eᵘ on a square of 20×20 inner points, by Jacobi's iteration."""
    n = 20
    neighbours = np.eye(n, k=1) + np.eye(n, k=-1)

    def f(xp: Any, u: Any, a: Any, weight: Any) -> Any:
        return 0.25 * (xp.matmul(a, u) + xp.matmul(u, a) + weight * xp.exp(u))

    weight = np.array(6.0 / (n + 1) ** 2)
    starts = _starts(np.zeros((n, n)), np.full((n, n), 0.5), np.full((n, n), -1.0))
    source = "Bratu (1914); Mohsen, Comput. Math. Appl. 67 (2014), 26"
    return Case("bratu", f, source, starts, (neighbours, weight), unique=False)


def brusselator() -> Case:
    """A steady state of two diffusing species, by steps of pseudo-time, diffusion implicit."""
    n, step = 40, 0.2
    x = np.arange(1, n + 1) / (n + 1)
    diffusion = 0.02 * (n + 1) ** 2 * (np.eye(n, k=1) + np.eye(n, k=-1) - 2 * np.eye(n))
    solve = np.linalg.inv(np.eye(n) - step * diffusion)
    edges = 0.02 * (n + 1) ** 2 * (np.eye(n)[0] + np.eye(n)[-1])
    source_term = 1.0 + 0.5 * np.sin(np.pi * x)

    def f(xp: Any, z: Any, solve: Any, edges: Any, feed: Any) -> Any:
        u, v = z[0], z[1]
        reaction = u * u * v
        new_u = u + step * (feed + reaction - 3.0 * u + edges)
        new_v = v + step * (2.0 * u - reaction + 2.0 * edges)
        return xp.stack([xp.matmul(solve, new_u), xp.matmul(solve, new_v)])

    ones = np.ones(n)
    starts = _starts([ones, 2 * ones], [1 + np.sin(np.pi * x), 2 * ones], [2 * ones, ones])
    source = "Prigogine and Lefever (1968); Hairer, Nørsett, Wanner I, §I.16"
    return Case("brusselator", f, source, starts, (solve, edges, source_term))


def self_consistent() -> Case:
    """The ground state of −u″ + x²u + 10|u|²u, by normalised steps against the Hamiltonian."""
    n = 60
    x = np.linspace(-5, 5, n)
    gap = x[1] - x[0]
    kinetic = (2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)) / gap**2

    def f(xp: Any, u: Any, kinetic: Any, well: Any) -> Any:
        image = xp.matmul(kinetic, u) + (well + 10.0 * u * u) * u
        moved = u - 0.006 * image
        return moved / xp.sqrt(gap * xp.sum(moved * moved))

    first = np.exp(-x * x / 2)
    wide, flat = np.exp(-x * x / 8), np.ones(n)
    starts = _starts(*[s / np.sqrt(gap * np.sum(s * s)) for s in (first, wide, flat)])
    source = "Gross (1961), Pitaevskii (1961); Bao and Du, SIAM J. Sci. Comput. 25 (2004), 1674"
    return Case("self-consistent", f, source, starts, (kinetic, x * x), unique=False)


def kepler() -> Case:
    """E = M + e sin E for 64 orbits, e = 0 … 0.999: a batch."""
    random = np.random.default_rng(5)
    eccentricity, anomaly = np.linspace(0, 0.999, 64)[:, None], random.uniform(0.05, 6.2, (64, 1))

    def f(xp: Any, z: Any, e: Any, m: Any) -> Any:
        return m + e * xp.sin(z)

    starts = _starts(anomaly, np.full((64, 1), np.pi), anomaly + eccentricity)
    return Case("kepler", f, "Kepler (1609)", starts, (eccentricity, anomaly), batch_ndim=1)


def value_iteration() -> Case:
    """The Bellman operator of 500 states, three actions of five successors, discount 0.99."""
    random, states, actions = np.random.default_rng(6), 500, 3
    moves = np.zeros((actions, states, states))
    for action, state in np.ndindex(actions, states):
        targets = (state + random.integers(-3, 4, 5)) % states
        if action == 0:
            targets = random.integers(0, states, 5)
        np.add.at(moves[action, state], targets, random.dirichlet(np.ones(5)))
    rewards = random.random((actions, states))

    def f(xp: Any, v: Any, moves: Any, rewards: Any) -> Any:
        return xp.max(rewards + 0.99 * xp.reshape(xp.matmul(moves, v), (actions, states)), axis=0)

    table = moves.reshape(-1, states)
    starts = _starts(np.zeros(states), np.full(states, 100.0), 50 * random.random(states))
    source = "Bellman (1957); Archibald, McKinnon, Thomas (1995), random chains"
    return Case("value iteration", f, source, starts, (table, rewards))


ITERATIONS = (
    rotations, diagonal, symmetric, pagerank, chandrasekhar, discrete_integral, tanh_layer, bratu,
    brusselator, self_consistent, kepler, value_iteration,
)  # fmt: skip
