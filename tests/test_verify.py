"""The command ``fpicore verify``: once as a user runs it, else in this process."""

import io
import json
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from fpicore.__main__ import main
from fpicore.verify.frameworks import installed
from fpicore.verify.problem import FRAMEWORKS

pytest.importorskip("rich", reason="the extra cli is not installed")

PROBLEM = """\
import numpy as np
from fpicore.verify import Problem

def f(xp, z, theta):
    return xp.tanh(theta * z) + 1.0

problem = Problem("mine", f, z0=np.zeros(3), args=(np.array([0.1, 0.5, 0.9]),))

def build():
    return problem

wrong = Problem("wrong", f, z0=np.zeros(3), args=(np.array([0.1, 0.5, 0.9]),), exact=np.ones(3))

jumpy = Problem("jumpy", lambda xp, z: 3.0 * z + 1.0, z0=np.zeros(2), max_steps=20)

liar = Problem("liar", f, z0=np.zeros(3), args=(np.array([0.1, 0.5, 0.9]),),
               excluded={"picard": "said to diverge"})

raising = Problem("raising", lambda xp, z: 1 / 0, z0=np.zeros(2))

per_framework = Problem(
    "per framework",
    {"numpy": lambda z, t: np.tanh(t * z) + 1.0, "torch": lambda z, t: (t * z).tanh() + 1.0},
    z0=np.zeros(3),
    args=(np.array([0.1, 0.5, 0.9]),),
)

number = 3
"""
DRIFTING = """\
import numpy as np
from fpicore.verify import Problem

def exact(z, t):
    return np.tanh(t * z) + 1.0

def drifting(z, t):
    return (t * z).tanh() + 1.0 + 1e-6

problem = Problem("drifting", {"numpy": exact, "torch": drifting}, z0=np.zeros(2),
                  args=(np.array([0.1, 0.5]),))
"""


def as_a_user(*arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process that has imported nothing yet."""
    command = [sys.executable, "-m", "fpicore", "verify", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def verify(*arguments: str, folder: Path = Path()) -> subprocess.CompletedProcess[str]:
    """In this process, where the frameworks are imported."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), chdir(folder):
        status = main(["verify", *arguments])
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(PROBLEM)
    (tmp_path / "drifting.py").write_text(DRIFTING)
    return tmp_path


def test_every_framework_and_solver(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """The main job on one problem: exit status, table, JSON."""
    named = pytestconfig.getoption("--backend") or [n for n in FRAMEWORKS if installed(n)]
    report = tmp_path / "report.json"
    backends = [part for name in named for part in ("--backend", name)]
    done = as_a_user("--problem", "tanh", "--json", str(report), *backends)
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads(report.read_text())
    assert content["passed"] is True
    assert sorted(content["environment"]["frameworks"]) == sorted(named)
    _check_report(content, named)
    for word in (*named, "tanh", "picard", "anderson", "broyden", "newton", "All right"):
        assert word in done.stdout


def _check_report(content: dict[str, Any], named: list[str]) -> None:
    checks = {(c["problem"], c["framework"], c["solver"]): c for c in content["checks"]}
    assert len(checks) == len(named) * 4 == len(content["checks"])
    for check in checks.values():
        assert check["verdict"] == "ok"
        assert check["gradient_error"] <= 1e-9
        assert check["value_error"] <= 1e-9
        assert check["evaluations"] == check["steps"] + 1
    if len(named) > 1:
        assert len(content["agreements"]) == 4
    for agreement in content["agreements"]:
        assert agreement["passed"]
        assert max(agreement["value_error"], agreement["gradient_error"]) <= 1e-10
    assert {r["problem"] for r in content["references"]} == {"tanh"}


def test_what_does_not_apply(tmp_path: Path) -> None:
    """Plain steps from a map that expands are not asked to converge."""
    report = tmp_path / "report.json"
    done = verify("--problem", "expansive-1", "--backend", "numpy", "--json", str(report))
    assert done.returncode == 0, done.stdout + done.stderr
    checks = json.loads(report.read_text())["checks"]
    assert {c["solver"] for c in checks if c["verdict"] == "n/a"} == {"picard"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_quick_run_in_numpy(dtype: str) -> None:
    done = verify(
        "--backend", "numpy", "--solver", "anderson", "--problem", "affine", "--dtype", dtype
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert dtype in done.stdout


@pytest.mark.parametrize("target", ["mine.py:problem", "mine.py:build"])
def test_own_problem(mine: Path, target: str) -> None:
    done = verify(target, "--backend", "numpy", folder=mine)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mine" in done.stdout


@pytest.mark.framework("numpy", "torch")
def test_own_problem_per_framework(mine: Path) -> None:
    pytest.importorskip("torch")
    done = verify("mine.py:per_framework", "--backend", "numpy", "--backend", "torch", folder=mine)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.framework("numpy", "torch")
def test_frameworks_that_disagree(mine: Path) -> None:
    """The same problem, written differently in two frameworks by a part in a million."""
    pytest.importorskip("torch")
    arguments = ["--backend", "numpy", "--backend", "torch", "--json", "report.json"]
    done = verify("drifting.py:problem", *arguments, folder=mine)
    assert done.returncode == 1, done.stdout + done.stderr
    content = json.loads((mine / "report.json").read_text())
    assert not any(agreement["passed"] for agreement in content["agreements"])
    assert "FAILED" in done.stdout


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("wrong", "misses the exact answer"),
        ("jumpy", "not converged"),
        ("liar", "must not converge, and must say so"),
        ("raising", "ZeroDivisionError"),
    ],
)
def test_wrong_problem(mine: Path, name: str, word: str) -> None:
    report = mine / "report.json"
    arguments = ["--solver", "picard", "--backend", "numpy", "--json", str(report)]
    done = verify(f"mine.py:{name}", *arguments, folder=mine)
    assert done.returncode == 1, done.stdout + done.stderr
    assert word in done.stdout
    assert "FAILED" in done.stdout
    assert json.loads(report.read_text())["passed"] is False


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--backend", "mxnet"], "expected --backend to be one of numpy, torch, jax, tensorflow"),
        (["--solver", "newton"], "expected --solver to be one of"),
        (["--problem", "none"], "expected --problem to be one of"),
        (["--dtype", "int8"], "invalid choice"),
        (["--frobnicate"], "unrecognized arguments"),
        (["mine.py"], "expected FILE.py:NAME, received 'mine.py'"),
        (["missing.py:problem"], "missing.py"),
        (["mine.py:other"], "it defines the problems problem, wrong"),
        (["mine.py:number"], "expected mine.py:number to be a Problem"),
        (["mine.py:problem", "--problem", "affine"], "received both"),
        (["--json", "nowhere/report.json"], "existing folder"),
        (["--mode", "xla", "--backend", "numpy"], "expected --mode"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_cannot_be_carried_out(mine: Path, arguments: list[str], word: str) -> None:
    done = verify(*arguments, folder=mine)
    assert done.returncode == 2, done.stdout + done.stderr
    assert word in " ".join(done.stderr.split())


def test_exit_status_of_the_process() -> None:
    done = as_a_user("--backend", "mxnet")
    assert done.returncode == 2
    assert done.stderr.startswith("fpicore verify: expected --backend")
    assert not done.stdout


def test_missing_backend_is_an_error_when_named_and_listed_when_not(tmp_path: Path) -> None:
    """A framework hidden from the interpreter stands for one that is not installed."""
    hide = (
        "import importlib.util as u, sys\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name in HIDDEN else find(name, *a)\n"
        "from fpicore.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    script = tmp_path / "hidden.py"
    script.write_text("HIDDEN = ('torch', 'jax', 'tensorflow')\n" + hide)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(script), "verify", "--problem", "expansive-1", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    named = run("--backend", "torch")
    assert named.returncode == 2
    assert 'pip install "fpicore[torch]"' in " ".join(named.stderr.split())
    unnamed = run()
    assert unnamed.returncode == 0, unnamed.stdout + unnamed.stderr
    for name in ("torch", "jax", "tensorflow"):
        assert f"{name}: not installed" in unnamed.stdout


def test_list_and_help() -> None:
    listed = verify("--list")
    assert listed.returncode == 0
    for word in ("numpy", "tensorflow", "anderson", "broyden", "digits", "nested"):
        assert word in listed.stdout
    shown = verify("--help")
    assert shown.returncode == 0
    for option in ("--backend", "--solver", "--dtype", "--json", "FILE.py:NAME"):
        assert option in shown.stdout


def test_installed_command() -> None:
    command = Path(sys.executable).with_name("fpicore")
    if not command.exists():
        pytest.skip("the package is not installed with its command")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("fpicore ")
