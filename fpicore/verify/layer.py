"""A small tanh layer, and the derivatives of its fixed point to order three in closed form.

z = tanh(W z + x) says x = artanh z − W z: the inverse of x ↦ z* is explicit, and its derivatives
are those of artanh, entry by entry, and −W. The derivatives of z* follow from them without any
iteration. The eigenvalues of ∂f/∂z reach below −1, so that a series in it diverges.
"""

from dataclasses import dataclass

import numpy as np

from .arrays import Array

UNITS, SYSTEMS = 4, 3


def _weight(random: np.random.Generator) -> Array:
    """Symmetric with spectrum −1.6 … 0.5, and a skew part on top: not normal."""
    basis, _ = np.linalg.qr(random.standard_normal((UNITS, UNITS)))
    skew = random.standard_normal((UNITS, UNITS))
    matrix = basis * np.linspace(-1.6, 0.5, UNITS) @ basis.T
    return matrix + 0.2 * (skew - skew.T) / np.linalg.norm(skew - skew.T, 2)


_RANDOM = np.random.default_rng(20)
WEIGHT = _weight(_RANDOM)
INPUTS = 0.4 * _RANDOM.standard_normal((SYSTEMS, UNITS))
"""One x for each system of the probes that want a batch; the others take the first."""
LOSS = _RANDOM.standard_normal(UNITS)
"""The loss is Σ LOSS·exp(z)."""
DIRECTION = _RANDOM.standard_normal(UNITS)
"""In which products of derivatives are taken."""


@dataclass(frozen=True, eq=False)
class Derivatives:
    """z* and the loss L as functions of x, with every derivative to order three."""

    z: Array
    state: tuple[Array, Array, Array]
    """∂z*/∂x of shape (n, n), the second derivative (n, n, n) and the third (n, n, n, n)."""
    loss: tuple[Array, Array, Array]
    """∂L/∂x of shape (n,), the second derivative (n, n) and the third (n, n, n)."""


def fixed_point(x: Array) -> Array:
    """z* by Newton's method on artanh z − W z = x, written for z = tanh y."""
    y = np.zeros_like(x)
    for _ in range(50):
        z = np.tanh(y)
        slope = np.eye(UNITS) - WEIGHT * (1 - z**2)
        y = y - np.linalg.solve(slope, y - WEIGHT @ z - x)
    return np.tanh(y)


def derivatives(x: Array) -> Derivatives:
    """The derivatives at x.

    With h = artanh and A = diag h′(z) − W the first is D = A⁻¹. The others come from
    differentiating A D = I: only h depends on z.
    """
    z = fixed_point(x)
    h2, h3 = 2 * z / (1 - z**2) ** 2, (2 + 6 * z**2) / (1 - z**2) ** 3
    d1 = np.linalg.inv(np.diag(1 / (1 - z**2)) - WEIGHT)
    d2 = -np.einsum("im,m,mj,mk->ijk", d1, h2, d1, d1)
    d3 = -np.einsum("iml,m,mj,mk->ijkl", d2, h2, d1, d1)
    d3 -= np.einsum("im,m,mj,mk,ml->ijkl", d1, h3, d1, d1, d1)
    d3 -= np.einsum("im,m,mjl,mk->ijkl", d1, h2, d2, d1)
    d3 -= np.einsum("im,m,mj,mkl->ijkl", d1, h2, d1, d2)
    weights = LOSS * np.exp(z)  # every derivative of exp is exp
    loss1 = np.einsum("i,ij->j", weights, d1)
    loss2 = np.einsum("i,ij,ik->jk", weights, d1, d1) + np.einsum("i,ijk->jk", weights, d2)
    loss3 = np.einsum("i,ij,ik,il->jkl", weights, d1, d1, d1)
    loss3 += np.einsum("i,ijk,il->jkl", weights, d2, d1)
    loss3 += np.einsum("i,ijl,ik->jkl", weights, d2, d1)
    loss3 += np.einsum("i,ij,ikl->jkl", weights, d1, d2)
    loss3 += np.einsum("i,ijkl->jkl", weights, d3)
    return Derivatives(z, (d1, d2, d3), (loss1, loss2, loss3))
