"""Bad input to fixed_point: one clear error of a documented class, before any work is done."""

import importlib
from typing import Any

import numpy as np
import pytest

from fpicore import InputError, MapError
from fpicore.verify.frameworks import installed
from fpicore.verify.problem import FRAMEWORKS

from .labs import Lab

SHAPE = (2, 3)


class Watched:
    """A map that counts its calls."""

    def __init__(self, change: Any = None) -> None:
        self.calls = 0
        self.change = change or (lambda z: 0.5 * z)

    def __call__(self, z: Any, *args: Any) -> Any:
        self.calls += 1
        return self.change(z)


OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"max_steps": 0}, r"expected max_steps to be an integer >= 1, received max_steps=0"),
    ({"max_steps": -5}, r"max_steps=-5"),
    ({"max_steps": 10.0}, r"max_steps=10\.0"),
    ({"max_steps": True}, r"max_steps=True"),
    ({"max_steps": None}, r"max_steps=None"),
    ({"rtol": -1e-3}, r"expected rtol to be finite and >= 0, received rtol=-0\.001"),
    ({"rtol": float("nan")}, r"rtol=nan"),
    ({"rtol": float("inf")}, r"rtol=inf"),
    ({"rtol": "1e-3x"}, r"expected rtol to be a real number"),
    ({"atol": -1.0}, r"expected atol to be finite and >= 0, received atol=-1\.0"),
    ({"atol": float("nan")}, r"atol=nan"),
    ({"atol": None}, r"atol=None"),
    ({"norm": "l1"}, r"expected norm to be one of .*'l2'.*received 'l1'"),
    ({"norm": 2}, r"expected norm .*received 2"),
    ({"batch_ndim": -1}, r"expected batch_ndim to be an integer >= 0, received batch_ndim=-1"),
    ({"batch_ndim": 1.0}, r"batch_ndim=1\.0"),
    ({"batch_ndim": 3}, r"batch_ndim=3.*received leaf 0 of shape \(2, 3\).*lower batch_ndim"),
    ({"solver": "anderson"}, r"expected solver to be an fpicore solver.*received 'anderson'"),
    ({"solver": dict}, r"expected solver"),
    ({"adjoint": "implicit"}, r"expected adjoint to be an fpicore adjoint.*received 'implicit'"),
    ({"on_failure": "panic"}, r"expected on_failure to be one of .*received 'panic'"),
    ({"args": 3.0}, r"expected args to be a tuple.*received.*args=\(x,\)"),
]


@pytest.mark.parametrize(
    ("options", "message"), OPTIONS, ids=[str(options) for options, _ in OPTIONS]
)
def test_option(lab: Lab, fpi: Any, options: dict[str, Any], message: str) -> None:
    f = Watched()
    with pytest.raises(InputError, match=message):
        fpi.fixed_point(f, lab.tensor(np.ones(SHAPE)), **options)
    assert f.calls == 0


def test_solver_class_instead_of_instance(lab: Lab, fpi: Any) -> None:
    with pytest.raises(InputError, match="expected solver"):
        fpi.fixed_point(Watched(), lab.tensor(np.ones(SHAPE)), solver=fpi.Anderson)


@pytest.mark.parametrize("solver", [0, "", {}], ids=repr)
def test_solver_that_is_false(lab: Lab, fpi: Any, solver: Any) -> None:
    with pytest.raises(InputError, match="expected solver"):
        fpi.fixed_point(Watched(), lab.tensor(np.ones(SHAPE)), solver=solver)


def test_tensor_as_args(lab: Lab, fpi: Any) -> None:
    with pytest.raises(InputError, match=r"expected args to be a tuple.*args=\(x,\)"):
        fpi.fixed_point(Watched(), lab.tensor(np.ones(SHAPE)), lab.tensor(np.ones(2)))


def test_unknown_option(lab: Lab, fpi: Any) -> None:
    with pytest.raises(TypeError, match="tolerance"):
        fpi.fixed_point(Watched(), lab.tensor(np.ones(SHAPE)), tolerance=1e-3)


@pytest.mark.parametrize("f", [None, 3, "map"])
def test_map_that_cannot_be_called(lab: Lab, fpi: Any, f: Any) -> None:
    with pytest.raises(InputError, match=r"expected f to be callable.*received"):
        fpi.fixed_point(f, lab.tensor(np.ones(SHAPE)))


@pytest.mark.parametrize("dtype", ["int32", "int64", "bool"])
def test_integer_state(lab: Lab, fpi: Any, dtype: str) -> None:
    f = Watched()
    with pytest.raises(InputError, match=rf"expected .*floating.*received {dtype}.*cast z0"):
        fpi.fixed_point(f, lab.tensor(np.ones(SHAPE), dtype))
    assert f.calls == 0


@pytest.mark.parametrize("empty", [(), [], {}, {"a": ()}], ids=str)
def test_state_without_leaves(fpi: Any, empty: Any) -> None:
    f = Watched()
    with pytest.raises(InputError, match="expected z0 to hold at least one tensor, received"):
        fpi.fixed_point(f, empty)
    assert f.calls == 0


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_state_without_entries(lab: Lab, fpi: Any, shape: tuple[int, ...]) -> None:
    f = Watched()
    with pytest.raises(InputError, match="expected z0 to have entries, received leaf 0"):
        fpi.fixed_point(f, lab.tensor(np.zeros(shape)), batch_ndim=1)
    assert f.calls == 0


def test_leaves_with_different_batch_axes(lab: Lab, fpi: Any) -> None:
    f = Watched()
    zero = (lab.tensor(np.zeros((2, 3))), lab.tensor(np.zeros((3, 2))))
    with pytest.raises(InputError, match=r"share their 1 batch axes, received shapes.*leaf 1"):
        fpi.fixed_point(f, zero, batch_ndim=1)
    assert f.calls == 0


@pytest.mark.parametrize(
    "other", [None, 1.0, "text", object()], ids=["None", "number", "text", "object"]
)
def test_state_that_is_no_tensor(fpi: Any, other: Any) -> None:
    f = Watched()
    with pytest.raises(InputError, match=r"expected .*received"):
        fpi.fixed_point(f, other)
    assert f.calls == 0


@pytest.mark.parametrize("other", FRAMEWORKS)
def test_tensor_of_another_framework(lab: Lab, fpi: Any, other: str) -> None:
    """NumPy arrays are welcome in JAX and TensorFlow; nothing else is taken for a tensor."""
    if other == lab.name or (other, lab.name) in (("numpy", "jax"), ("numpy", "tensorflow")):
        pytest.skip("the framework's own, or taken as such")
    if not installed(other):
        pytest.skip(f"{other} is not installed")
    stranger = Lab(other).tensor(np.ones(SHAPE), "float32")
    f = Watched()
    with pytest.raises(InputError, match=rf"expected .*received.*{other}"):
        fpi.fixed_point(f, stranger)
    assert f.calls == 0


@pytest.mark.parametrize("other", FRAMEWORKS)
def test_map_into_another_framework(lab: Lab, fpi: Any, other: str) -> None:
    if other == lab.name or not installed(other):
        pytest.skip("the framework's own, or not installed")
    stranger = Lab(other).tensor(np.ones(SHAPE), "float32")
    with pytest.raises(MapError, match=r"expected .*received"):
        fpi.fixed_point(lambda z: stranger, lab.tensor(np.ones(SHAPE), "float64"))


RETURNED = {
    "another shape": lambda lab, z: z[0],
    "a wider shape": lambda lab, z: z[None] + lab.tensor(np.zeros((2, 1, 1))),
    "another dtype": lambda lab, z: lab.tensor(np.zeros(SHAPE), "float32"),
    "integers": lambda lab, z: lab.tensor(np.zeros(SHAPE), "int32"),
    "a list": lambda lab, z: [z],
    "a pair": lambda lab, z: (z, z),
}


@pytest.mark.parametrize("change", RETURNED.values(), ids=RETURNED)
def test_map_of_another_shape_or_dtype(lab: Lab, fpi: Any, change: Any) -> None:
    f = Watched(lambda z: change(lab, z))
    with pytest.raises(MapError, match=r"(?s)expected .*f\(z\).*received|f\(z\).*structure"):
        fpi.fixed_point(f, lab.tensor(np.ones(SHAPE)))
    assert f.calls == 1


@pytest.mark.parametrize("returned", [None, 1.0, "text"])
def test_map_that_returns_no_tensor(lab: Lab, fpi: Any, returned: Any) -> None:
    with pytest.raises(MapError, match=r"(?s)expected .*f\(z\).*received|f\(z\).*structure"):
        fpi.fixed_point(lambda z: returned, lab.tensor(np.ones(SHAPE)))


def test_shape_error_says_what_and_what_to_do(lab: Lab, fpi: Any) -> None:
    with pytest.raises(MapError) as caught:
        fpi.fixed_point(lambda z: z[0], lab.tensor(np.ones(SHAPE)))
    for part in ("leaf 0", "(2, 3)", "(3,)", "float64", "reshape"):
        assert part in str(caught.value)


@pytest.mark.parametrize("returned", ["alone", "triple"])
def test_map_without_aux(lab: Lab, fpi: Any, returned: str) -> None:
    change = {"alone": lambda z: z, "triple": lambda z: (z, z, z)}[returned]
    with pytest.raises(MapError, match=r"expected f\(z\) to return a pair \(z, aux\)"):
        fpi.fixed_point(change, lab.tensor(np.ones(SHAPE)), has_aux=True)


def test_errors_of_the_map_pass_through(lab: Lab, fpi: Any) -> None:
    def f(z: Any) -> Any:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fpi.fixed_point(f, lab.tensor(np.ones(SHAPE)))


@pytest.mark.modes("jit", "graph")
def test_map_error_in_compiled_code(lab: Lab, fpi: Any, mode: str) -> None:
    run = lab.compiled(lambda z: fpi.fixed_point(lambda z: z[0], z).value, mode)
    with pytest.raises(MapError, match=r"expected leaf 0 of f\(z\)"):
        run(lab.tensor(np.ones(SHAPE)))


def test_missing_framework_names_the_extra() -> None:
    """Without the framework the import says what to install."""
    import subprocess
    import sys

    for name in ("torch", "jax", "tensorflow"):
        code = f"import sys; sys.modules[{name!r}] = None; import fpicore_{name}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode != 0
        assert "MissingBackendError" in done.stderr
        assert f'pip install "fpicore[{name}]"' in done.stderr


def test_every_backend_exposes_the_same_names() -> None:
    import fpicore

    names = {name for name in vars(fpicore) if name[0] != "_" and name[0].isupper()}
    for framework in filter(installed, FRAMEWORKS):
        module = importlib.import_module(f"fpicore_{framework}")
        assert names | {"fixed_point", "adjoint_solve"} <= set(vars(module))
