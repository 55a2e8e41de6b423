"""The command ``fpicore solve``."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fpicore.__main__ import main
from fpicore.verify.frameworks import installed

pytest.importorskip("rich", reason="the extra cli is not installed")

PROBLEM = """\
import numpy as np
from fpicore.verify import Problem

def f(xp, z, slope):
    return {"z": slope * z["z"] + 1.0}

slopes = np.array([[0.5], [0.9]])
problem = Problem("mine", f, z0={"z": np.zeros((2, 1))}, args=(slopes,), batch_ndim=1)
many = Problem("many", f, {"z": np.zeros((40, 1))}, (np.linspace(0.0, 2.0, 40)[:, None],),
               batch_ndim=1, max_steps=30)
diverging = Problem("diverging", lambda xp, z: 3.0 * z + 1.0, z0=np.zeros(2), max_steps=20)
raising = Problem("raising", lambda xp, z: 1 / 0, z0=np.zeros(2))
torch_only = Problem("torch only", {"torch": lambda z: 0.5 * z + 1.0}, z0=np.zeros(2))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(PROBLEM)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_problem_is_solved(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", "mine.py:problem", "--solver", "picard", "--rtol", "1e-2"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["system", "result", "steps", "residual", "tolerance"]
    assert shown[1].split() == ["0", "CONVERGED", "6", "1.56e-02", "1.98e-02"]
    assert shown[2].split()[:2] == ["1", "CONVERGED"]
    assert shown[3] == "CONVERGED: the residual met its tolerance"
    assert shown[4].startswith("mine: ")
    assert "picard, numpy" in shown[4]


def test_auto_is_offered(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", "mine.py:problem", "--solver", "auto"]) == 0
    assert "auto, numpy" in capsys.readouterr().out


def test_failure_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", "mine.py:diverging", "--solver", "picard"]) == 1
    shown = capsys.readouterr().out
    assert "MAX_STEPS" in shown
    assert "Raise max_steps" in shown


def test_many_systems_are_summed_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", "mine.py:many", "--solver", "picard"]) == 1
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines()[1:3]]
    assert {row[1] for row in rows} == {"CONVERGED", "MAX_STEPS"}
    assert sum(int(row[0]) for row in rows) == 40


def test_files(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    options = ["--json", "out.json", "--plot", "out.png", "--max-steps", "7", "--dtype", "float32"]
    assert main(["solve", "mine.py:problem", "--solver", "picard", "--rtol", "0.01", *options]) == 1
    found = json.loads((folder / "out.json").read_text())
    assert found["result"] == ["CONVERGED", "MAX_STEPS"]
    assert found["steps"] == [6, 7]
    np.testing.assert_allclose(found["trace"][1], 0.9 ** np.arange(8), rtol=1e-6)
    assert found["trace"][0][7] is None
    np.testing.assert_allclose(found["value"]["z"][0], 2.0 - 2.0**-5, rtol=1e-6)
    assert (found["backend"], found["dtype"], found["converged"]) == ("numpy", "float32", False)
    assert (folder / "out.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_other_frameworks(
    backend: str, capsys: pytest.CaptureFixture[str], pytestconfig: pytest.Config
) -> None:
    named = pytestconfig.getoption("--backend")
    if not installed(backend) or (named and backend not in named):
        pytest.skip(f"{backend} is not installed, or not named")
    target = "mine.py:torch_only" if backend == "torch" else "mine.py:problem"
    chosen = [] if backend == "torch" else ["--backend", backend]
    assert main(["solve", target, "--solver", "picard", *chosen]) == 0
    assert f"picard, {backend}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mine.py:raising"], "received ZeroDivisionError"),
        (["mine.py:nothing"], "it defines the problems problem, many"),
        (["mine.py:torch_only", "--backend", "numpy"], "received one for torch"),
        (["mine.py:problem", "--max-steps", "0"], "expected max_steps"),
        (["mine.py:problem", "--json", "no/where.json"], "expected --json to name a file"),
        (["mine.py:problem", "--plot", "out.xyz"], "ends in one of"),
        (["mine.py:problem", "--rtol", "x"], "invalid float"),
        (["mine.py:problem", "--solver", "newton"], "invalid choice"),
        ([], "required"),
    ],
)
def test_cannot_be_carried_out(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["solve", *arguments]) == 2
    told = capsys.readouterr()
    assert message in told.err
    assert not told.out


def test_progress_is_shown_in_a_terminal(folder: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("needs a pseudo-terminal")
    import pty

    end, terminal = pty.openpty()
    command = [sys.executable, "-m", "fpicore", "solve", "mine.py:problem", "--solver", "picard"]
    environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=terminal, check=False, env=environment
    )
    os.close(terminal)
    drawn = os.read(end, 2**20).decode()
    os.close(end)
    assert done.returncode == 0
    assert "residual/tolerance" in drawn
