"""XLA without its optimiser: most of a test's time in JAX and TensorFlow is compilation.

The programs, and what is asked of them, are the same; LLVM is told not to polish machine code that
runs once. Commands that a test runs as a user does, ``fpicore verify`` and the README, keep the
optimiser. XLA_FLAGS in the environment, even empty, are left as they are:
``XLA_FLAGS= make test`` runs everything optimised.
"""

import mmap
import os
from importlib.util import find_spec
from pathlib import Path

_QUICK = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
)
_LIBRARIES = {
    "jaxlib": ("libjax_common.so", "xla_extension.so"),
    "tensorflow": ("libtensorflow_framework.so.2",),
}


def quicken() -> None:
    """Set XLA_FLAGS for this process and its children, unless they are set."""
    if "XLA_FLAGS" not in os.environ:
        libraries = [path for package in _LIBRARIES for path in _libraries(package)]
        os.environ["XLA_FLAGS"] = " ".join(f for f in _QUICK if _known(f, libraries))


def optimised() -> dict[str, str]:
    """The environment of a user's command."""
    quick = set(os.environ.get("XLA_FLAGS", "").split()) & set(_QUICK)
    kept = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return kept if quick else dict(os.environ)


def _libraries(package: str) -> list[Path | None]:
    """The file that reads XLA_FLAGS, or None where the package has it elsewhere."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return []
    paths = (Path(spec.origin).parent / name for name in _LIBRARIES[package])
    return [next((path for path in paths if path.exists()), None)]


def _known(flag: str, libraries: list[Path | None]) -> bool:
    """Whether every library names the flag: one that does not ends the process."""
    name = flag.lstrip("-").split("=")[0].encode()
    return bool(libraries) and all(path is not None and _names(path, name) for path in libraries)


def _names(path: Path, name: bytes) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(name) >= 0
