"""TensorFlow on two virtual devices, by tf.distribute.MirroredStrategy: a solve, a Keras layer."""

from typing import Any

import numpy as np
import pytest

from .devices import printed_by

pytest.importorskip("keras", reason="keras is not installed")
pytest.importorskip("tensorflow", reason="tensorflow is not installed")
pytestmark = pytest.mark.framework("tensorflow")
START = np.array([[0.3, -0.4], [0.2, 0.5]])


@pytest.fixture(scope="module")
def outcome() -> dict[str, Any]:
    """What `tensorflow_devices` printed; one process for both tests, for TensorFlow's import."""
    return printed_by("tests.tensorflow_devices", KERAS_BACKEND="tensorflow")


def test_two_replicas_agree_with_one(outcome: dict[str, Any]) -> None:
    ((one,), (two,)) = outcome["solve"]
    assert np.abs(np.array(one) - START).max() > 1e-3
    np.testing.assert_allclose(two, one, rtol=1e-8)


def test_layer_on_two_replicas_trains_like_on_one(outcome: dict[str, Any]) -> None:
    for one, two in zip(*outcome["layer"], strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4)
