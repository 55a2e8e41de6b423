"""``fpicore verify``: every framework and solver against a dense reference and each other.

A file for ``fpicore verify mine.py:problem`` makes a `Problem`.
"""

from .problem import Problem

__all__ = ["Problem"]
