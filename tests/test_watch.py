"""What is seen of a solve: the trace of residuals, and the callback."""

from typing import Any

import numpy as np
import pytest

from fpicore import Picard, Progress

from .labs import Lab
from .problems import SOLVERS

SLOPES = np.array([0.5, 0.0, 0.9])
"""Of three systems z = slope·z + 1 of two entries each."""
START = np.zeros((3, 2))
MOST = 12


def lines(lab: Lab, **options: Any) -> Any:
    """A function of (slopes, z0) that solves the three."""

    def solve(slopes: Any, z0: Any) -> Any:
        f = lambda z, s: s[:, None] * z + 1.0  # noqa: E731
        given = {"batch_ndim": 1, "max_steps": MOST, "on_failure": "ignore", "rtol": 1e-3}
        return lab.fpi.fixed_point(f, z0, (slopes,), **{**given, **options})

    return solve


def outcome(sol: Any) -> Any:
    return sol.value, sol.result.codes, *sol.stats[:4]


def expected_trace(slopes: np.ndarray, rtol: float, most: int) -> np.ndarray:
    """Of plain iteration from 0: the residual at step k is √2·slopeᵏ, f(z) there its sum."""
    trace = np.full((len(slopes), most + 1), np.nan)
    for row, slope in zip(trace, slopes, strict=True):
        for k in range(most + 1):
            row[k] = np.sqrt(2) * slope**k
            if row[k] <= rtol * np.sqrt(2) * sum(slope**j for j in range(k + 1)):
                break
    return trace


def test_trace_holds_every_residual_until_a_system_stops(lab: Lab, mode: str) -> None:
    solve = lines(lab, solver=Picard(), trace=True)
    stats = lab.run(lambda *given: tuple(solve(*given).stats), SLOPES, START, mode=mode)
    steps, _, residual, _, trace = stats
    np.testing.assert_allclose(trace, expected_trace(SLOPES, 1e-3, MOST), rtol=1e-6)
    np.testing.assert_allclose(trace[np.arange(3), steps], residual, rtol=1e-6)


@pytest.mark.modes("eager", "graph")
def test_trace_of_one_system(lab: Lab, mode: str) -> None:
    def solve(z0: Any) -> Any:
        f = lambda z: {"a": 0.5 * z["a"] + 1.0, "b": (0.5 * z["b"][0] + 1.0,)}  # noqa: E731
        sol = lab.fpi.fixed_point(f, z0, solver=Picard(), rtol=1e-3, max_steps=15, trace=True)
        return sol.stats.trace, sol.stats.evaluations

    trace, count = lab.run(solve, {"a": np.zeros(1), "b": (np.zeros((1, 1)),)}, mode=mode)
    np.testing.assert_allclose(trace, expected_trace(np.array([0.5]), 1e-3, 15)[0], rtol=1e-6)
    assert np.isfinite(trace).sum() == count


def test_without_trace_there_is_none(lab: Lab) -> None:
    assert lines(lab)(lab.tensor(SLOPES), lab.tensor(START)).stats.trace is None


@pytest.mark.only("numpy", "torch", "tensorflow")
@pytest.mark.parametrize("solver", ["anderson", "broyden", "newton_krylov"])
def test_trace_changes_nothing(lab: Lab, solver: str) -> None:
    found = []
    for trace in (False, True):
        solve = lines(lab, solver=SOLVERS[solver], trace=trace)
        run = lambda *given: outcome(solve(*given))  # noqa: B023,E731
        found.append(lab.run(run, SLOPES, START))
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("factor", [1.0, 0.0], ids=["inf", "nan"])
def test_trace_says_where_f_was_not_finite(lab: Lab, factor: float) -> None:
    f = lambda z: z + 1.0 + factor * (z - 9.0) ** 2000  # noqa: E731
    sol = lab.fpi.fixed_point(
        f, lab.tensor(np.array([10.0])), solver=Picard(), on_failure="ignore", trace=True
    )
    trace = lab.numpy(sol.stats.trace)
    assert np.isfinite(trace[0])
    assert trace[1] == np.inf
    assert np.isnan(trace[2:]).all()


@pytest.mark.gradients
@pytest.mark.parametrize("adjoint", ["Unrolled()", "Unrolled(checkpoint=3)", "Reversible()"])
def test_trace_under_other_adjoints(lab: Lab, adjoint: str) -> None:
    made = eval(f"fpi.{adjoint}", {"fpi": lab.fpi})
    if lab.name == "jax" and "checkpoint" in adjoint:
        pytest.skip("the same scan twice over")
    kept: list[Any] = []

    def loss(slopes: Any, z0: Any) -> Any:
        sol = lines(lab, solver=Picard(), trace=True, adjoint=made)(slopes, z0)
        if lab.name != "jax":
            kept.append(sol.stats)
        return lab.xp.sum(sol.value)

    (slope, _) = lab.gradient(loss, SLOPES, START, mode=lab.swift)
    if adjoint != "Reversible()":
        k = 11  # dz/ds of the last system, two entries of Σ sʲ, j < 12
        derivative = 2 * sum(j * SLOPES[2] ** (j - 1) for j in range(1, k + 1))
        np.testing.assert_allclose(slope[2], derivative, rtol=1e-9)
    for stats in kept:
        trace, steps = lab.numpy(stats.trace), lab.numpy(stats.steps)
        last = trace[np.arange(3), steps]
        np.testing.assert_allclose(last, lab.numpy(stats.residual), rtol=1e-6, atol=1e-12)
        assert [np.isfinite(row).sum() for row in trace] == list(steps + 1)


def test_callback_is_told_of_every_evaluation(lab: Lab, mode: str) -> None:
    seen: list[Progress] = []
    solve = lines(lab, solver=Picard(), trace=True, callback=seen.append)
    if mode == "xla":
        with pytest.raises(Exception, match="expected no callback with jit_compile=True"):
            lab.run(lambda *given: solve(*given).value, SLOPES, START, mode=mode)
        return
    trace, count = lab.run(lambda *given: _two(solve(*given)), SLOPES, START, mode=mode)
    lab.wait()
    seen.sort(key=lambda progress: progress.step)
    assert [progress.step for progress in seen] == list(range(int(count)))
    for k, progress in enumerate(seen):
        here = ~np.isnan(trace[:, k])
        np.testing.assert_allclose(progress.residual[here], trace[here, k], rtol=1e-6)
        going = ~np.isnan(trace[:, k + 1]) if k < MOST else np.zeros(3, bool)
        np.testing.assert_array_equal(progress.active, going)
        assert (progress.tolerance > 0.0).all()


def _two(sol: Any) -> Any:
    return sol.stats.trace, sol.stats.evaluations


@pytest.mark.modes("eager", "jit")
def test_callback_of_one_system_gets_plain_numbers(lab: Lab, mode: str) -> None:
    seen: list[Progress] = []

    def solve(z0: Any) -> Any:
        sol = lab.fpi.fixed_point(lambda z: 0.5 * z + 1.0, z0, callback=seen.append)
        return sol.stats.evaluations

    count = lab.run(solve, np.zeros(2), mode=mode)
    lab.wait()
    assert len(seen) == count
    assert {type(value) for value in seen[0]} == {int, float, bool}
    assert not seen[-1].active


@pytest.mark.parametrize("adjoint", ["Unrolled()", "Reversible()"])
def test_callback_under_other_adjoints(lab: Lab, adjoint: str) -> None:
    seen: list[Progress] = []
    made = eval(f"fpi.{adjoint}", {"fpi": lab.fpi})
    sol = lines(lab, solver=Picard(), adjoint=made, callback=seen.append)(
        lab.tensor(SLOPES), lab.tensor(START)
    )
    lab.wait()
    assert len(seen) == int(sol.stats.evaluations)


@pytest.mark.gradients
def test_callback_hears_nothing_of_the_backward_pass(lab: Lab) -> None:
    seen: list[Progress] = []
    solve = lines(lab, callback=seen.append)
    loss = lambda *given: lab.xp.sum(solve(*given).value)  # noqa: E731
    lab.gradient(loss, SLOPES, START, mode=lab.swift)
    lab.wait()
    assert [progress.step for progress in seen] == list(range(len(seen)))


@pytest.mark.gradients
def test_trace_of_the_adjoint_solve(lab: Lab) -> None:
    """g = slope·g + v by plain iteration: the residuals, relative to v, are powers of the slope."""
    kept: list[Any] = []
    adjoint = lab.fpi.Implicit(
        callback=lambda results, stats: kept.append(stats), trace=True, fallback=None, rtol=0.02
    )
    solve = lines(lab, solver=Picard(), adjoint=adjoint, max_steps=60)
    lab.gradient(lambda *given: lab.xp.sum(solve(*given).value), SLOPES, START, mode=lab.swift)
    lab.wait()
    trace = lab.numpy(kept[-1].trace)
    for row, slope in zip(trace, SLOPES, strict=True):
        count = int(np.isfinite(row).sum())
        np.testing.assert_allclose(row[:count], slope ** np.arange(1, count + 1), rtol=1e-6)
    assert trace.shape == (3, 61)
    assert 20 < np.isfinite(trace[2]).sum() < 40


def test_what_a_callback_writes_to_is_its_own(lab: Lab) -> None:
    def careless(progress: Progress) -> None:
        for x in progress[1:]:
            x[...] = 0

    expected = lines(lab)(lab.tensor(SLOPES), lab.tensor(START))
    sol = lines(lab, callback=careless)(lab.tensor(SLOPES), lab.tensor(START))
    lab.wait()
    assert lab.numpy(sol.stats.steps).tolist() == lab.numpy(expected.stats.steps).tolist()
    assert lab.numpy(sol.result.codes).tolist() == lab.numpy(expected.result.codes).tolist()


def test_what_a_callback_raises_ends_an_eager_solve(lab: Lab) -> None:
    def stop(progress: Progress) -> None:
        if progress.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lines(lab, callback=stop)(lab.tensor(SLOPES), lab.tensor(START))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"trace": 1}, "expected trace to be True or False"),
        ({"callback": 3}, "expected callback to be a function"),
        ({"budget": 0}, "expected budget to be an integer, 1 <= budget <= max_steps"),
        ({"budget": MOST + 1}, "received budget=13, max_steps=12"),
        ({"budget": True}, "expected budget"),
        ({"budget": 2.0}, "expected budget"),
    ],
)
def test_bad_options(lab: Lab, option: dict[str, Any], message: str) -> None:
    with pytest.raises(lab.fpi.InputError, match=message):
        lines(lab, **option)(lab.tensor(SLOPES), lab.tensor(START))


@pytest.mark.gradients
def test_callback_of_recomputed_steps_is_refused(lab: Lab) -> None:
    solve = lines(lab, adjoint=lab.fpi.Unrolled(checkpoint=True), callback=print)
    with pytest.raises(lab.fpi.InputError, match=r"with Unrolled\(checkpoint=...\)"):
        solve(lab.tensor(SLOPES), lab.tensor(START))


@pytest.mark.only("torch", "jax")
@pytest.mark.parametrize("adjoint", ["OneStep()", "Unrolled()"])
def test_under_vmap(lab: Lab, adjoint: str) -> None:
    made = eval(f"fpi.{adjoint}", {"fpi": lab.fpi})

    def one(slope: Any) -> Any:
        f = lambda z, s: s * z + 1.0  # noqa: E731
        sol = lab.fpi.fixed_point(
            f, lab.xp.zeros(2, dtype=lab.xp.float64), (slope,), solver=Picard(), rtol=1e-3,
            adjoint=made, max_steps=MOST, on_failure="ignore", trace=True,
        )  # fmt: skip
        return sol.stats.trace

    trace = lab.numpy(_vmap(lab, one)(lab.tensor(SLOPES)))
    np.testing.assert_allclose(trace, expected_trace(SLOPES, 1e-3, MOST), rtol=1e-6)


@pytest.mark.only("torch", "jax")
@pytest.mark.parametrize("adjoint", ["OneStep()", "Unrolled()"])
def test_callback_under_vmap(lab: Lab, adjoint: str) -> None:
    """In JAX told of each sample until it stops; in PyTorch of the samples as one batch."""
    seen: list[Progress] = []
    made = eval(f"fpi.{adjoint}", {"fpi": lab.fpi})

    def one(slope: Any) -> Any:
        f = lambda z, s: s * z + 1.0  # noqa: E731
        sol = lab.fpi.fixed_point(
            f, lab.xp.zeros(2, dtype=lab.xp.float64), (slope,), solver=Picard(), rtol=1e-3,
            adjoint=made, max_steps=MOST, on_failure="ignore", callback=seen.append,
        )  # fmt: skip
        return sol.stats.steps

    if lab.name == "torch" and adjoint == "Unrolled()":
        with pytest.raises(lab.fpi.InputError, match=r"expected no callback under torch\.func"):
            _vmap(lab, one)(lab.tensor(SLOPES))
        return
    steps = lab.numpy(_vmap(lab, one, lab.name == "jax")(lab.tensor(SLOPES)))
    lab.wait()
    if lab.name == "torch":
        assert [list(p.active) for p in seen][:2] == [[True, True, True], [True, False, True]]
    else:
        assert sorted(p.step for p in seen) == sorted(k for n in steps for k in range(n + 1))


def _vmap(lab: Lab, function: Any, jit: bool = False) -> Any:
    if lab.name == "torch":
        import torch

        return torch.func.vmap(function)
    import jax

    mapped = jax.vmap(function)
    return jax.jit(mapped) if jit else mapped
