"""PyTorch: staged steps give what eager steps give, whatever has changed since they were made.

Programs run as FX graphs: inductor takes seconds, and a CUDA graph a GPU.
"""

import copy
import gc
import threading
import weakref
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import fpicore_torch as fpi  # noqa: E402
from fpicore_torch import _programs, _staged  # noqa: E402

from .accelerators import Stand  # noqa: E402
from .torch_staged import (  # noqa: E402
    HOWS,
    OPTIONS,
    Layer,
    both,
    check,
    check_independence,
    given,
    start,
)

pytestmark = pytest.mark.framework("torch")

CASES = [
    (fpi.Picard(), 0, "compiled"),
    (fpi.Picard(0.9), 1, "captured"),
    (fpi.Anderson(3), 0, "captured"),
    (fpi.Anderson(2, 0.9), 1, "compiled"),
    (fpi.Anderson(2, kind=1), 0, "compiled"),
    (fpi.Broyden(3), 1, "captured"),
    (fpi.Broyden(4, "bad"), 0, "compiled"),
]


@pytest.mark.parametrize(("solver", "batch_ndim", "how"), CASES, ids=str)
def test_as_the_eager_step(solver: Any, batch_ndim: int, how: str, stand: Stand) -> None:
    layer = Layer()
    check(layer, fpi.Staged(layer, how), given(), solver=solver, batch_ndim=batch_ndim)
    assert min(stand.behind) > _programs.AHEAD
    assert bool(stand.replayed) == (how == "captured")


def test_several_steps_in_a_program(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last ones come after the end, and change nothing."""
    monkeypatch.setattr(_staged, "TOGETHER", dict.fromkeys(HOWS, 3))
    slopes = torch.linspace(-0.7, 0.7, 5, dtype=torch.float64)
    known = None
    for most in range(5, 8):
        f = fpi.Staged(lambda z: slopes * z + 1.0)
        zero = torch.zeros(5, dtype=torch.float64)
        options = {"solver": fpi.Anderson(2), "on_failure": "ignore", "max_steps": most}
        sol = fpi.fixed_point(f, zero, rtol=1e-13, **options)
        expected = fpi.fixed_point(f.f, zero, rtol=1e-13, **options)
        assert sol.stats.evaluations == expected.stats.evaluations == most + 1
        torch.testing.assert_close(sol.value, expected.value)
        assert known is None or not torch.equal(known, sol.value)
        known = sol.value


@pytest.mark.parametrize("how", HOWS)
def test_never_stale(how: str, stand: Stand) -> None:
    """Args, parameters in place and replaced, numbers, other shapes."""
    layer = Layer()
    f = fpi.Staged(layer, how)
    check(layer, f, given())
    known = stand.captured
    check(layer, f, given(seed=2))
    with torch.no_grad():
        layer.weight.mul_(-0.5)
    check(layer, f, given())
    assert stand.captured == known  # nothing was made anew
    layer.weight = torch.nn.Parameter(layer.weight.detach() + 0.01)
    check(layer, f, given())
    layer.gain = 0.7
    check(layer, f, given())
    check(layer, f, given(rows=3))


def test_hooks_that_come_and_go(stand: Stand) -> None:
    linear = torch.nn.Linear(3, 3).double()
    zero = torch.zeros(3, dtype=torch.float64)
    f = fpi.Staged(lambda z: 0.1 * torch.tanh(linear(z)) + 1.0)
    for hook in (None, lambda module, given, out: 3.0 * out, None):
        handle = hook and linear.register_forward_hook(hook)
        found = [fpi.fixed_point(g, zero, rtol=1e-12).value for g in (f, f.f)]
        torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=0.0)
        if handle:
            handle.remove()


@pytest.mark.parametrize("how", HOWS)
def test_closures_are_looked_at_again(how: str, stand: Stand) -> None:
    slope, shift = torch.tensor(0.5), 1.0
    f = fpi.Staged(lambda z: slope * z + shift, how)
    found = []
    for slope, shift in ((torch.tensor(0.5), 1.0), (torch.tensor(-0.5), 1.0), (slope, 3.0)):  # noqa: B007, B020
        found.append(fpi.fixed_point(f, torch.zeros(3), rtol=1e-6).value[0].item())
    torch.testing.assert_close(found, [2.0, 2.0 / 3.0, 6.0], rtol=1e-5, atol=0.0)


def test_more_kinds_than_dynamo_allows(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_staged._DYNAMO, "cache_size_limit", 10)
    f = fpi.Staged(lambda z: 0.5 * z + 1.0)
    for size in range(2, 12):
        sol = fpi.fixed_point(f, torch.zeros(size))
        torch.testing.assert_close(sol.value, torch.full((size,), 2.0), rtol=1e-3, atol=0.0)
    with pytest.raises(fpi.MapError, match="kinds"):
        fpi.fixed_point(f, torch.zeros(12))


@pytest.mark.parametrize("adjoint", [fpi.Neumann(4), fpi.OneStep(), fpi.Implicit(reuse=True),
                                     fpi.Implicit(solver=fpi.GMRES(5))], ids=str)  # fmt: skip
def test_adjoints(adjoint: Any, stand: Stand) -> None:
    layer = Layer()
    check(layer, fpi.Staged(layer), given(), adjoint=adjoint)


def test_unrolled_and_higher_derivatives_evaluate_f_as_it_stands(stand: Stand) -> None:
    layer = Layer()
    check(layer, fpi.Staged(layer), given(), adjoint=fpi.Unrolled())
    x = given()

    def curvature(f: Any) -> Any:
        value = fpi.fixed_point(f, start(), (x,), **OPTIONS).value["a"]
        (first,) = torch.autograd.grad(value.square().sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), x)[0]

    torch.testing.assert_close(curvature(fpi.Staged(layer)), curvature(layer), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("solver", [fpi.Anderson(2), fpi.Broyden(3)], ids=str)
def test_memory_after_steps_behind_the_last(
    solver: Any, stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the adjoint takes from the solve is not touched by steps too many."""
    layer, x, found = Layer(), given(), []
    for ahead in (0, 2):
        monkeypatch.setattr(_programs, "AHEAD", ahead)
        options = {"solver": solver, "adjoint": fpi.Implicit(reuse=True)}
        sol, _, gradients = both(fpi.Staged(layer), x, layer.weight, **options)
        found.append((gradients, sol.backward.stats.steps))
    assert all(map(torch.equal, found[0][0], found[1][0]))
    assert found[0][1] == found[1][1]


def test_broken_system(stand: Stand) -> None:
    check_independence()


def test_what_was_written_to_before_the_gradient(stand: Stand) -> None:
    layer = Layer()
    x = given()
    sol = fpi.fixed_point(fpi.Staged(layer), start(), (x,), **OPTIONS)
    with torch.no_grad():
        layer.weight.mul_(0.5)
    with pytest.raises((fpi.DerivativeError, RuntimeError), match=r"written to|inplace"):
        sol.value["a"].sum().backward()


def test_two_threads_take_turns(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """A captured program has one set of buffers."""
    f, zero, other = fpi.Staged(lambda z, x: 0.5 * z + x, "captured"), torch.zeros(3), []

    def solve(x: float) -> Any:
        return fpi.fixed_point(f, zero, (torch.full((3,), x),), solver=fpi.Picard()).value

    solve(0.5)
    thread = threading.Thread(target=lambda: other.append(solve(-4.0)))
    fill = _programs.Captured._fill

    def filled(program: Any, inputs: Any) -> None:
        fill(program, inputs)
        if thread.ident is None:
            thread.start()
            thread.join(0.3)

    monkeypatch.setattr(_programs.Captured, "_fill", filled)
    torch.testing.assert_close(solve(1.0), torch.full((3,), 2.0), rtol=1e-3, atol=0.0)
    thread.join()
    torch.testing.assert_close(other[0], torch.full((3,), -8.0), rtol=1e-3, atol=0.0)


def test_within_a_map_that_is_not_staged(stand: Stand) -> None:
    """The evaluation that records the outer map runs eagerly."""
    layer, x = Layer(), given()
    inner = fpi.Staged(lambda z, x: torch.tanh(z @ layer.weight + x))
    found = []
    for f in (inner, inner.f):
        outer = lambda z, x: 0.5 * fpi.fixed_point(f, z, (x + z,), **OPTIONS).value  # noqa: B023, E731
        value = fpi.fixed_point(outer, torch.zeros_like(x), (x,), rtol=1e-8).value
        found.append((value.detach(), *torch.autograd.grad(value.sum(), (x, layer.weight))))
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-8)
    assert stand.posted > 0


def test_programs_are_freed_with_their_owner(stand: Stand) -> None:
    layer = Layer()
    f = fpi.Staged(layer, "captured")
    check(layer, f, given())
    kept = [weakref.ref(x) for x in f._made.values() if isinstance(x, _programs.Program)]
    assert len(kept) >= 2
    del f
    gc.collect()
    assert [x() for x in kept] == [None] * len(kept)


def test_a_copy_makes_its_own_programs(stand: Stand) -> None:
    layer = Layer()
    f = fpi.Staged(layer, "captured")
    check(layer, f, given())
    other = copy.deepcopy(f)
    assert (other.how, other._made) == ("captured", {})
    twin: Any = other.f
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(0.5)
    check(twin, other, given())
    check(layer, f, given())


def test_trace_and_budget(stand: Stand) -> None:
    layer, options = Layer(), {"trace": True, "budget": 5, "on_failure": "ignore"}
    with torch.no_grad():
        eager, staged = (
            fpi.fixed_point(f, start(), (given(),), rtol=1e-12, **options)
            for f in (layer, fpi.Staged(layer))
        )
    assert eager.stats.steps == staged.stats.steps == 5
    torch.testing.assert_close(
        torch.as_tensor(staged.stats.trace), torch.as_tensor(eager.stats.trace),
        rtol=1e-6, atol=0.0, equal_nan=True, check_dtype=False,
    )  # fmt: skip


def test_by_inductor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_staged, "TOGETHER", {"compiled": 2})
    slope = torch.linspace(-0.5, 0.5, 33)
    f = fpi.Staged(lambda z, x: slope * torch.tanh(z) + x)
    for x in (torch.ones(33), torch.zeros(33) - 2.0):
        with torch.no_grad():
            sol = fpi.fixed_point(f, torch.zeros(33), (x,), solver=fpi.Picard(), rtol=1e-5)
        torch.testing.assert_close(
            slope * torch.tanh(sol.value) + x, sol.value, rtol=1e-4, atol=1e-4
        )
        assert isinstance(sol.stats.evaluations, int)
