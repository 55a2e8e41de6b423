"""A function as it is now: names are looked up at the copy, writes are left alone."""

import warnings
from typing import Any

from fpicore._snapshot import snapshot

SCALE = 2.0


def test_closures_and_globals_are_those_of_the_moment(monkeypatch: Any) -> None:
    shift = 1.0

    def f(z: float, *, extra: float = 0.5) -> float:
        """Of z."""
        return SCALE * z + shift + extra

    copy: Any = snapshot(f)
    shift = 10.0
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert (f(1.0), copy(1.0)) == (13.5, 3.5)
    assert (copy.__name__, copy.__doc__, copy.__module__) == ("f", "Of z.", __name__)


def test_names_within_inner_functions() -> None:
    shift = 1.0

    def f(z: float) -> list[float]:
        return [(lambda: SCALE * z + shift)() for _ in range(2)]

    copy: Any = snapshot(f)
    shift = 10.0
    assert copy(1.0) == [3.0, 3.0]
    assert f(1.0) == [12.0, 12.0]


def test_a_function_that_writes_to_outer_names_is_left_alone() -> None:
    calls = 0

    def f(z: float) -> float:
        nonlocal calls
        calls += 1
        return z

    def g(z: float) -> float:
        global SCALE
        SCALE = SCALE
        return z

    assert snapshot(f) is f
    assert snapshot(g) is g
    snapshot(f)(1.0)
    assert calls == 1


def test_what_is_no_plain_function_is_left_alone() -> None:
    called = type("Map", (), {"__call__": lambda self, z: z})()
    given: list[Any] = [abs, "".join, [].append, called]
    for f in given:
        assert snapshot(f) is f


def test_recursion_and_a_name_that_is_bound_later() -> None:
    def f(n: int) -> int:
        return n * f(n - 1) if n else last

    copy: Any = snapshot(f)
    last = 1
    assert copy(4) == 24


def test_imports_within_are_relative_to_the_module() -> None:
    def f(z: float) -> float:
        from . import problems

        return z if problems else 0.0

    copy: Any = snapshot(f)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert copy(2.0) == 2.0
