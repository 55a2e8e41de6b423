"""JAX on several devices: shard_map, sharded arrays under jit, pmap."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jax", reason="jax is not installed")
pytestmark = pytest.mark.framework("jax")
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def outcome() -> dict[str, Any]:
    """What `jax_devices` printed; one process for all tests, as devices are set at the start."""
    paths = [str(ROOT), str(ROOT / "backends"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-m", "tests.jax_devices"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


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
