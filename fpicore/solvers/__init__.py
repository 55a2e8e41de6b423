"""Solver strategies: one file each, mathematics only."""

from .anderson import Anderson
from .auto import Auto
from .broyden import Broyden
from .gmres import GMRES
from .newton_krylov import NewtonKrylov
from .picard import Picard

__all__ = ["GMRES", "Anderson", "Auto", "Broyden", "NewtonKrylov", "Picard"]
