"""The suite's own rules: a backend that is named may not be left out; flags of one's own stay."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fpicore.verify.frameworks import installed

from . import compilers

ROOT = Path(__file__).parents[1]
HIDE = """\
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "jax" else find(name, *rest)
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


def collect(*arguments: str, program: tuple[str, ...] = ("-m", "pytest")) -> tuple[int, str]:
    command = [sys.executable, *program, "tests/test_failure.py", "--collect-only", "-q"]
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )
    return done.returncode, done.stdout + done.stderr


def test_unknown_backend() -> None:
    status, output = collect("--backend", "mxnet")
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "expected one of numpy, torch, jax, tensorflow" in output


def test_named_backend_that_is_not_installed() -> None:
    status, output = collect("--backend", "jax", program=("-c", HIDE))
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "--backend jax: jax is not installed" in output


def test_only_the_named_backend_runs() -> None:
    status, output = collect("--backend", "numpy")
    assert status == pytest.ExitCode.OK
    assert "[numpy-" in output
    for name in filter(installed, ("torch", "jax", "tensorflow")):
        assert f"[{name}" not in output


def test_flags_of_ones_own_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    compilers.quicken()
    assert "--xla_backend_optimization_level=0" in os.environ["XLA_FLAGS"]
    for own in ("", "--xla_dump_to=x"):
        monkeypatch.setenv("XLA_FLAGS", own)
        compilers.quicken()
        assert os.environ["XLA_FLAGS"] == own


@pytest.mark.parametrize("found", ["0.0.1", None])
def test_a_flag_that_comes_and_goes_is_for_known_versions(
    monkeypatch: pytest.MonkeyPatch, found: str | None
) -> None:
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(compilers, "version", lambda name: found)
    compilers.quicken()
    assert ("emitters" in os.environ["XLA_FLAGS"]) == (found is None)
