"""Ops on NumPy arrays. A history is one array of shape batch + (slots, entries)."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fpicore import HostNumbers, Process

Array = Any


class NumPyOps(HostNumbers):
    """Leaves are ndarrays; products of half precision are summed in float32."""

    def dot(self, a: Array, b: Array) -> Any:
        """Per system Re Σ conj(a)·b."""
        x, y = self._rows(a), self._rows(b)
        if not self.batch_ndim:
            return float(np.vdot(x, y).real)
        return (x.conj()[..., None, :] @ y[..., :, None]).real[..., 0, 0].astype(np.float64)

    def peak(self, a: Array) -> Any:
        """Per system max |a|."""
        top = np.abs(self._rows(a)).max(axis=-1)
        return top.astype(np.float64) if self.batch_ndim else float(top)

    def scale(self, s: Any, a: Array) -> Array:
        """s·a."""
        wide = a.astype(np.float32) if a.dtype == np.float16 else a
        return (self._spread(s, a) * wide).astype(a.dtype, copy=False)

    def select(self, mask: Any, a: Array, b: Array) -> Array:
        """a or b by system."""
        if not self.batch_ndim:
            return a if mask else b
        if mask.all():
            return a
        return np.where(self._spread(mask, a), a, b)

    def history(self, leaf: Array, length: int) -> Array:
        """Zeros."""
        rows = self._rows(leaf)
        return np.zeros((*rows.shape[:-1], length, rows.shape[-1]), rows.dtype)

    def store(self, history: Array, slot: Any, leaf: Array) -> Array:
        """Overwrite a slot."""
        history[..., int(slot), :] = self._rows(leaf)
        return history

    def project(self, history: Array, leaf: Array) -> Any:
        """Products of every slot with leaf."""
        row = self._rows(leaf)
        return (history @ row.conj()[..., None])[..., 0].real.astype(np.float64)

    def combine(self, weights: Any, history: Array, like: Array) -> Array:
        """Weighted sum of the slots."""
        mixed = weights[..., None, :].astype(history.real.dtype) @ history
        return mixed.reshape(like.shape).astype(like.dtype, copy=False)

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

    def _rows(self, a: Array) -> Array:
        """a as batch + (entries,), half precision widened."""
        rows = a.reshape(*a.shape[: self.batch_ndim], -1)
        return rows.astype(np.float32) if rows.dtype == np.float16 else rows

    def _spread(self, s: Any, a: Array) -> Any:
        if not self.batch_ndim:
            return s
        return s.reshape(*s.shape, *(1,) * (a.ndim - self.batch_ndim))
