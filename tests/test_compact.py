"""Finished systems left out of f: the same answers, bit for bit, from fewer rows."""

import math
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from fpicore import Anderson, Broyden, Implicit, InputError, MapError, Picard, Reversible, Unrolled

from .labs import Lab
from .problems import SOLVERS
from .test_batch import f as cubic
from .test_batch import systems

pytestmark = [
    pytest.mark.only("numpy", "torch", "tensorflow"),
    pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning"),
]
N = 3


def many(count: int, hardest: float = 0.97) -> tuple[np.ndarray, ...]:
    """As `systems`, and more of them, in an order that is not that of their difficulty."""
    random = np.random.default_rng(0)
    rate = np.geomspace(0.02, hardest, count)[random.permutation(count), None] * np.ones((1, N))
    return random.standard_normal((count, N)), rate, 0.1 * random.standard_normal((count, N))


def solve(lab: Lab, solver: Any, compact: Any, arrays: Any, batch_ndim: int = 1) -> dict[str, Any]:
    """What can be told of a solve of z = c·f(z), with c shared by the systems."""
    start, rate, shift = map(lab.tensor, arrays)
    args = ({"rate": rate, "shift": (shift,)}, lab.tensor(np.ones(N)))
    rows = []

    def g(z: Any, data: Any, shared: Any) -> Any:
        rows.append(math.prod(z.shape[:batch_ndim]))
        return shared * cubic(z, data["rate"], data["shift"][0])

    sol = lab.fpi.fixed_point(
        g, start, args, solver=solver, rtol=1e-9, max_steps=300, batch_ndim=batch_ndim,
        compact=compact, on_failure="ignore",
    )  # fmt: skip
    figures = {**sol.stats._asdict(), "value": sol.value, "codes": sol.result.codes}
    known = {key: lab.numpy(x) for key, x in figures.items() if x is not None}
    return {**known, "rows": sum(rows)}


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """But for one evaluation of the whole batch, which confirms the others."""
    assert other["evaluations"] == one["evaluations"] + 1
    for key in one.keys() - {"rows", "evaluations"}:
        np.testing.assert_array_equal(one[key], other[key], err_msg=key)


@pytest.mark.parametrize("way", ["arrays", "tensors"])
@pytest.mark.parametrize("solver", [*SOLVERS, "type I", "bad", "short"])
def test_nothing_else_changes(
    lab: Lab, solver: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lab.name != "numpy":
        module = import_module(f"fpicore_{lab.name}._arrays")
        monkeypatch.setattr(module, "LARGEST", 10**9 if way == "arrays" else 0)
    elif way == "tensors":
        pytest.skip("arrays are NumPy's tensors")
    more = {"type I": Anderson(kind=1), "bad": Broyden(kind="bad"), "short": Broyden(history=2)}
    chosen = SOLVERS.get(solver) or more[solver]
    arrays = many(12)
    arrays[0][5] = np.nan
    plain = solve(lab, chosen, None, arrays)
    compact = solve(lab, chosen, ({"rate": 0, "shift": (0,)}, None), arrays)
    same(plain, compact)
    assert compact["rows"] < plain["rows"]
    assert len(set(plain["steps"].tolist())) > 2


def test_two_batch_axes(lab: Lab) -> None:
    start, rate, shift = [a.reshape(4, 3, N) for a in many(12)]
    arrays = start, rate, shift
    same(*[solve(lab, Anderson(), c, arrays, 2) for c in (None, (0, None))])


def test_systems_that_span_two_orders(lab: Lab) -> None:
    """Each takes the steps that it takes alone, and f a third of the rows or less."""
    count = 64
    evaluations = np.geomspace(5, 450, count)
    start, _, shift = many(count)
    rate = 1e-9 ** (1.0 / evaluations)[:, None] * np.ones((1, N))
    args = lab.tensor(rate), lab.tensor(shift)
    rows = []

    def f(z: Any, rate: Any, shift: Any) -> Any:
        rows.append(z.shape[0])
        return rate * z + shift

    def run(z0: Any, *args: Any) -> Any:
        return lab.fpi.fixed_point(
            f, z0, args, solver=Picard(), rtol=1e-9, max_steps=1000, batch_ndim=1, compact=0
        )

    sol = run(lab.tensor(start), *args)
    steps = lab.numpy(sol.stats.steps)
    assert steps.max() > 60 * steps.min()
    assert sum(rows) < count * int(sol.stats.evaluations) / 3
    for i in (0, 20, 40, count - 1):
        one = run(lab.tensor(start[i : i + 1]), *[x[i : i + 1] for x in args])
        assert lab.numpy(one.stats.steps)[0] == steps[i]


@pytest.mark.gradients
def test_the_gradient_is_that_of_the_whole_batch(lab: Lab) -> None:
    start, rate, shift = many(8, hardest=0.8)

    def loss(compact: Any) -> Any:
        def objective(rate: Any, shift: Any) -> Any:
            sol = lab.fpi.fixed_point(
                cubic, lab.tensor(start), (rate, shift), rtol=1e-10, batch_ndim=1, compact=compact
            )
            return lab.xp.sum(sol.value**2)

        return objective

    found = [lab.gradient(loss(compact), rate, shift) for compact in (None, 0)]
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
        assert np.abs(one).min() > 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_ndim": 0}, "batch_ndim >= 1"),
        ({"compact": (0,)}, "each of the 2 args"),
        ({"compact": 1}, "each of the 2 args"),
        ({"compact": (0, 1)}, "structure of them like that of args"),
        ({"compact": (0, {"a": 0})}, "structure of them like that of args"),
        ({"args": (np.ones((4, 3)), np.ones((3, 4)))}, r"args\[1\] to be a tensor that begins"),
        ({"args": (np.ones((4, 3)), [2.0])}, r"args\[1\]\[0\] to be a tensor"),
        ({"adjoint": Unrolled()}, "begins at the answer"),
        ({"adjoint": Reversible()}, "begins at the answer"),
        ({"adjoint": Implicit(reuse=True)}, "begins at the answer"),
        ({"trace": True}, "trace without it"),
        ({"callback": print}, "trace without it"),
    ],
)
@pytest.mark.only("numpy")
def test_what_cannot_be_compacted_is_an_error(lab: Lab, options: Any, message: str) -> None:
    start, rate, shift = systems(0, 0.5)
    given = {"args": (rate, shift), "batch_ndim": 1, "compact": 0, **options}
    with pytest.raises(InputError, match=message):
        lab.fpi.fixed_point(cubic, start, **given)


@pytest.mark.only("numpy")
def test_budget(lab: Lab) -> None:
    """A budget stops the systems that are left, and those alone."""
    given = systems(0, 0.5)
    whole, part = (
        lab.fpi.fixed_point(
            cubic, given[0], given[1:], batch_ndim=1, budget=4, on_failure="ignore", **options
        )
        for options in ({}, {"compact": 0})
    )
    assert 0 < part.converged.sum() < part.converged.size
    assert part.stats.steps.tolist() == whole.stats.steps.tolist()
    assert part.value.tolist() == whole.value.tolist()


@pytest.mark.only("numpy")
def test_a_map_that_goes_by_the_place_of_a_system_is_an_error(lab: Lab) -> None:
    start, rate, shift = many(12)
    with pytest.raises(MapError, match="same with compact as without"):
        lab.fpi.fixed_point(
            lambda z, rate: rate * z + shift[: len(z)], start, (rate,), solver=Picard(),
            max_steps=500, batch_ndim=1, compact=0,
        )  # fmt: skip


@pytest.mark.only("torch")
def test_dropout_is_an_error(lab: Lab) -> None:
    """Its one mask is for the whole batch."""
    import torch

    start, rate, shift = map(lab.tensor, many(12))
    drop = torch.nn.Dropout(0.5)
    with pytest.raises(MapError, match="draw no random numbers"):
        lab.fpi.fixed_point(
            lambda z, rate, shift: rate * z + drop(shift), start, (rate, shift), solver=Picard(),
            max_steps=500, batch_ndim=1, compact=0,
        )  # fmt: skip


@pytest.mark.only("jax", "tensorflow")
def test_traced_code_is_refused(lab: Lab) -> None:
    def run(start: Any, rate: Any, shift: Any) -> Any:
        return lab.fpi.fixed_point(cubic, start, (rate, shift), batch_ndim=1, compact=0).value

    traced = "eager" if lab.name == "jax" else "graph"
    with pytest.raises(InputError, match="Python cannot look at the values"):
        lab.run(run, *systems(0, 0.5), mode=traced)


@pytest.mark.only("torch")
def test_torch_transforms_are_refused(lab: Lab) -> None:
    import torch

    start, rate, shift = map(lab.tensor, systems(0, 0.5))

    def run(rate: Any) -> Any:
        return lab.fpi.fixed_point(cubic, start, (rate, shift), batch_ndim=1, compact=0).value

    with pytest.raises(InputError, match=r"torch\.func"):
        torch.func.jacrev(run)(rate)
