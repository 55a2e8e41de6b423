"""Which libraries there are, in which framework, and whether they are installed."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, NamedTuple


class Library(NamedTuple):
    """Where its cases are."""

    framework: str
    distribution: str
    """Whose version the record states; also what has to be there."""
    module: str = ""
    cases: str = "bare_cases"

    def load(self) -> Any:
        """A function of the problem that lists the cases."""
        return getattr(import_module(f".{self.module}", __package__), self.cases)


LIBRARIES = {
    "fpicore-torch": Library("torch", "torch", "torch_libraries", "fpicore_cases"),
    "torchdeq": Library("torch", "torchdeq", "torch_libraries", "torchdeq_cases"),
    "xitorch": Library("torch", "xitorch", "torch_libraries", "xitorch_cases"),
    "bare-torch": Library("torch", "torch", "torch_libraries"),
    "fpicore-jax": Library("jax", "jax", "jax_libraries", "fpicore_cases"),
    "jaxopt": Library("jax", "jaxopt", "jax_libraries", "jaxopt_cases"),
    "optimistix": Library("jax", "optimistix", "jax_libraries", "optimistix_cases"),
    "banax": Library("jax", "banax", "jax_libraries", "banax_cases"),
    "bare-jax": Library("jax", "jax", "jax_libraries"),
    "fpicore-tensorflow": Library(
        "tensorflow", "tensorflow", "tensorflow_libraries", "fpicore_cases"
    ),
    "bare-tensorflow": Library("tensorflow", "tensorflow", "tensorflow_libraries"),
    "fpicore-tensorflow-eager": Library(
        "tensorflow-eager", "tensorflow", "tensorflow_libraries", "eager_cases"
    ),
    "fpicore-numpy": Library("numpy", "numpy", "numpy_libraries", "fpicore_cases"),
    "scipy": Library("numpy", "scipy", "numpy_libraries", "scipy_cases"),
    "bare-numpy": Library("numpy", "numpy", "numpy_libraries"),
}


def chosen(names: list[str] | None) -> tuple[list[str], list[str]]:
    """Libraries to measure, and those of all that are not installed.

    Raises:
        ValueError: a library that was named is unknown or not installed.
    """
    for name in names or ():
        if name not in LIBRARIES:
            raise ValueError(f"expected libraries of {(*LIBRARIES,)}, received {name!r}")
    absent = [name for name in LIBRARIES if not is_installed(name)]
    missing = [name for name in names or () if name in absent]
    if missing:
        raise ValueError(f'{missing} not installed: pip install "fpicore[bench]", or leave it out')
    return [name for name in names or LIBRARIES if name not in absent], absent


def is_installed(name: str) -> bool:
    """Whether its module can be imported."""
    return find_spec(LIBRARIES[name].distribution) is not None


def versions(names: list[str]) -> dict[str, str]:
    """Of what these libraries are and stand on."""
    found = {}
    for name in names:
        library = LIBRARIES[name]
        for distribution in (library.framework.removesuffix("-eager"), library.distribution):
            try:
                found[distribution] = version(distribution)
            except PackageNotFoundError:
                found[distribution] = "unknown"
    return found
