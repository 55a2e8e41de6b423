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


def resumed(record: dict[str, Any], path: Path | None) -> dict[str, Any]:
    """The record, with the runs that the file holds already, if its head is the same.

    Raises:
        ValueError: the file is the record of something else.
    """
    if path is None or not path.exists():
        return record
    found = json.loads(path.read_text(encoding="utf-8"))
    for name, expected in json.loads(json.dumps({**record, "runs": []})).items():
        if name != "runs" and found.get(name) != expected:
            raise ValueError(
                f"expected {name} {expected} in {path}, to which runs are added, received "
                f"{found.get(name)}; give another file"
            )
    return {**record, "runs": found["runs"]}


def done(record: dict[str, Any], model: str, seed: int | None = None) -> bool:
    """Whether the record holds that run."""
    return any((run["model"], run.get("seed")) == (model, seed) for run in record["runs"])


def named_results(pattern: str) -> dict[str, dict[str, Any]]:
    """The records in benchmarks/results of such file names, in their order."""
    paths = sorted((FOLDER / "results").glob(pattern))
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def results(pattern: str) -> list[dict[str, Any]]:
    """The same without the names."""
    return list(named_results(pattern).values())
