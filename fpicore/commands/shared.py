"""What the commands share: frameworks made ready, outputs checked before the work."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .._errors import InputError
from ..verify.frameworks import load
from ..verify.harness import Harness

PROBLEM_HELP = """\
FILE.py:NAME is a Problem, or a function that returns one:

    from fpicore.verify import Problem
    import numpy as np

    def f(xp, z, theta):
        return xp.tanh(theta * z) + 1.0

    problem = Problem("mine", f, z0=np.zeros(3), args=(np.array([0.1, 0.5, 0.9]),))
"""


def check_output(option: str, path: Path | None) -> None:
    """Find out before the work, not after it.

    Raises:
        InputError: the path is no file in an existing folder.
    """
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise InputError(f"expected {option} to name a file in an existing folder, received {path}")


def load_harnesses(names: list[str], *, named: bool, absent: dict[str, str]) -> list[Harness]:
    """The harnesses; a framework that cannot be imported is an error only if it was named."""
    harnesses = []
    for name in names:
        try:
            with _quiet(name == "tensorflow"):
                harnesses.append(_started(load(name)))
        except ImportError as error:
            if named:
                raise InputError(
                    f"expected {name} to be importable because --backend names it, received "
                    f"{type(error).__name__}: {error}; repair its installation"
                ) from error
            absent[name] = f"installed, but its import fails: {error}"
    return harnesses


def _started(harness: Harness) -> Harness:
    """The harness, with what it imports late, and after a first tensor: that starts devices."""
    _ = harness.namespace
    with harness.precision("float64"):
        harness.asarray(np.zeros(()))
    return harness


@contextmanager
def _quiet(condition: bool) -> Iterator[None]:
    """Silence TensorFlow in the command's own process; its exceptions are raised all the same.

    Its C++ prints to file descriptor 2 when it starts, whatever its log level. Its logger would
    advise against making several tf.functions, which is what the command is there to do.
    """
    if not condition:
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # it warns of each graph in float64
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
