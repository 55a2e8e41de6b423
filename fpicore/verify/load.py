"""A user's problem, from mine.py:problem."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

from .._errors import InputError
from .problem import Problem


def load_problem(target: str) -> Problem:
    """The Problem that FILE.py:NAME names, or that the function of that name returns.

    Raises:
        InputError: no such file or name, the file fails, or the object is no Problem.
    """
    path, _, name = target.rpartition(":")
    if not path.endswith(".py") or not name.isidentifier():
        raise InputError(
            f"expected FILE.py:NAME, received {target!r}; NAME is a Problem in that file, or a "
            "function that returns one"
        )
    if not Path(path).is_file():
        raise InputError(f"expected {path} to be a file, there is none")
    module = _execute(Path(path))
    if not hasattr(module, name):
        found = [key for key, value in vars(module).items() if isinstance(value, Problem)]
        hint = f"it defines the problems {', '.join(found)}" if found else "it defines no Problem"
        raise InputError(f"expected {name!r} in {path}, received no such name; {hint}")
    return _as_problem(getattr(module, name), target)


def _execute(path: Path) -> Any:
    """Run the file as a module that may import its neighbours."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InputError(f"expected {path} to be a Python file, received one that cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # dataclasses and pickle look modules up
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(
            f"expected {path} to run, received {type(error).__name__}: {error}; correct the file"
        ) from error
    finally:
        sys.path.pop(0)
    return module


def _as_problem(found: Any, target: str) -> Problem:
    if callable(found) and not isinstance(found, type):
        try:
            found = found()
        except Exception as error:
            raise InputError(
                f"expected {target} to return a Problem when called without arguments, received "
                f"{type(error).__name__}: {error}"
            ) from error
    if not isinstance(found, Problem):
        raise InputError(
            f"expected {target} to be a Problem or a function that returns one, received "
            f"{type(found).__name__}; write Problem(name, f, z0, args) from fpicore.verify"
        )
    return found
