"""The exceptions and warnings that fpicore raises.

Every message says what was expected, what was received and what to do.
"""


class FixedPointError(Exception):
    """Base class of every error that fpicore raises on purpose."""


class InputError(FixedPointError, ValueError):
    """An argument is not usable: wrong type, dtype, range, structure or an unknown option."""


class MapError(InputError):
    """The map f returned something that cannot be a next iterate: f(z) must look like z."""


class ConvergenceError(FixedPointError, RuntimeError):
    """A solve failed and ``on_failure="raise"`` was asked for."""


class DerivativeError(FixedPointError, RuntimeError):
    """A derivative was requested that would be wrong; it is refused instead."""


class ConvergenceWarning(UserWarning):
    """A solve, forward or adjoint, ended without convergence."""


class PrecisionWarning(UserWarning):
    """A tolerance below what the dtype can resolve was raised to what it can."""


class MissingBackendError(FixedPointError, ImportError):
    """The framework behind a backend package is not installed."""
