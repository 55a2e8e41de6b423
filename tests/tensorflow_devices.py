"""Training on two virtual devices, for `test_tensorflow_replicas`: a process of its own has them.

``python -m tests.tensorflow_devices`` prints, as JSON, the weights that one device and two gave.
"""

import contextlib
import json
from typing import Any

import numpy as np
import tensorflow as _tensorflow

tf: Any = _tensorflow  # its modules load lazily, so that type checkers do not see them
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, 2 * [tf.config.LogicalDeviceConfiguration()])

import keras as _keras  # noqa: E402

import fpicore_keras  # noqa: E402
import fpicore_tensorflow as fpi  # noqa: E402

from .problems import LEAN  # noqa: E402

keras: Any = _keras
START = [[0.3, -0.4], [0.2, 0.5]]


def solve(strategy: Any) -> list[np.ndarray]:
    """Two steps down the gradient of a solve, which is summed over the replicas."""
    x = np.linspace(-1.0, 1.0, 8).reshape(4, 2)
    with strategy.scope():
        w = tf.Variable(START, dtype=tf.float64)

    def step(rows: Any) -> None:
        with tf.GradientTape() as tape:
            z = fpi.fixed_point(
                lambda z: tf.tanh(z @ w) + rows, tf.zeros_like(rows),
                solver=fpi.Picard(), adjoint=LEAN, rtol=1e-12, batch_ndim=1,
            ).value  # fmt: skip
            loss = tf.reduce_sum(z**2)
        gradient = tape.gradient(loss, w)
        total = tf.distribute.get_replica_context().all_reduce("sum", gradient)
        w.assign_sub(0.01 * total)

    data = tf.data.Dataset.from_tensor_slices(x).batch(4)
    run = tf.function(lambda rows: strategy.run(step, (rows,)), autograph=False)
    for _ in range(2):
        for rows in strategy.experimental_distribute_dataset(data):
            run(rows)
    return [w.numpy()]


def layer(scope: Any) -> list[np.ndarray]:
    """A Keras layer that starts warm, trained for two epochs."""
    x = np.random.default_rng(0).standard_normal((8, 3)).astype("float32")
    keras.utils.set_random_seed(0)
    with scope:
        block = fpicore_keras.Equilibrium(4, warm_start=True, adjoint=LEAN, rtol=1e-5, max_steps=60)
        model = keras.Sequential([keras.Input(batch_shape=(8, 3)), block])
        model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse", jit_compile=False)
    model.fit(x, np.ones((8, 4)), batch_size=8, epochs=2, shuffle=False, verbose=0)
    assert block.summary.failed == 0 < block.summary.steps, block.summary
    return [np.asarray(v) for v in model.trainable_variables]


if __name__ == "__main__":
    alone = tf.distribute.OneDeviceStrategy("CPU:0")
    mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])  # a second one would collide
    assert mirrored.num_replicas_in_sync == 2
    found = {
        "solve": [solve(alone), solve(mirrored)],
        "layer": [layer(contextlib.nullcontext()), layer(mirrored.scope())],
    }
    print(json.dumps(found, default=np.ndarray.tolist))
