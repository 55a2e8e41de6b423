"""Options of solvers and of the adjoint: what is refused, and that they are plain records."""

import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest

import fpicore
from fpicore import (
    GMRES,
    Anderson,
    Broyden,
    FixedPointError,
    Implicit,
    InputError,
    NewtonKrylov,
    Picard,
)

REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (Picard, {"damping": 0.0}, r"expected 0\.0 < damping <= 1\.0, received damping=0\.0"),
    (Picard, {"damping": 1.5}, r"expected .*damping.*received damping=1\.5"),
    (Picard, {"damping": -0.5}, "damping"),
    (Picard, {"damping": float("nan")}, "damping"),
    (Picard, {"damping": "half"}, "expected damping to be a real number, received"),
    (Picard, {"damping": True}, "real number"),
    (Anderson, {"history": 0}, r"expected history to be an integer >= 1, received history=0"),
    (Anderson, {"history": 2.5}, "history"),
    (Anderson, {"history": True}, "history"),
    (Anderson, {"history": None}, "history"),
    (Anderson, {"mixing": 0.0}, "mixing"),
    (Anderson, {"mixing": 1.1}, "mixing"),
    (Anderson, {"regularization": -1e-3}, "regularization"),
    (Anderson, {"regularization": float("inf")}, "regularization"),
    (Anderson, {"kind": 3}, "expected kind to be 1 or 2, received kind=3"),
    (Anderson, {"kind": 0}, "kind"),
    (Anderson, {"kind": "I"}, "kind"),
    (Anderson, {"period": 0}, "expected period to be an integer >= 1, received period=0"),
    (Anderson, {"period": 1.5}, "period"),
    (Anderson, {"filtering": 0.0}, r"expected 0\.0 < filtering <= 1\.0, received filtering=0\.0"),
    (Anderson, {"filtering": 1.5}, "filtering"),
    (Anderson, {"filtering": True}, "expected filtering to be a real number"),
    (Broyden, {"history": 0}, "history"),
    (Broyden, {"history": -3}, "history"),
    (
        Broyden,
        {"kind": "ugly"},
        r"expected kind to be one of \('good', 'bad'\), received kind='ugly'",
    ),
    (Broyden, {"kind": 1}, "kind"),
    (Broyden, {"line_search": 1}, "expected line_search to be True or False, received"),
    (NewtonKrylov, {"restart": 0}, "restart"),
    (NewtonKrylov, {"forcing": 0.0}, "forcing"),
    (NewtonKrylov, {"forcing": 0.95}, r"expected 0\.0 < forcing <= 0\.9, received forcing=0\.95"),
    (GMRES, {"restart": 0}, r"expected restart to be an integer >= 1, received restart=0"),
    (GMRES, {"restart": 2.5}, "restart"),
    (GMRES, {"restart": None}, "restart"),
    (Implicit, {"solver": "anderson"}, "expected solver to be an fpicore solver or None, received"),
    (Implicit, {"solver": Anderson}, "expected solver"),
    (Implicit, {"rtol": 0.0}, "expected 0 < rtol < 1, received"),
    (Implicit, {"rtol": 1.0}, "rtol"),
    (Implicit, {"rtol": "small"}, "rtol"),
    (Implicit, {"rtol": float("nan")}, "rtol"),
    (Implicit, {"max_steps": 0}, "max_steps"),
    (Implicit, {"order": 0}, "order"),
    (Implicit, {"order": 1.5}, "order"),
    (Implicit, {"on_failure": "explode"}, "expected on_failure to be one of .*received 'explode'"),
    (Implicit, {"callback": 3}, "expected callback to be callable, received 3"),
]


@pytest.mark.parametrize(
    ("kind", "options", "message"), REFUSED, ids=[f"{k.__name__}-{o}" for k, o, _ in REFUSED]
)
def test_refused(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        kind(**options)


@pytest.mark.parametrize("kind", [Picard, Anderson, Broyden, NewtonKrylov, GMRES, Implicit])
def test_unknown_option(kind: Any) -> None:
    with pytest.raises(TypeError, match="momentum"):
        kind(momentum=0.9)


@pytest.mark.parametrize(
    "record",
    [
        Picard(damping=0.5),
        Anderson(history=3),
        Broyden(history=7),
        NewtonKrylov(restart=3),
        GMRES(restart=3),
        Implicit(order=2),
    ],
)
def test_records_are_frozen_hashable_and_picklable(record: Any) -> None:
    name = dataclasses.fields(record)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, name, 1)
    assert pickle.loads(pickle.dumps(record)) == record
    assert hash(record) == hash(dataclasses.replace(record))
    assert record != type(record)()


def test_numpy_integers_and_floats_are_numbers() -> None:
    assert Anderson(history=np.int64(3)).history == 3  # type: ignore[arg-type]
    assert Picard(damping=np.float32(0.5)).damping == 0.5  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["InputError", "MapError", "ConvergenceError", "DerivativeError"])
def test_one_base_class(name: str) -> None:
    assert issubclass(getattr(fpicore, name), FixedPointError)


def test_documented_builtin_classes() -> None:
    assert issubclass(fpicore.InputError, ValueError)
    assert issubclass(fpicore.MapError, fpicore.InputError)
    assert issubclass(fpicore.ConvergenceError, RuntimeError)
    assert issubclass(fpicore.DerivativeError, RuntimeError)
    assert issubclass(fpicore.MissingBackendError, ImportError)
    assert issubclass(fpicore.ConvergenceWarning, UserWarning)
    assert issubclass(fpicore.PrecisionWarning, UserWarning)


@pytest.mark.parametrize(
    "kind", [fpicore.AbstractSolver, fpicore.AbstractLinearSolver, fpicore.AbstractAdjoint]
)
def test_abstract_classes_cannot_be_made(kind: Any) -> None:
    with pytest.raises(TypeError, match="abstract"):
        kind()
