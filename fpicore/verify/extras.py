"""Packages of the ``cli`` extra, imported where they are needed."""

from .._extras import require

__all__ = ["require"]
