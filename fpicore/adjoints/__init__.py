"""Gradient strategies, swapped by one argument: mathematics over products with J and Jᵀ."""

from .implicit import Implicit
from .reversible import Reversible
from .truncated import Neumann, OneStep, Phantom
from .unrolled import Unrolled

__all__ = [
    "Implicit",
    "Neumann",
    "OneStep",
    "Phantom",
    "Reversible",
    "Unrolled",
]
