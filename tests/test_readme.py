"""Every code block of README.md, executed."""

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from fpicore.verify.frameworks import installed
from fpicore.verify.problem import FRAMEWORKS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELL = ("bash", "console", "sh", "shell")


class Block(NamedTuple):
    line: int
    language: str
    text: str


def blocks(*languages: str) -> list[Block]:
    if not README.exists():
        return []
    source = README.read_text(encoding="utf-8")
    found = [
        Block(source.count("\n", 0, match.start()) + 1, match[1], match[2])
        for match in FENCE.finditer(source)
    ]
    return [block for block in found if block.language in languages]


def commands() -> list[str]:
    """The lines of shell blocks that are commands: those after a $, if there is any."""
    found: list[str] = []
    for block in blocks(*SHELL):
        lines = block.text.splitlines()
        if any(line.startswith("$ ") for line in lines):
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        found += [line.split("  #")[0].strip() for line in lines]
    return [line for line in found if line and not line.startswith("#")]


def test_readme_exists_and_shows_every_backend() -> None:
    assert README.exists()
    text = "".join(block.text for block in blocks("python"))
    for name in FRAMEWORKS:
        assert f"import fpicore_{name}" in text


def libraries() -> dict[str, list[Block]]:
    """The Python blocks by the package that they import; Keras runs on TensorFlow, beside it."""
    found: dict[str, list[Block]] = {}
    for block in blocks("python", "py"):
        match = re.search(r"^import (fpicore_\w+)", block.text, re.MULTILINE)
        package = match[1] if match else "fpicore"
        if package == "fpicore_keras" and installed("keras") and installed("tensorflow"):
            package = "fpicore_tensorflow"
        found.setdefault(package, []).append(block)
    return found


@pytest.mark.parametrize("package", libraries())
def test_python(package: str, tmp_path: Path) -> None:
    """In a process for each package, with warnings as errors where they are ours."""
    if not installed(package.removeprefix("fpicore_")) and package != "fpicore":
        pytest.skip(f"{package} lacks its framework")
    scripts = []
    for block in libraries()[package]:
        scripts.append(tmp_path / f"line{block.line}.py")
        scripts[-1].write_text(block.text, encoding="utf-8")
    each = "import runpy, sys; [runpy.run_path(path, run_name='__main__') for path in sys.argv[1:]]"
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning:__main__", "-c", each, *map(str, scripts)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def make_targets() -> set[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][a-z-]*):", text, re.MULTILINE))


@pytest.mark.parametrize("command", commands())
def test_shell(command: str, tmp_path: Path) -> None:
    """Targets, extras, files and options exist; nothing is installed or run at length."""
    words = command.split()
    while "=" in words[0] and not words[0].startswith("-"):
        words = words[1:]
    program = Path(words[0]).name
    if program == "make":
        for target in words[1:]:
            assert "=" in target or target in make_targets()
    elif program == "fpicore" or words[:3] == ["python", "-m", "fpicore"]:
        _check_options(words[1:] if program == "fpicore" else words[3:])
    elif "pip" in (program, *words):
        _check_install(command)
    elif "pytest" in command:
        assert all((ROOT / w.split("::")[0]).exists() for w in words if w.startswith("tests/"))
    elif program == "python" or program == "python3":
        assert words[1] == "-m" or words[1] == "-c" or (ROOT / words[1]).exists()
    else:
        assert program in ("git", "cd", "source", "."), f"no rule to check {command!r}"


def _check_options(words: list[str]) -> None:
    """Every option that follows ``fpicore verify`` is one that its help names."""
    shown = subprocess.run(
        [sys.executable, "-m", "fpicore", *words[:1], "--help"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for word in words[1:]:
        if word.startswith("-"):
            assert re.search(rf"(^|[\s,\[]){re.escape(word.split('=')[0])}\b", shown), word


def _check_install(command: str) -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extras in re.findall(r"(?:fpicore|\.)\[([a-z,]+)\]", command):
        assert set(extras.split(",")) <= set(project["optional-dependencies"])
    for path in re.findall(r"(?:-c|--constraint|-r)[ =](\S+)", command):
        assert (ROOT / path).exists()
