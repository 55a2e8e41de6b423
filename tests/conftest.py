"""Options, hypothesis profiles, and the fixtures that run one test on every backend.

``pytest --backend torch --backend jax`` runs those two; a backend that is named and not installed
is an error. Without the option every installed backend takes part and the others are skipped.

A test that asks for ``fpi`` (the backend package) or ``lab`` (its tensors and derivatives) runs
once for each backend; one that asks for ``mode`` as well, once for each way that the framework can
run it. ``@pytest.mark.gradients`` leaves out NumPy, which differentiates nothing.
``@pytest.mark.framework("torch")`` is for tests of one framework.
"""

import gc
import os
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from fpicore.verify.frameworks import installed
from fpicore.verify.problem import FRAMEWORKS

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from .compilers import quicken
from .labs import MODES, Lab

quicken()

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=20, database=None)
settings.register_profile(
    "explore",
    deadline=None,
    max_examples=300,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend",
        action="append",
        metavar="NAME",
        help=f"only this backend, one of {', '.join(FRAMEWORKS)} (repeatable)",
    )


def pytest_configure(config: pytest.Config) -> None:
    for line in (
        "framework(name): a test of one framework",
        "gradients: needs automatic differentiation, which NumPy lacks",
        "only(*names): runs in these frameworks only",
        "modes(*names): runs in these modes only, as compilation is slow",
        "bug(reason, **parameters): fails for these parameters, for a known reason",
    ):
        config.addinivalue_line("markers", line)
    for name in config.getoption("--backend") or ():
        if name not in FRAMEWORKS:
            raise pytest.UsageError(f"--backend {name}: expected one of {', '.join(FRAMEWORKS)}")
        if not installed(name):
            raise pytest.UsageError(f"--backend {name}: {name} is not installed")


def _selected(config: pytest.Config) -> list[str]:
    named = config.getoption("--backend")
    return [name for name in FRAMEWORKS if named is None or name in named]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of frameworks that were not named; expect the known bugs."""
    for item in items:
        for bug in item.iter_markers("bug"):
            if _applies(item, bug.kwargs):
                item.add_marker(pytest.mark.xfail(reason=bug.args[0], strict=True))
    selected = _selected(config)
    left_out = [item for item in items if not _wanted(item, selected)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if _wanted(item, selected)]


def pytest_collection_finish() -> None:
    """The frameworks are imported and stay: the collector need not walk through them again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


def _wanted(item: pytest.Item, selected: list[str]) -> bool:
    marker = item.get_closest_marker("framework")
    return marker is None or set(marker.args) <= set(selected)


def _applies(item: Any, conditions: Mapping[str, Any]) -> bool:
    """Whether every named parameter has the value, or one of the values."""
    given = item.callspec.params if hasattr(item, "callspec") else {}
    return all(
        given.get(name) in (value if isinstance(value, tuple) else (value,))
        for name, value in conditions.items()
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "lab" not in metafunc.fixturenames:
        return
    definition = metafunc.definition
    names = _selected(metafunc.config)
    if definition.get_closest_marker("gradients"):
        names = [name for name in names if name != "numpy"]
    only = definition.get_closest_marker("only")
    names = [name for name in names if only is None or name in only.args]
    if "mode" not in metafunc.fixturenames:
        metafunc.parametrize("lab", [_param(name) for name in names], indirect=True)
        return
    marker = definition.get_closest_marker("modes")
    wanted = marker.args if marker else ("eager", "jit", "graph", "xla")
    pairs = [_param(name, m) for name in names for m in MODES[name] if m in wanted]
    metafunc.parametrize(("lab", "mode"), pairs, indirect=["lab"])


def _param(name: str, *mode: str) -> Any:
    missing = pytest.mark.skip(reason=f"{name} is not installed")
    marks = () if installed(name) else (missing,)
    return pytest.param(name, *mode, marks=marks, id="-".join((name, *mode)))


@pytest.fixture(scope="module")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Tensors, namespace and derivatives of the backend; float64 is on for JAX."""
    found = Lab(request.param)
    with found.precision():
        yield found
    found.clear()


@pytest.fixture(scope="module")
def fpi(lab: Lab) -> Any:
    """The backend package."""
    return lab.fpi


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stand-in for CUDA under PyTorch's staged steps."""
    from .torch_staged import stand_in

    return stand_in(monkeypatch)
