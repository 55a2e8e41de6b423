"""Ops on NumPy arrays."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fpicore import ArrayOps, Process


class NumPyOps(ArrayOps):
    """Leaves are the user's own arrays."""

    def loop(self, f: Callable[[Any], Any], process: Process, carry: Any) -> Any:
        """Python's while, in which f keeps those floating-point errors that the user wants raised.

        Warnings are silenced: a solve may try iterates that overflow, and its status says so.
        """
        user: Any = {
            kind: how if how in ("raise", "call") else "ignore" for kind, how in np.geterr().items()
        }

        def heard(z: Any) -> Any:
            with np.errstate(**user):
                return f(z)

        return super().loop(heard, process, carry)
