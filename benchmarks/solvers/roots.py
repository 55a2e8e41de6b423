"""Roots g(z) = 0 of Moré, Garbow and Hillstrom, as the maps z − g(z): expansive, stiff, singular.

ACM TOMS 7 (1981), 17; the list of systems is that of Burkardt's test_nonlin. Starts are 1, 2 and
5 times the standard one (1, 1.1 and 2 times where that leaves the domain or is the root itself).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .case import Case

_MGH = "Moré, Garbow, Hillstrom, ACM TOMS 7 (1981), 17, no. {}"


def _root(
    name: str,
    number: Any,
    g: Callable[..., Any],
    start: Any,
    *args: Any,
    root: Any = None,
    unique: bool = False,
    factors: tuple[float, ...] = (1.0, 2.0, 5.0),
) -> Case:
    standard = np.asarray(start, float)

    def f(xp: Any, z: Any, *args: Any) -> Any:
        return z - g(xp, z, *args)

    return Case(
        name, f, _MGH.format(number) if isinstance(number, int) else number,
        tuple(factor * standard for factor in factors), args, atol=1.0,
        answer=None if root is None else np.asarray(root, float), unique=unique,
    )  # fmt: skip


def rosenbrock() -> Case:
    g = lambda xp, z: xp.stack([1.0 - z[0], 10.0 * (z[1] - z[0] ** 2)])  # noqa: E731
    return _root("rosenbrock", 1, g, [-1.2, 1.0], root=[1.0, 1.0], unique=True)


def freudenstein() -> Case:
    def g(xp: Any, z: Any) -> Any:
        x, y = z[0], z[1]
        return xp.stack([x - 13 + ((5 - y) * y - 2) * y, x - 29 + ((y + 1) * y - 14) * y])

    return _root("freudenstein", 2, g, [6.0, 3.0], root=[5.0, 4.0])


def badly_scaled() -> Case:
    def g(xp: Any, z: Any) -> Any:
        return xp.stack([1e4 * z[0] * z[1] - 1.0, xp.exp(-z[0]) + xp.exp(-z[1]) - 1.0001])

    return _root("badly scaled", 3, g, [0.0, 1.0])


def helical_valley() -> Case:
    """The angle by atan2, cut along the negative first axis."""

    def g(xp: Any, z: Any) -> Any:
        angle = xp.atan2(z[1], z[0]) / (2 * np.pi)
        radius = xp.sqrt(z[0] * z[0] + z[1] * z[1])
        return xp.stack([10.0 * (z[2] - 10.0 * angle), 10.0 * (radius - 1.0), z[2]])

    return _root("helical valley", 7, g, [-1.0, 0.1, 0.0], root=[1.0, 0.0, 0.0], unique=True)


def powell_singular() -> Case:
    """The Jacobian at the root has rank 2 of 4."""

    def g(xp: Any, z: Any) -> Any:
        a, b, c, d = z[0], z[1], z[2], z[3]
        return xp.stack([a + 10 * b, 5**0.5 * (c - d), (b - 2 * c) ** 2, 10**0.5 * (a - d) ** 2])

    return _root("powell singular", 13, g, [3.0, -1.0, 0.0, 1.0], root=np.zeros(4))


def wood() -> Case:
    """The gradient of Wood's function, divided by 200."""

    def g(xp: Any, z: Any) -> Any:
        a, b, c, d = z[0], z[1], z[2], z[3]
        first, second = b - a * a, d - c * c
        return xp.stack([
            -2.0 * a * first - 0.01 * (1.0 - a), first + 0.101 * (b - 1.0) + 0.099 * (d - 1.0),
            -1.8 * c * second - 0.01 * (1.0 - c),
            0.9 * second + 0.101 * (d - 1.0) + 0.099 * (b - 1.0),
        ])  # fmt: skip

    return _root("wood", 14, g, [-3.0, -1.0, -3.0, -1.0], root=np.ones(4))


def trigonometric() -> Case:
    n = 10

    def g(xp: Any, z: Any, place: Any) -> Any:
        return n - xp.sum(xp.cos(z)) + place * (1.0 - xp.cos(z)) - xp.sin(z)

    return _root("trigonometric", 26, g, np.full(n, 1.0 / n), np.arange(1.0, n + 1))


def brown() -> Case:
    """Brown's almost linear system."""
    n = 10

    def g(xp: Any, z: Any) -> Any:
        return xp.concat(
            [z[:-1] + xp.sum(z) - (n + 1.0), xp.reshape(xp.prod(z), (1,)) - 1.0], axis=0
        )

    return _root("brown", 27, g, np.full(n, 0.5), factors=(1.0, 1.5, 3.0))


def boundary_value() -> Case:
    """The discrete boundary value problem, n = 30: the condition grows as n²."""
    n = 30
    t = np.arange(1, n + 1) / (n + 1)
    stencil = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)

    def g(xp: Any, z: Any, stencil: Any, t: Any) -> Any:
        return xp.matmul(stencil, z) + 0.5 / (n + 1) ** 2 * (z + t + 1.0) ** 3

    case = _root("boundary value", 28, g, t * (t - 1), stencil, t)
    # Its residual at the start is small already: a relative test is the meaningful one.
    object.__setattr__(case, "atol", 0.0)
    return case


def tridiagonal() -> Case:
    n = 30
    stencil = -np.eye(n, k=-1) - 2 * np.eye(n, k=1)

    def g(xp: Any, z: Any, stencil: Any) -> Any:
        return (3.0 - 2.0 * z) * z + xp.matmul(stencil, z) + 1.0

    return _root("broyden tridiagonal", 30, g, -np.ones(n), stencil)


def banded() -> Case:
    n = 30
    band = sum(np.eye(n, k=k) for k in (-5, -4, -3, -2, -1, 1))

    def g(xp: Any, z: Any, band: Any) -> Any:
        return z * (2.0 + 5.0 * z * z) + 1.0 - xp.matmul(band, z * (1.0 + z))

    return _root("broyden banded", 31, g, -np.ones(n), band)


def dennis_schnabel() -> Case:
    g = lambda xp, z: xp.stack([z[0] + z[1] - 3.0, z[0] ** 2 + z[1] ** 2 - 9.0])  # noqa: E731
    source = "Dennis and Schnabel, Numerical Methods (SIAM 1996), example 1.2"
    return _root("dennis schnabel", source, g, [1.0, 5.0])


def boggs() -> Case:
    def g(xp: Any, z: Any) -> Any:
        return xp.stack([z[0] ** 2 - z[1] + 1.0, z[0] - xp.cos(0.5 * np.pi * z[1])])

    source = "Boggs, SIAM J. Numer. Anal. 8 (1971), 767"
    return _root("boggs", source, g, [1.0, 0.0], factors=(1.0, 0.5, -0.5))


def robertson() -> Case:
    """An implicit Euler step of a stiff reaction, length 1 and concentrations scaled."""

    def f(xp: Any, y: Any) -> Any:
        a, b, c = y[0], y[1] * 1e-4, y[2]
        slow, fast = -0.04 * a + 1e4 * b * c, 3e7 * b * b
        return xp.stack([1.0 + slow, 1e4 * (-slow - fast), fast])

    starts = (np.array([1.0, 0.0, 0.0]), np.array([1.0, 1.0, 0.0]), np.array([0.9, 0.3, 0.1]))
    source = "Robertson (1966); Hairer and Wanner II, §IV.1"
    return Case("robertson", f, source, starts)


ROOTS = (
    rosenbrock, freudenstein, badly_scaled, helical_valley, powell_singular, wood, trigonometric,
    brown, boundary_value, tridiagonal, banded, dennis_schnabel, boggs, robertson,
)  # fmt: skip
