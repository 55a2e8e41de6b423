"""Control flow that no tape looks at.

A solve is differentiated by its adjoint. Where a second derivative could be asked for, TensorFlow
would still build the derivative of a loop or a branch as soon as that is made, and let the loop
keep what every step computes. Only TensorFlow's own modules can tell tapes to look away, also
those that are not at hand.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from tensorflow.python import pywrap_tfe  # pyright: ignore[reportMissingImports]
from tensorflow.python.eager import record  # pyright: ignore[reportMissingImports]


def unseen(operation: Callable[..., Any], *functions: Any, **options: Any) -> Any:
    """The operation of functions, with its outside hidden from tapes; they see what is within.

    A function may open tapes of its own, as the gradient of an energy does. What is no function
    is handed on.
    """
    with record.stop_recording():
        return operation(*[_seen(f) if callable(f) else f for f in functions], **options)


def _seen(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any) -> Any:
        stopped = pywrap_tfe.TFE_Py_TapeSetIsStopped()
        if stopped:
            pywrap_tfe.TFE_Py_TapeSetRestartOnThread()
        try:
            return function(*args)
        finally:
            if stopped:
                pywrap_tfe.TFE_Py_TapeSetStopOnThread()

    return call
