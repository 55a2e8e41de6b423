"""XLA without its optimiser: most of a test's time in JAX and TensorFlow is compilation.

The programs, and what is asked of them, are the same; LLVM is told not to polish machine code that
runs once. XLA_FLAGS in the environment, even empty, are left as they are:
``XLA_FLAGS= make test`` runs everything optimised.
"""

import os
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fpicore.verify.frameworks import version

QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
PINNED = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
"""Halves what is left; versions differ in whether they have them, and end the process if not."""
MAPS, MOST = Path("/proc/self/maps"), 4_000
CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"


def quicken() -> None:
    """Set XLA_FLAGS for this process and its children, unless they are set."""
    if "XLA_FLAGS" not in os.environ:
        os.environ["XLA_FLAGS"] = f"{QUICK} {PINNED}" if _constrained() else QUICK


def _constrained() -> bool:
    """Whether the frameworks with XLA are of the versions in constraints.txt."""
    pinned = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    found = {name: version(name) for name in ("jaxlib", "tensorflow")}
    return all(f"{name}=={found[name]}" in pinned for name in found if found[name])


def forget() -> None:
    """Drop what JAX compiled once it is much: programs map memory, and a process has 65530 maps.

    Until then a module finds the operations compiled that those before it ran one by one.
    """
    import jax

    if not MAPS.exists() or MAPS.read_bytes().count(b"\n") > MOST:
        jax.clear_caches()


def compilations(caplog: Any) -> list[str]:
    """What JAX has said of programs that it compiled, under ``jax.log_compiles``."""
    return [r.getMessage() for r in caplog.records if "XLA compilation" in r.getMessage()]


def polish(framework: Any) -> Any:
    """An experiment's framework, with the optimiser: its training runs long enough to pay."""
    jax = getattr(framework, "_jax", None)
    if jax is not None:
        options = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
        if _constrained():
            options["xla_cpu_use_fusion_emitters"] = True
        jit = partial(jax.jit, compiler_options=options)
        framework._jax = SimpleNamespace(**{**vars(jax), "jit": jit})
    return framework
