"""Keras layers under tf.distribute.MirroredStrategy, on two virtual devices of a new process."""

import subprocess
import sys

import pytest

pytest.importorskip("keras", reason="keras is not installed")
pytest.importorskip("tensorflow", reason="tensorflow is not installed")

pytestmark = pytest.mark.framework("tensorflow")

CODE = """
import contextlib
import numpy as np
import tensorflow as tf

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, 2 * [tf.config.LogicalDeviceConfiguration()])

import keras
import fpicore_keras

x = np.random.default_rng(0).standard_normal((8, 3)).astype("float32")
options = {"rtol": 1e-5, "max_steps": 60}


def train(scope):
    keras.utils.set_random_seed(0)
    with scope:
        block = fpicore_keras.Equilibrium(4, warm_start=True, **options)
        model = keras.Sequential([keras.Input(batch_shape=(8, 3)), block])
        model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse", jit_compile=False)
    model.fit(x, np.ones((8, 4)), batch_size=8, epochs=2, shuffle=False, verbose=0)
    assert block.summary.failed == 0 < block.summary.steps, block.summary
    return [np.asarray(v) for v in model.trainable_variables]


strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
for one, two in zip(train(contextlib.nullcontext()), train(strategy.scope()), strict=True):
    np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4)
"""


def test_two_replicas_train_like_one() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
