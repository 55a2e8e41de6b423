"""The records of measurements: what they say of the machine that made them, and where they are."""

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1]


def machine(framework: str) -> dict[str, str]:
    """Processor and versions."""
    return {
        "processor": processor(),
        "python": platform.python_version(),
        "numpy": version("numpy"),
        framework: version(framework),
    }


def processor() -> str:
    """Its name, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def named_results(pattern: str) -> dict[str, dict[str, Any]]:
    """The records in benchmarks/results of such file names, in their order."""
    paths = sorted((FOLDER / "results").glob(pattern))
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def results(pattern: str) -> list[dict[str, Any]]:
    """The same without the names."""
    return list(named_results(pattern).values())
