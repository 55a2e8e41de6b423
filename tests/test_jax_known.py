"""What is not under jit runs as programs that are compiled once; they must not be confused."""

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402

import fpicore_jax as fpi  # noqa: E402
from fpicore_jax._known import Map, Program  # noqa: E402

from .compilers import compilations, forget  # noqa: E402

pytestmark = pytest.mark.framework("jax")
START = np.linspace(-1.0, 1.0, 6).reshape(2, 3)
SHIFT = np.linspace(0.1, 0.6, 6).reshape(2, 3)


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield
    forget()


@jax.custom_jvp
def steep(x: Any) -> Any:
    return jnp.tanh(x)


@jax.custom_jvp
def flat(x: Any) -> Any:
    return jnp.tanh(x)


@jax.custom_vjp
def odd(x: Any) -> Any:
    return jnp.tanh(x)


steep.defjvp(lambda x, dx: (steep(x[0]), 2.0 * dx[0]))
flat.defjvp(lambda x, dx: (flat(x[0]), 0.0 * dx[0]))
odd.defvjp(lambda x: (odd(x), None), lambda _, g: (3.0 * g,))

THIRD = 1.0 / 3.0
ALIKE = {
    "numbers": [lambda z, s=s: 0.3 * jnp.sin(z) + s for s in (0.5, 0.25, -0.0, 0.0)],
    "zeros": [
        lambda z, s=s: 0.3 * z + jnp.sign(1.0 / jnp.where(z > 9.0, z, s)) for s in (0.0, -0.0)
    ],
    "kinds of one": [lambda z, s=s: 0.3 * z + jnp.where(z > s, s, 0.5) for s in (1, 1.0, True)],
    "axes": [lambda z, a=a: 0.2 * jnp.sum(z, axis=a, keepdims=True) + 0.1 * z for a in (0, 1)],
    "powers": [lambda z, p=p: 0.2 * jnp.tanh(z) ** p + 0.5 for p in (2, 3)],
    "operands": [lambda z, k=k: jnp.subtract(*(0.5 * jnp.cos(z), 0.2 * z)[::k]) for k in (1, -1)],
    "inner jit": [jax.jit(lambda z, s=s: 0.3 * jnp.sin(z) + s) for s in (0.5, 0.25)],
    "arrays of an inner jit": [
        lambda z, a=a: jax.jit(lambda z: 0.3 * z + a)(z) for a in (np.ones(3), 2.0 * np.ones(3))
    ],
    "branches": [
        lambda z, s=s: jax.lax.cond(z.sum() > s, lambda: 0.3 * z + 1.0, lambda: 0.1 * z - 1.0)
        for s in (-9.0, 9.0)
    ],
    "arrays": [lambda z, a=a: 0.3 * jnp.sin(z) + a for a in (np.ones(3), 2.0 * np.ones(3))],
    "rules": [lambda z, g=g: 0.3 * g(z) + 0.5 for g in (jnp.tanh, steep, flat, odd)],
    "dtypes": [
        lambda z, t=t: 0.3 * z.astype(t).astype(z.dtype) + THIRD for t in ("float32", "float64")
    ],
}
"""Maps that look much alike; numbers, and functions, are all that some differ in."""


OPTIONS: Any = {
    "solver": fpi.Picard(),
    "adjoint": fpi.Implicit(fallback=None),
    "rtol": 1e-12,
    "max_steps": 400,
}


@pytest.mark.parametrize("name", ALIKE)
def test_maps_that_look_alike_are_told_apart(name: str) -> None:
    """Values and gradients, at first and once more, are those under jit."""
    for f in (*ALIKE[name], ALIKE[name][0]):

        def loss(shift: Any, f: Any = f) -> Any:
            run = lambda z: f(z) + shift  # noqa: E731
            return (fpi.fixed_point(run, jnp.asarray(START), **OPTIONS).value ** 2).sum()

        run, shift = jax.value_and_grad(loss), jnp.asarray(SHIFT)
        wanted = jax.jit(run)(shift)
        for found in (run(shift), run(shift)):
            for a, b in zip(found, wanted, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-9)


@pytest.mark.parametrize("name", ["powers", "rules"])
def test_second_derivatives_of_maps_that_look_alike(name: str) -> None:
    """Reverse over reverse, which a jax.custom_vjp function has too."""
    for f in ALIKE[name]:

        def slope(shift: Any, f: Any = f) -> Any:
            def loss(shift: Any) -> Any:
                run = lambda z: f(z) + jnp.sin(shift)  # noqa: E731
                return (fpi.fixed_point(run, jnp.asarray(START), **OPTIONS).value ** 2).sum()

            return (jax.grad(loss)(shift) ** 2).sum()

        run, shift = jax.grad(slope), jnp.asarray(SHIFT)
        wanted = jax.jit(run)(shift)
        for found in (run(shift), run(shift)):
            np.testing.assert_allclose(found, wanted, rtol=1e-8)


def test_number_that_is_counted_up_compiles_no_program_each_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not though each comes twice, in a value and a gradient. One that comes often does, once."""

    def run(number: float) -> Any:
        return fpi.fixed_point(lambda z: 0.3 * jnp.sin(z) + number, jnp.zeros((5, 2))).value

    with jax.log_compiles(True), caplog.at_level("WARNING", logger="jax"):
        for i in range(12):
            run(float(i))
            run(float(i))
        before = [text for text in compilations(caplog) if "_iterated" in text]
        for _ in range(8):
            run(11.0)
        after = [text for text in compilations(caplog) if "_iterated" in text]
    assert (len(before), len(after)) == (2, 3)


def test_map_with_effects_is_evaluated_step_by_step(caplog: pytest.LogCaptureFixture) -> None:
    """And so is any under jax.disable_jit."""
    seen: list[float] = []

    def f(z: Any) -> Any:
        jax.debug.callback(lambda x: seen.append(float(x)), z.sum(), ordered=True)
        return 0.5 * z + 1.0

    with jax.log_compiles(True), caplog.at_level("WARNING", logger="jax"):
        for _ in range(3):
            seen.clear()
            sol = fpi.fixed_point(f, jnp.zeros(3), solver=fpi.Picard())
            assert len(seen) == sol.stats.evaluations
    assert not [text for text in compilations(caplog) if "_iterated" in text]
    sol = fpi.fixed_point(f, jnp.zeros(3), solver=fpi.Picard())
    with jax.disable_jit():
        bare = fpi.fixed_point(lambda z: 0.5 * z + 1.0, jnp.zeros(3), solver=fpi.Picard())
    np.testing.assert_array_equal(bare.value, sol.value)


def test_callback_that_is_new_each_time_compiles_no_program_each_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """JAX compares it by the function that it calls, which is new to it in every trace."""

    def f(z: Any) -> Any:
        like = jax.ShapeDtypeStruct(z.shape, z.dtype)
        return 0.5 * jax.pure_callback(lambda x: np.tanh(x), like, z) + 1.0

    with jax.log_compiles(True), caplog.at_level("WARNING", logger="jax"):
        for _ in range(6):
            fpi.fixed_point(f, jnp.zeros((3, 1)), solver=fpi.Picard())
    assert len([text for text in compilations(caplog) if "_iterated" in text]) == 2


def test_array_that_is_written_to_after_the_call() -> None:
    """A program that has begun reads what it was given for as long as it runs."""
    buffer = np.zeros(64 + 90_000 * 8, np.uint8)  # JAX shares what begins at a multiple of 64
    matrix = buffer[-buffer.ctypes.data % 64 :][: 90_000 * 8].view(np.float64).reshape(300, 300)
    options = {"solver": fpi.Picard(), "rtol": 1e-9, "on_failure": "ignore"}
    for _ in range(8):
        matrix[:] = 0.9 / 300
        sol = fpi.fixed_point(lambda z: matrix @ z + 1.0, jnp.zeros(300), max_steps=300, **options)
        matrix[:] = 0.0
        np.testing.assert_allclose(sol.value, 10.0, rtol=1e-7)


def test_first_nan_is_found_where_jax_looks_for_it() -> None:
    with jax.debug_nans(True), pytest.raises(FloatingPointError):
        fpi.fixed_point(lambda z: jnp.log(z - 1.0), jnp.zeros(3), solver=fpi.Picard())


def test_strategy_that_is_not_hashable_runs_as_it_is() -> None:
    program = Program(lambda known, strategy, x: (known is not None, len(strategy), x), hashable=2)
    known = Map(jax.make_jaxpr(lambda x: x)(1.0).jaxpr)
    assert program(known, [1, 2], 3.0) == (True, 2, 3.0)


def test_program_keeps_no_array_alive() -> None:
    array = jnp.full((2, 3), 0.25)
    kept = weakref.ref(array)
    fpi.fixed_point(lambda z, a=array: a * z + 1.0, jnp.zeros((2, 3)), solver=fpi.Picard())
    del array
    gc.collect()
    assert kept() is None


def test_other_listeners_compile_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Each is told, of the forward solve and of the backward one."""

    def run() -> tuple[int, int]:
        forward, backward = [], []
        adjoint = fpi.Implicit(callback=lambda results, stats: backward.append(stats))

        def loss(shift: Any) -> Any:
            f = lambda z: 0.3 * jnp.sin(z) + shift  # noqa: E731
            sol = fpi.fixed_point(f, jnp.zeros(7), adjoint=adjoint, callback=forward.append)
            return sol.value.sum()

        jax.grad(loss)(jnp.ones(7))
        return len(forward), len(backward)

    first = run()
    with jax.log_compiles(True), caplog.at_level("WARNING", logger="jax"):
        assert run() == first
    assert compilations(caplog) == []
    assert first[0] > 1
    assert first[1] == 1
