"""Unrolled, with and without recomputation, what a tape keeps, and the truncated strategies."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import tensorflow as _tensorflow

import fpicore_tensorflow as fpi
from fpicore import InputError, MapError

tf: Any = _tensorflow  # its modules load lazily, so that type checkers do not see them
pytestmark = pytest.mark.framework("tensorflow")

RANDOM = np.random.default_rng(0)
WEIGHT, START, BIAS, SCALE = 0.2 * RANDOM.standard_normal((4, 4)), *RANDOM.standard_normal((3, 4))
COMPILE = {"eager": None, "graph": {}, "xla": {"jit_compile": True}}


def compiled(function: Any, mode: str) -> Any:
    options = COMPILE[mode]
    return function if options is None else tf.function(function, autograph=False, **options)


def gradients(adjoint: Any, mode: str, steps: int, solver: Any = None) -> list[Any]:
    """With respect to the start, an argument, a computed closure and a variable."""
    variable = tf.Variable(0.5 * SCALE)

    def run(start: Any, bias: Any, scale: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch([start, bias, scale])
            closed = tf.sin(scale)

            def f(z: Any, b: Any) -> Any:
                return tf.tanh(tf.linalg.matvec(tf.constant(WEIGHT), z) * closed) + b * variable

            sol = fpi.fixed_point(
                f, start, (bias,), adjoint=adjoint, solver=solver or fpi.Picard(), rtol=1e-13,
                max_steps=steps, on_failure="ignore",
            )  # fmt: skip
            loss = tf.reduce_sum(sol.value**2)
        return tape.gradient(loss, [start, bias, scale, variable])

    return compiled(run, mode)(*map(tf.constant, (START, BIAS, SCALE)))


def by_hand(steps: int) -> list[Any]:
    """The same by a Python loop."""
    start, bias, scale = map(tf.constant, (START, BIAS, SCALE))
    variable = tf.constant(0.5 * SCALE)
    with tf.GradientTape() as tape:
        tape.watch([start, bias, scale, variable])
        z = start
        for _ in range(steps):
            product = tf.linalg.matvec(tf.constant(WEIGHT), z)
            z = tf.tanh(product * tf.sin(scale)) + bias * variable
        loss = tf.reduce_sum(z**2)
    return tape.gradient(loss, [start, bias, scale, variable])


@pytest.mark.parametrize(
    ("checkpoint", "mode"),
    [(False, "eager"), (True, "eager"), (2, "eager"), (2, "graph"), (False, "xla"), (2, "xla")],
)
def test_cut_short(checkpoint: Any, mode: str) -> None:
    """Four steps: the derivative is that of the program, the start included."""
    found = gradients(fpi.Unrolled(checkpoint=checkpoint), mode, 4)
    for got, expected in zip(found, by_hand(4), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-10)


def test_recomputation_with_anderson() -> None:
    kept = gradients(fpi.Unrolled(), "eager", 7, fpi.Anderson())
    again = gradients(fpi.Unrolled(checkpoint=3), "eager", 7, fpi.Anderson())
    for got, expected in zip(again, kept, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-10)


def test_second_derivative_of_a_recomputed_iteration() -> None:
    theta = tf.constant(BIAS)

    def second(checkpoint: bool) -> Any:
        with tf.GradientTape() as outer:
            outer.watch(theta)
            with tf.GradientTape() as inner:
                inner.watch(theta)
                z = fpi.fixed_point(
                    lambda z: 0.5 * tf.sin(z * theta) + theta, tf.zeros(4, tf.float64),
                    adjoint=fpi.Unrolled(checkpoint=checkpoint), solver=fpi.Picard(), max_steps=9,
                    on_failure="ignore",
                ).value  # fmt: skip
            slope = inner.gradient(z, theta)
        return outer.gradient(slope, theta)

    np.testing.assert_allclose(second(True), second(False), rtol=1e-10)


def test_one_tensor_in_every_role() -> None:
    """Start, argument and closure at once: each use counts once."""
    theta = tf.constant(BIAS)
    found = []
    for checkpoint in (False, 2):
        with tf.GradientTape() as tape:
            tape.watch(theta)
            z = fpi.fixed_point(
                lambda z, t: 0.3 * tf.sin(z) * t + theta, theta, (theta,), max_steps=4,
                adjoint=fpi.Unrolled(checkpoint=checkpoint), on_failure="ignore",
            ).value  # fmt: skip
        found.append(tape.gradient(z, theta))
    np.testing.assert_allclose(*found, rtol=1e-10)


def test_recomputation_of_a_map_that_cannot_be_traced() -> None:
    with pytest.raises(InputError, match="can trace, as Unrolled"):
        fpi.fixed_point(
            lambda z: 0.5 * z if float(z[0]) else z,
            tf.ones(2),
            adjoint=fpi.Unrolled(checkpoint=True),
        )


class Kept:
    """The evaluations of f that an outer tape still holds: their gradient functions live."""

    def __init__(self) -> None:
        self.alive: set[int] = set()

    def watch(self, z: Any) -> Any:
        """z, on a tape as long as its gradient function lives."""
        import weakref

        key = len(self.seen)
        self.seen.append(key)

        @tf.custom_gradient
        def identity(z: Any) -> Any:
            def pull_back(v: Any) -> Any:
                return v

            weakref.finalize(pull_back, self.alive.discard, key)
            self.alive.add(key)
            return tf.identity(z), pull_back

        return identity(z)

    @property
    def seen(self) -> list[int]:
        """All evaluations."""
        return self.__dict__.setdefault("_seen", [])


def kept_evaluations(adjoint: Any, steps: int) -> tuple[int, int]:
    kept, theta = Kept(), tf.constant(BIAS)
    with tf.GradientTape() as tape:
        tape.watch(theta)
        sol = fpi.fixed_point(
            lambda z: kept.watch(0.99 * z + theta), tf.zeros(4, tf.float64), adjoint=adjoint,
            solver=fpi.Picard(), max_steps=steps, rtol=1e-14, on_failure="ignore",
        )  # fmt: skip
        seen, alive = len(kept.seen), len(kept.alive)
    del tape, sol
    return seen, alive


def test_an_eager_tape_keeps_no_iteration() -> None:
    """One evaluation, at z*, however many it took."""
    for steps in (5, 40):
        seen, alive = kept_evaluations(fpi.Implicit(), steps)
        assert (seen, alive) == (steps + 2, 1)


def test_recomputation_keeps_no_evaluation() -> None:
    assert kept_evaluations(fpi.Unrolled(), 16) == (17, 17)
    seen, alive = kept_evaluations(fpi.Unrolled(checkpoint=4), 16)
    assert seen >= 17  # and one trace
    assert alive <= 1


@pytest.mark.parametrize("persistent", [False, True])
def test_segments_share_what_is_traced(persistent: bool) -> None:
    """f is searched, run and run under a tape, once each; one loop keeps what its steps compute."""
    evaluations = []

    def slope(theta: Any) -> Any:
        def f(z: Any) -> Any:
            evaluations.append(z)
            return 0.9 * tf.sin(z) + theta

        with tf.GradientTape(persistent=persistent) as tape:
            tape.watch(theta)
            z = fpi.fixed_point(
                f, tf.zeros(4, tf.float64), adjoint=fpi.Unrolled(checkpoint=2),
                solver=fpi.Picard(), max_steps=9, on_failure="ignore",
            ).value  # fmt: skip
        return tape.gradient(z, theta)

    run = tf.function(slope, autograph=False).get_concrete_function(tf.constant(BIAS))
    library = run.graph.as_graph_def().library.function
    keeping = [g for g in library if any(n.op == "TensorListPushBack" for n in g.node_def)]
    assert len(evaluations) <= 3
    assert len(keeping) == 1


@pytest.mark.parametrize("written", [False, True])
def test_variable_written_to_before_a_graph_recomputes(written: bool) -> None:
    """A graph cannot raise: NaN."""
    bias = tf.Variable(BIAS)

    def slope(theta: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(theta)
            z = fpi.fixed_point(
                lambda z: 0.9 * tf.sin(z) * theta + bias, tf.zeros(4, tf.float64),
                adjoint=fpi.Unrolled(checkpoint=2), solver=fpi.Picard(), max_steps=3,
                on_failure="ignore",
            ).value  # fmt: skip
        if written:
            bias.assign(2.0 * bias)
        return tape.gradient(z, theta)

    found = compiled(slope, "graph")(tf.constant(SCALE))
    assert np.isnan(found).all() == written


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_recomputation_of_a_map_that_draws_is_refused(mode: str) -> None:
    def run() -> Any:
        return fpi.fixed_point(
            lambda z: 0.5 * z + tf.random.normal((2,)), tf.ones(2),
            adjoint=fpi.Unrolled(checkpoint=2), max_steps=4,
        ).value  # fmt: skip

    with pytest.raises(MapError, match="draws random numbers"):
        compiled(run, mode)()


def test_a_map_that_opens_a_tape_under_a_tape() -> None:
    """An energy's gradient step: z* = θ/2 minimises z² − θ z."""
    theta = tf.constant(BIAS)

    def f(z: Any) -> Any:
        with tf.GradientTape() as inner:
            inner.watch(z)
            energy = tf.reduce_sum(z**2 - theta * z)
        return z - 0.3 * inner.gradient(energy, z)

    for adjoint in (fpi.Implicit(), fpi.Unrolled(checkpoint=True)):
        with tf.GradientTape() as tape:
            tape.watch(theta)
            z = fpi.fixed_point(
                f, tf.zeros(4, tf.float64), adjoint=adjoint, solver=fpi.Picard(), rtol=1e-12
            ).value
        np.testing.assert_allclose(tape.gradient(z, theta), 0.5, rtol=1e-8)


MATRIX = 0.5 * RANDOM.standard_normal((4, 4))
FORMULAS = {
    "onestep": (fpi.OneStep(), np.eye(4)),
    "neumann": (fpi.Neumann(3), np.eye(4) + MATRIX.T + MATRIX.T @ MATRIX.T),
    "phantom": (fpi.Phantom(2, 0.5), 0.5 * (1.5 * np.eye(4) + 0.5 * MATRIX.T)),
    "reuse": (fpi.Implicit(reuse=True, rtol=1e-12), np.linalg.inv(np.eye(4) - MATRIX.T)),
    "fallback": (
        fpi.Implicit(fpi.Picard(), max_steps=40, rtol=1e-12, fallback=fpi.Anderson()),
        np.linalg.inv(np.eye(4) - MATRIX.T),
    ),
}


@pytest.mark.parametrize("mode", COMPILE)
@pytest.mark.parametrize("name", FORMULAS)
def test_strategy_by_its_formula(name: str, mode: str) -> None:
    """z = A z + θ: the gradient of c·z is the strategy's matrix times c."""
    adjoint, matrix = FORMULAS[name]

    def run(theta: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(theta)
            z = fpi.fixed_point(
                lambda z: tf.linalg.matvec(tf.constant(MATRIX), z) + theta,
                tf.zeros(4, tf.float64), adjoint=adjoint, rtol=1e-12,
            ).value  # fmt: skip
            loss = tf.reduce_sum(tf.constant(SCALE) * z)
        return tape.gradient(loss, theta)

    found = compiled(run, mode)(tf.constant(BIAS))
    np.testing.assert_allclose(found, matrix @ SCALE, rtol=1e-8)
