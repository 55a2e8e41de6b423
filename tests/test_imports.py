"""Who may import whom, read from the source; and what an import may do to the process."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fpicore.verify.frameworks import installed

ROOT = Path(__file__).parents[1]
FRAMEWORKS = {"torch": "torch", "jax": "jax", "tensorflow": "tensorflow", "numpy": "numpy"}
FOREIGN = {"torch", "jax", "jaxlib", "tensorflow", "keras", "flax", "equinox", "array_api_compat"}
BASE = {"_errors"}
STATE = BASE | {"_ops", "_solution", "_options", "_numbers"}
LOOP = STATE | {"_tree", "_stopping", "_solver", "_reporting"}
ENTRY = LOOP | {"_iterate", "_watch", "_adjoint", "_problem", "_backend", "_entry", "adjoints"}
ALLOWED: dict[str, set[str]] = {
    "_errors": set(),
    "_ops": BASE,
    "_solution": BASE,
    "_options": BASE,
    "_snapshot": set(),
    "_numbers": BASE | {"_ops"},
    "_host": BASE | {"_ops"},
    "_arrays": {"_host", "_tree"},
    "_tree": STATE,
    "_solver": STATE | {"_tree"},
    "_stopping": STATE | {"_tree"},
    "_reporting": STATE,
    "_extras": BASE,
    "_progress": BASE | {"_extras", "_watch"},
    "_plot": BASE | {"_extras", "_solution"},
    "_iterate": LOOP,
    "_problem": LOOP | {"_backend", "_snapshot"},
    "_adjoint": LOOP | {"_iterate", "_problem", "_backend"},
    "_linear": LOOP | {"_iterate"},
    "_watch": LOOP | {"_iterate"},
    "_backend": LOOP | {"_iterate", "_adjoint", "_problem"},
    "_entry": ENTRY,
    "_compact": ENTRY,
    "_packed": ENTRY,
    "_fixed_point": ENTRY | {"_compact"},
    "_adjoint_solve": ENTRY,
    "_implicit": ENTRY,
    "_arnoldi": LOOP,
    "_secants": LOOP,
    "_search": LOOP | {"_secants"},
    "_chain": LOOP | {"_secants"},
    "_diagnostics": ENTRY | {"_arnoldi"},
    "layers": ENTRY | {"solvers"},
    "maps": STATE | {"_tree", "_snapshot", "_backend"},
    "_bind": LOOP
    | {"_backend", "_fixed_point", "_adjoint_solve", "_implicit", "_diagnostics", "maps"}
    | {"solvers"},
}
"""What each module of the core may import of the core; solvers and verify have their own rules."""
NUMPY_ALLOWED = {"_host", "_arrays"}
COMPOSED = {
    "newton_krylov": {"gmres"},
    "auto": {"broyden", "gmres", "newton_krylov"},
}
"""Solvers that are made of others."""


def core_modules() -> list[str]:
    return sorted(p.stem for p in (ROOT / "fpicore").glob("*.py") if not p.stem.startswith("__"))


def imports(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(module, names) of every import, relative ones made absolute."""
    package = _dotted(path.parent)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ()
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module, tuple(alias.name for alias in node.names)


def _dotted(folder: Path) -> list[str]:
    parts = list(folder.relative_to(ROOT).parts)
    return parts[1:] if parts[0] == "backends" else parts


def own(path: Path) -> set[str]:
    """Modules of fpicore that a file imports, without the prefix; names of a package count."""
    found = set()
    for module, names in imports(path):
        if module == "fpicore":
            found |= set(names) or {""}
        elif module.startswith("fpicore."):
            found.add(module.removeprefix("fpicore."))
    return found


def foreign(path: Path) -> set[str]:
    return {module.partition(".")[0] for module, _ in imports(path)} & (FOREIGN | {"numpy"})


def test_every_core_module_has_a_rule() -> None:
    assert set(core_modules()) == set(ALLOWED)


@pytest.mark.parametrize("name", core_modules())
def test_core(name: str) -> None:
    path = ROOT / "fpicore" / f"{name}.py"
    imported = {module.partition(".")[0] for module in own(path)}
    assert imported <= ALLOWED[name]
    assert foreign(path) <= ({"numpy"} if name in NUMPY_ALLOWED else set())


@pytest.mark.parametrize("path", sorted((ROOT / "fpicore/solvers").glob("[a-z]*.py")), ids=str)
def test_solver(path: Path) -> None:
    """Mathematics only: not the loop, the entry or the adjoint, no arrays; and no other solver,
    but for one that is composed of them."""
    allowed = (LOOP | {"_secants", "_search", "_chain"}) - {"_solution", "_stopping"}
    allowed = allowed | {f"solvers.{part}" for part in COMPOSED.get(path.stem, ())}
    assert {m if m.startswith("solvers.") else m.partition(".")[0] for m in own(path)} <= allowed
    assert not foreign(path)


@pytest.mark.parametrize("path", sorted((ROOT / "fpicore/adjoints").glob("[a-z]*.py")), ids=str)
def test_adjoint(path: Path) -> None:
    """Strategies know the loop and the solvers, not the entries and not each other."""
    allowed = LOOP | {
        "_iterate",
        "_linear",
        "_watch",
        "_adjoint",
        "_problem",
        "_backend",
        "solvers",
    }
    assert {module.partition(".")[0] for module in own(path)} <= allowed
    assert not foreign(path)


def test_verify_is_not_used_by_the_core() -> None:
    for name in core_modules():
        assert not any(
            m.startswith(("verify", "commands")) for m in own(ROOT / "fpicore" / f"{name}.py")
        )


COMMANDS = [
    p for folder in ("verify", "commands") for p in (ROOT / "fpicore" / folder).glob("*.py")
]


@pytest.mark.parametrize("path", sorted(COMMANDS), ids=str)
def test_verify_imports_no_framework(path: Path) -> None:
    assert foreign(path) <= {"numpy"}


BACKEND_FILES = sorted((ROOT / "backends").glob("fpicore_*/*.py"))


@pytest.mark.parametrize("path", BACKEND_FILES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_backend(path: Path) -> None:
    """Public names of fpicore, its own framework, and no other backend."""
    framework = path.parent.name.removeprefix("fpicore_")
    others = {f"fpicore_{name}" for name in FRAMEWORKS if name != framework}
    modules = {module for module, _ in imports(path)}
    assert not {module.partition(".")[0] for module in modules} & others
    for module in own(path):
        assert not module.startswith("_")
        verifies = path.stem in ("_harness", "_probes")
        assert "." not in module or verifies
        assert module.partition(".")[0] != "verify" or verifies
    companions = {"jaxlib"} if framework == "jax" else set()
    layers = {"flax"} if framework == "jax" and path.stem == "nn" else set()
    assert foreign(path) <= {framework, "numpy"} | companions | layers


@pytest.mark.parametrize("path", BACKEND_FILES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_backend_reaches_no_private_attribute_of_the_core(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "fpicore":
            assert not node.attr.startswith("_"), ast.unparse(node)


def test_the_rule_fails_when_it_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader sees every form that a forbidden import may take."""
    folder = tmp_path / "fpicore" / "solvers"
    folder.mkdir(parents=True)
    broken = folder / "broken.py"
    broken.write_text(
        "from .. import _iterate\nfrom .._fixed_point import bind\nfrom .picard import Picard\n"
        "import fpicore._adjoint\ndef f():\n    import torch.nn\n    from jax import numpy\n"
    )
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    assert own(broken) == {"_iterate", "_fixed_point", "solvers.picard", "_adjoint"}
    assert foreign(broken) == {"torch", "jax"}


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_core_imports_no_framework_at_run_time() -> None:
    code = (
        "import sys, fpicore, fpicore.verify, fpicore.__main__; "
        f"print(sorted({FOREIGN!r} & set(sys.modules)))"
    )
    assert _python(code) == "[]"


def test_jax_backend_imports_no_library_of_layers() -> None:
    if not installed("jax"):
        pytest.skip("jax is not installed")
    assert _python("import sys, fpicore_jax; print('flax' in sys.modules)") == "False"


def test_numpy_backend_imports_no_other_framework() -> None:
    code = f"import sys, fpicore_numpy; print(sorted({FOREIGN!r} & set(sys.modules)))"
    assert _python(code) == "[]"


SWITCHES = {
    "numpy": "(numpy.geterr(), numpy.get_printoptions())",
    "torch": "(torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads(), "
    "torch.are_deterministic_algorithms_enabled(), torch.initial_seed() is not None)",
    "jax": "dict(jax.config.values)",
    "tensorflow": "(tensorflow.config.functions_run_eagerly(), "
    "tensorflow.config.optimizer.get_jit(), tensorflow.keras.backend.floatx())",
}


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_backend_flips_no_global_switch(name: str) -> None:
    if not installed(name):
        pytest.skip(f"{name} is not installed")
    # The compiler is a lazy part of PyTorch that sets an environment variable of its own.
    lazy = "torch._dynamo, " if name == "torch" else ""
    code = (
        f"import warnings, logging, os, {lazy}{name}; "
        f"state = lambda: ({SWITCHES[name]}, list(warnings.filters), dict(os.environ), "
        "logging.root.level, list(logging.root.handlers)); "
        f"before = state(); import fpicore_{name}; print(state() == before)"
    )
    assert _python(code) == "True"
