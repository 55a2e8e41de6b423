"""What a record of measurements says of the machine that made them."""

import platform
from importlib.metadata import version
from pathlib import Path


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
