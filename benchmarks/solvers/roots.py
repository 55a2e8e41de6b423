"""Roots g(z) = 0 of Moré, Garbow and Hillstrom, as the maps z − g(z): expansive, stiff, singular.

ACM TOMS 7 (1981), 17; with those in `iterations.py` they are all 23 of Burkardt's test_nonlin.
Starts are 1, 2 and 5 times the standard one (1, 1.1 and 2 times where that leaves the domain or is
the root itself).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .case import Case

_MGH = "Moré, Garbow, Hillstrom, ACM TOMS 7 (1981), 17, no. {}"
_NONLIN = "{}; Burkardt, test_nonlin, no. {}"


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


def watson() -> Case:
    """The gradient of half of Watson's sum of squares, n = 6; not 0 but 2 and 5 everywhere next."""
    n = 6
    t = np.arange(1, 30)[:, None] / 29
    powers = t ** np.arange(n)
    slopes = np.arange(n) * t ** np.maximum(np.arange(n) - 1, 0)

    def g(xp: Any, z: Any, powers: Any, slopes: Any) -> Any:
        value = xp.matmul(powers, z)
        e = xp.matmul(slopes, z) - value * value - 1.0
        e0 = z[1] - z[0] * z[0] - 1.0
        more = xp.concat([xp.stack([z[0] * (1.0 - 2.0 * e0), e0]), 0.0 * z[2:]], axis=0)
        return xp.matmul(e, slopes) - 2.0 * xp.matmul(e * value, powers) + more

    return _root("watson", 20, g, np.ones(n), powers, slopes, factors=(0.0, 2.0, 5.0))


def chebyquad() -> Case:
    """The means of Chebyshev's polynomials at seven points of [0, 1], and their integrals."""
    n = 7
    shift = np.array([0.0 if i % 2 else 1.0 / (i * i - 1) for i in range(1, n + 1)])

    def g(xp: Any, z: Any, shift: Any) -> Any:
        x = 2.0 * z - 1.0
        found = [1.0 + 0.0 * x, x]
        for _ in range(n - 1):
            found.append(2.0 * x * found[-1] - found[-2])
        return xp.sum(xp.stack(found[1:]), axis=1) / n + shift

    return _root("chebyquad", 35, g, np.arange(1, n + 1) / (n + 1), shift)


def variably_dimensioned() -> Case:
    """The gradient of a convex quartic, n = 10."""
    n = 10
    k = np.arange(1.0, n + 1)

    def g(xp: Any, z: Any, k: Any) -> Any:
        s = xp.sum(k * (z - 1.0))
        return z - 1.0 + k * (s * (1.0 + 2.0 * s * s))

    return _root("variably dimensioned", 25, g, 1.0 - k / n, k, root=np.ones(n), unique=True)


def _hammarling(name: str, number: int, n: int) -> Case:
    """X² = A by rows; A has one eigenvalue, 1e-4, with a Jordan block of size 2."""
    jordan = np.eye(n, k=1) * (np.arange(n) == 0)[:, None]

    def g(xp: Any, z: Any, a: Any) -> Any:
        x = xp.reshape(z, (n, n))
        return xp.reshape(xp.matmul(x, x), (n * n,)) - a

    a, root = 1e-4 * np.eye(n) + jordan, 1e-2 * np.eye(n) + 50.0 * jordan
    source = _NONLIN.format(f"Hammarling's matrix square root, {n} by {n}", number)
    return _root(name, source, g, np.eye(n).ravel(), a.ravel(), root=root.ravel())


def hammarling_2() -> Case:
    return _hammarling("hammarling 2", 15, 2)


def hammarling_3() -> Case:
    return _hammarling("hammarling 3", 16, 3)


def sample_18() -> Case:
    """Both axes are roots, and the Jacobian at the origin is zero."""

    def ratio(xp: Any, x: Any) -> Any:
        """(1 − exp(−x²))/x, and its limit 0 with the slope 1."""
        away = xp.where(x == 0.0, 1.0 + 0.0 * x, x)
        return xp.where(x == 0.0, x, -xp.expm1(-x * x) / away)

    def g(xp: Any, z: Any) -> Any:
        x, y = z[0], z[1]
        return xp.stack([y * y * ratio(xp, x), x * ratio(xp, y)])

    return _root("sample 18", _NONLIN.format("sample", 18), g, [2.0, 2.0], root=[0.0, 0.0])


def sample_19() -> Case:
    """The Jacobian at the root is zero."""
    g = lambda xp, z: z * xp.sum(z * z)  # noqa: E731
    source = _NONLIN.format("sample", 19)
    return _root("sample 19", source, g, [3.0, 3.0], root=[0.0, 0.0], unique=True)


def scalar() -> Case:
    """x (x − 5)²: a single root at 0, a double one at 5."""
    g = lambda xp, z: z * (z - 5.0) ** 2  # noqa: E731
    source = _NONLIN.format("scalar", 20)
    return _root("scalar", source, g, [1.0], root=[0.0], factors=(1.0, 1.1, 2.0))


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
    watson, chebyquad, variably_dimensioned, hammarling_2, hammarling_3,
    sample_18, sample_19, scalar,
)  # fmt: skip
