"""JAX on several devices: shard_map, sharded arrays under jit, pmap."""

from typing import Any

import pytest

from .devices import printed_by

pytest.importorskip("jax", reason="jax is not installed")
pytestmark = pytest.mark.framework("jax")


@pytest.fixture(scope="module")
def outcome() -> dict[str, Any]:
    """What `jax_devices` printed; one process for all tests, as devices are set at the start."""
    return printed_by("tests.jax_devices", JAX_PLATFORMS="cpu")


CASES = ["anderson", "broyden", "reuse", "columns", "reversible", "unrolled", "pmap"]


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_of_split_solves(outcome: dict[str, Any], case: str) -> None:
    """shard_map over the batch, and over the columns of the weight with a sum inside f."""
    assert max(outcome[case]) < 1e-8


def test_map_that_mixes_its_own_shards_is_refused(outcome: dict[str, Any]) -> None:
    assert "expected f not to communicate along mesh axis 'd'" in outcome["coupled"]


def test_sharded_batch_is_never_gathered(outcome: dict[str, Any]) -> None:
    """Only the stop flag and the parameter's gradient are reduced over the devices."""
    found = outcome["named"]
    assert found["error"] < 1e-8
    assert (found["all-gather"], found["all-to-all"], found["collective-permute"]) == (0, 0, 0)
    assert found["all-reduce"] > 0
