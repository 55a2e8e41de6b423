"""A nested state gives exactly what the flattened one gives."""

from collections import namedtuple
from typing import Any

import numpy as np
import pytest

from fpicore import MapError

from .labs import Lab
from .problems import SOLVERS, problem

Pair = namedtuple("Pair", "first second")


def _flat_map(lab: Lab, f: Any, args: Any) -> Any:
    """The nested problem's map on one vector of its 6 + 4 + 1 entries."""
    xp = lab.xp

    def flat(x: Any) -> Any:
        z = {"field": (xp.reshape(x[:6], (2, 3)), x[6:10]), "level": x[10]}
        new = f(z, *args)
        grid, line = new["field"]
        return xp.concat([xp.reshape(grid, (6,)), line, xp.reshape(new["level"], (1,))], axis=0)

    return flat


@pytest.mark.parametrize(
    ("solver", "norm"),
    [("picard", "max"), ("anderson", "l2"), ("anderson", "rms"), ("broyden", "l2")],
)
def test_nested_equals_flat(lab: Lab, fpi: Any, solver: str, norm: str) -> None:
    table = problem("nested")
    f, args = lab.bind(table), lab.tensor(table.args)
    options = {"solver": SOLVERS[solver], "rtol": 1e-10, "norm": norm}
    nested = fpi.fixed_point(f, lab.tensor(table.z0), args, **options)
    flat = fpi.fixed_point(_flat_map(lab, f, args), lab.tensor(np.zeros(11)), **options)
    assert int(lab.numpy(nested.stats.evaluations)) == int(lab.numpy(flat.stats.evaluations))
    value = lab.numpy(nested.value)
    packed = np.concatenate([value["field"][0].ravel(), value["field"][1], value["level"][None]])
    np.testing.assert_allclose(packed, lab.numpy(flat.value), rtol=1e-9)
    assert float(lab.numpy(nested.stats.residual)) == pytest.approx(
        float(lab.numpy(flat.stats.residual)), rel=1e-2
    )


STRUCTURES = {
    "list": lambda a, b: [a, b],
    "tuple": lambda a, b: (a, b),
    "dict": lambda a, b: {"y": a, "x": b},
    "named tuple": Pair,
    "deep": lambda a, b: {"k": [(a,), {"m": b}]},
}


@pytest.mark.parametrize("build", STRUCTURES.values(), ids=STRUCTURES)
def test_structure_is_kept(lab: Lab, fpi: Any, build: Any) -> None:
    first, second = lab.tensor(np.zeros(2)), lab.tensor(np.zeros((2, 2)))
    zero = build(first, second)
    seen: list[Any] = []

    def f(z: Any) -> Any:
        seen.append(z)
        return build(*[0.5 * leaf + 1.0 for leaf in _leaves(z)])

    value = fpi.fixed_point(f, zero).value
    assert type(value) is type(zero) is type(seen[0])
    for leaf, shape in zip(_leaves(lab.numpy(value)), ((2,), (2, 2)), strict=True):
        np.testing.assert_allclose(leaf, np.full(shape, 2.0), rtol=1e-3)


def _leaves(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        return _leaves([tree[key] for key in ("y", "x", "k", "m") if key in tree])
    if isinstance(tree, (list, tuple)):
        return [leaf for part in tree for leaf in _leaves(part)]
    return [tree]


def test_key_order_of_the_map_does_not_matter(lab: Lab, fpi: Any) -> None:
    zero = {"a": lab.tensor(np.zeros(2)), "b": lab.tensor(np.ones(2))}
    value = fpi.fixed_point(lambda z: {"b": 0.5 * z["b"], "a": 0.5 * z["a"] + 1.0}, zero).value
    np.testing.assert_allclose(lab.numpy(value)["a"], 2.0, rtol=1e-3)
    assert np.all(lab.numpy(value)["b"] < 1e-3)


def test_leaves_of_very_different_size(lab: Lab, fpi: Any) -> None:
    """A residual in the small leaf alone must not be lost: the norm is over all leaves."""
    zero = (lab.tensor(np.zeros(1000)), lab.tensor(np.zeros(())))
    sol = fpi.fixed_point(
        lambda z: (0.0 * z[0], 0.5 * z[1] + 1.0), zero, solver=fpi.Picard(), rtol=1e-6
    )
    assert float(lab.numpy(sol.value[1])) == pytest.approx(2.0, rel=1e-5)


BAD = {
    "a leaf is missing": lambda z: {"a": z["a"]},
    "a key is extra": lambda z: {**z, "c": z["a"]},
    "a leaf instead of a dict": lambda z: z["a"],
    "a leaf became a list": lambda z: {"a": [z["a"]], "b": z["b"]},
}


@pytest.mark.parametrize("leaf", [None, 1.0, "text"])
def test_a_leaf_that_is_no_tensor_is_an_error(lab: Lab, fpi: Any, leaf: Any) -> None:
    zero = {"a": lab.tensor(np.zeros(2)), "b": lab.tensor(np.ones(2))}
    with pytest.raises(MapError, match=r"(?s)expected.*f\(z\).*received|f\(z\).*structure"):
        fpi.fixed_point(lambda z: {"a": z["a"], "b": leaf}, zero)


@pytest.mark.parametrize("f", BAD.values(), ids=BAD)
def test_another_structure_is_an_error(lab: Lab, fpi: Any, f: Any) -> None:
    zero = {"a": lab.tensor(np.zeros(2)), "b": lab.tensor(np.ones(2))}
    with pytest.raises(MapError, match=r"(?s)expected.*f\(z\).*received|f\(z\).*structure"):
        fpi.fixed_point(f, zero)
