"""What a step costs in a tf.function beside f: operations of the graph that TensorFlow runs.

Each takes some 0.3 microseconds a step, and of a small state f itself takes 20.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import tensorflow as _tensorflow
from tensorflow.python.eager import context  # pyright: ignore[reportMissingImports]

import fpicore_tensorflow as fpi

from .problems import LEAN

tf: Any = _tensorflow  # its modules load lazily, so that type checkers do not see them
pytestmark = pytest.mark.framework("tensorflow")

WEIGHT = np.array([[0.3, -0.4], [0.2, 0.5]], np.float32)


def solve(x: Any, adjoint: Any = LEAN) -> Any:
    """One system z = tanh(z W + x)."""
    f = lambda z: tf.tanh(z @ WEIGHT + x)  # noqa: E731
    return fpi.fixed_point(f, tf.zeros_like(x), solver=fpi.Picard(), adjoint=adjoint)


def gradient(x: Any, adjoint: Any) -> Any:
    with tf.GradientTape() as tape:
        tape.watch(x)
        z = solve(x, adjoint).value
    return tape.gradient(z, x)


def operations(function: Callable[..., Any], *args: Any) -> Counter[str]:
    """How many of each kind TensorFlow keeps, once it has optimised the graph."""
    run, x = tf.function(function, autograph=False), tf.constant(np.ones((3, 2), np.float32))
    eager: Any = context.context()
    eager.enable_graph_collection()
    try:
        run(x, *args)
        graphs = eager.export_run_metadata().function_graphs
    finally:
        eager.disable_graph_collection()
    return Counter(n.op for g in graphs for part in g.partition_graphs for n in part.node)


def test_a_step_of_one_system() -> None:
    """The loop hands on z, the best, its residual, the step of both and whether to go on."""
    found = operations(lambda x: solve(x).value)
    assert found["NextIteration"] <= 8  # x is one as well, and TensorFlow's own counter
    assert found["SelectV2"] == 0
    assert found["Select"] <= 3
    assert found["LogicalAnd"] <= 4


def test_a_step_of_the_adjoint_solve() -> None:
    """No status: the second solver needs to know the residual alone."""
    found = operations(gradient, fpi.Implicit(fallback=fpi.Picard(damping=0.5)))
    assert found["LoopCond"] == 3
    assert found["NotEqual"] == 0
