"""Solver strategies: one file each, mathematics only."""

from .anderson import Anderson
from .broyden import Broyden
from .picard import Picard

__all__ = ["Anderson", "Broyden", "Picard"]
