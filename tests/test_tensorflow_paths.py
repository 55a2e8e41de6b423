"""Ways to differentiate and things to differentiate that only TensorFlow has."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import tensorflow as _tensorflow

import fpicore_tensorflow as fpi

tf: Any = _tensorflow  # its modules load lazily, so that type checkers do not see them
pytestmark = pytest.mark.framework("tensorflow")

THETA = np.array([0.4, -0.7])


def coupled(x: Any) -> Any:
    """Each row a system: z = tanh(W z) + x."""
    weight = tf.constant([[0.3, -0.4], [0.2, 0.5]], tf.float64)
    f = lambda z: tf.tanh(z @ weight) + x  # noqa: E731
    return fpi.fixed_point(
        f,
        tf.zeros_like(x),
        solver=fpi.Picard(),
        adjoint=fpi.Implicit(fallback=None),  # half of the loops to trace
        rtol=1e-13,
        max_steps=200,
        batch_ndim=1,
    ).value


ROWS = np.array([[0.3, -0.2], [1.0, 0.4], [-0.5, 0.1]])


def row_jacobians() -> np.ndarray:
    """dz/dx of each row."""
    weight, found = np.array([[0.3, -0.4], [0.2, 0.5]]), []
    for z in coupled(tf.constant(ROWS)).numpy():
        slope = weight.T * (1 - np.tanh(z @ weight) ** 2)[:, None]
        found.append(np.linalg.inv(np.eye(2) - slope))
    return np.stack(found)


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_jacobians(mode: str) -> None:
    pfor = mode != "xla"  # TensorFlow's vectorised loops do not compile

    def run(x: Any) -> Any:
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            z = coupled(x)
        full = tape.jacobian(z, x, experimental_use_pfor=pfor)
        return full, tape.batch_jacobian(z, x, experimental_use_pfor=pfor)

    if mode != "eager":
        run = tf.function(run, autograph=False, jit_compile=mode == "xla" or None)
    full, rows = run(tf.constant(ROWS))
    np.testing.assert_allclose(rows, row_jacobians(), rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(
        np.einsum("iaib->iab", full.numpy()), row_jacobians(), rtol=1e-8, atol=1e-12
    )
    assert np.count_nonzero(np.abs(full) > 1e-12) == rows.numpy().size


def test_no_tape_makes_a_solve_keep_its_steps() -> None:
    """TensorFlow would build the loop's derivative, in case that a second one is asked for."""

    @tf.function(autograph=False)
    def run(x: Any) -> Any:
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(x)
            z = coupled(x)
        return tape.gradient(z, x)

    graph = run.get_concrete_function(tf.constant(ROWS)).graph.as_graph_def()
    nodes = [*graph.node, *[node for f in graph.library.function for node in f.node_def]]
    kinds = {node.op for node in nodes}
    assert "While" in kinds or "StatelessWhile" in kinds
    assert not kinds & {"TensorListPushBack", "TensorListReserve", "EmptyTensorList"}


def test_vectorized_map() -> None:
    found = tf.vectorized_map(lambda row: coupled(row[None])[0], tf.constant(ROWS))
    np.testing.assert_allclose(found, coupled(tf.constant(ROWS)), rtol=1e-10)


def test_tape_within_a_vectorized_map() -> None:
    def slope(row: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(row)
            z = coupled(row[None])
        return tape.gradient(z, row)

    found = tf.vectorized_map(slope, tf.constant(ROWS))
    np.testing.assert_allclose(found, row_jacobians().sum(axis=1), rtol=1e-8)


@pytest.mark.parametrize(
    "adjoint",
    [fpi.Implicit(), fpi.OneStep(), fpi.Unrolled(20), fpi.Reversible()],
    ids=str,
)
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_tape_around_a_vectorized_map_is_refused(mode: str, adjoint: Any) -> None:
    """TensorFlow rewrites the graph and drops every custom gradient; it must not become zero."""

    def solve(x: Any) -> Any:
        return fpi.fixed_point(
            lambda z: 0.5 * tf.sin(z) + x, tf.zeros_like(x), adjoint=adjoint, max_steps=12,
            solver=fpi.Picard(), on_failure="ignore",
        ).value  # fmt: skip

    def slope(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            z = tf.vectorized_map(solve, x)
        return tape.gradient(z, x)

    run = slope if mode == "eager" else tf.function(slope, autograph=False)
    with pytest.raises(LookupError, match="custom_gradient of fpicore"):
        run(tf.constant(ROWS))


def test_embedding_in_the_map() -> None:
    """The gradient of a table is a set of rows: z = T[0] − 1.5 z + T[2] has z* = 0.4 (T₀ + T₂)."""
    table = tf.Variable(np.arange(8.0).reshape(4, 2))

    def run() -> Any:
        with tf.GradientTape(persistent=True) as tape:
            f = lambda z: tf.reduce_sum(tf.gather(table, [0, 2]), 0) - 1.5 * z  # noqa: E731
            z = fpi.fixed_point(f, tf.zeros(2, tf.float64), rtol=1e-12).value
        return tf.convert_to_tensor(tape.gradient(z, table))

    expected = [[0.4, 0.4], [0.0, 0.0], [0.4, 0.4], [0.0, 0.0]]
    np.testing.assert_allclose(run(), expected, rtol=1e-9)


def test_nested_solve_twice_differentiated() -> None:
    """y = z/2 − y/2 within z = θ² − y/2: y* = z/3 and z* = 6 θ²/7."""
    theta = tf.constant(THETA)

    def loss() -> Any:
        def outer(z: Any) -> Any:
            inner = fpi.fixed_point(lambda y: 0.5 * z - 0.5 * y, tf.zeros_like(z), rtol=1e-13)
            return theta**2 - 0.5 * inner.value

        return tf.reduce_sum(fpi.fixed_point(outer, tf.zeros(2, tf.float64), rtol=1e-12).value)

    with tf.GradientTape() as second:
        second.watch(theta)
        with tf.GradientTape() as first:
            first.watch(theta)
            total = loss()
        slope = first.gradient(total, theta)
    np.testing.assert_allclose(slope, 12 / 7 * THETA, rtol=1e-8)
    np.testing.assert_allclose(second.gradient(slope, theta), 12 / 7, rtol=1e-8)


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_narrow_state(name: str) -> None:
    """Ends by itself, with a gradient as good as the dtype."""
    x = tf.cast(tf.constant(ROWS), name)
    weight = tf.cast(tf.constant([[0.3, -0.4], [0.2, 0.5]]), name)
    with tf.GradientTape() as tape:
        tape.watch(x)
        sol = fpi.fixed_point(lambda z: tf.tanh(z @ weight) + x, tf.zeros_like(x), batch_ndim=1)
    found = tf.cast(tape.gradient(sol.value, x), tf.float64)
    assert bool(tf.reduce_all(sol.converged))
    np.testing.assert_allclose(found, row_jacobians().sum(axis=1), rtol=0.1, atol=0.05)


def test_complex_state_by_its_real_form() -> None:
    """TensorFlow's convention: the gradient of a real loss is dL/dx + i dL/dy."""
    random = np.random.default_rng(0)
    a = 0.3 * (random.standard_normal((3, 3)) + 1j * random.standard_normal((3, 3)))
    b = random.standard_normal(3) + 1j * random.standard_normal(3)

    def complex_loss(b: Any) -> Any:
        f = lambda z: tf.linalg.matvec(tf.constant(a), z) + 0.1 * tf.math.conj(z) * z + b  # noqa: E731
        z = fpi.fixed_point(f, tf.zeros(3, tf.complex128), rtol=1e-13).value
        return tf.reduce_sum(tf.abs(z) ** 4)

    def real_loss(b: Any) -> Any:
        big = tf.constant(np.block([[a.real, -a.imag], [a.imag, a.real]]))

        def f(z: Any) -> Any:
            square = 0.1 * (z[:3] ** 2 + z[3:] ** 2)
            return tf.linalg.matvec(big, z) + tf.concat([square, tf.zeros(3, tf.float64)], 0) + b

        z = fpi.fixed_point(f, tf.zeros(6, tf.float64), rtol=1e-13).value
        return tf.reduce_sum((z[:3] ** 2 + z[3:] ** 2) ** 2)

    def derivatives(loss: Any, b: Any, direction: Any) -> Any:
        with tf.GradientTape() as outer:
            outer.watch(b)
            with tf.GradientTape() as inner:
                inner.watch(b)
                total = loss(b)
            slope = inner.gradient(total, b)
            along = tf.reduce_sum(tf.math.real(tf.math.conj(direction) * slope))
        return slope.numpy(), outer.gradient(along, b).numpy()

    b, d = 0.2 * b, random.standard_normal(3) + 1j * random.standard_normal(3)
    found = derivatives(complex_loss, tf.constant(b), tf.constant(d))
    stacked = [tf.constant(np.concatenate([x.real, x.imag])) for x in (b, d)]
    for got, expected in zip(found, derivatives(real_loss, *stacked), strict=True):
        np.testing.assert_allclose(got, expected[:3] + 1j * expected[3:], rtol=1e-8)
