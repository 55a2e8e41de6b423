"""PyTorch: what each gradient strategy keeps between the forward and the backward pass."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from fpicore import Anderson, Implicit, Neumann, Picard, Reversible, Unrolled

pytestmark = pytest.mark.framework("torch")
torch = pytest.importorskip("torch")
fpi = pytest.importorskip("fpicore_torch")

SIZE = 4099


@pytest.fixture(autouse=True)
def apart() -> Iterator[None]:
    """What other tests have left behind is not looked at, and not collected over and over."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def kept(adjoint: Any, steps: int) -> float:
    """States held by a solve of so many steps, with its gradient still to be taken.

    What autograd saves is packed into lists, so that Python's collector can see every tensor.
    """
    theta = torch.linspace(0.1, 0.9, SIZE, dtype=torch.float64, requires_grad=True)
    start = torch.zeros(SIZE, dtype=torch.float64)
    before = states()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: [t.detach()], lambda box: box[0]):
        sol = fpi.fixed_point(
            lambda z: torch.cos(theta * z),
            start,
            solver=Picard(damping=0.1),
            adjoint=adjoint,
            rtol=1e-15 if isinstance(adjoint, Reversible) else 1e-14,
            max_steps=steps,
            on_failure="ignore",
        )
        total = sol.value.sum()
    assert sol.stats.steps == steps
    held = states() - before
    total.backward()
    assert theta.grad is not None
    return held


def states() -> float:
    """Memory of the live tensors that hold whole states, in states.

    SIZE is a prime, lest tensors that other tests have left behind be counted: some of torch's
    own kinds (torch.compile's) have no storage to ask for.
    """
    gc.collect()
    tensors = [x for x in gc.get_objects() if type(x) is torch.Tensor and is_of_states(x)]
    sizes = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in tensors}
    return sum(sizes.values()) / (8 * SIZE)


def is_of_states(x: Any) -> bool:
    """Whether it holds one state or several."""
    return x.dtype == torch.float64 and x.numel() > 0 and x.numel() % SIZE == 0


@pytest.mark.filterwarnings("ignore:expected rtol")
@pytest.mark.parametrize("adjoint", [Implicit(on_failure="ignore"), Neumann(5)], ids=str)
def test_does_not_depend_on_the_steps(adjoint: Any) -> None:
    few, many = kept(adjoint, 16), kept(adjoint, 64)
    assert 1 <= many == few <= 10


def test_reversible_keeps_two_states() -> None:
    few, many = (kept(Reversible(0.05, on_failure="ignore"), n) for n in (16, 64))
    assert 1 <= many == few <= 10


def test_unrolled_keeps_every_step() -> None:
    few, many = kept(Unrolled(), 16), kept(Unrolled(), 64)
    assert 3.0 <= many / few <= 4.2


def test_checkpoints_keep_the_root_of_the_steps() -> None:
    few, many = kept(Unrolled(checkpoint=True), 16), kept(Unrolled(checkpoint=True), 64)
    assert many / few <= 2.3
    assert many <= 0.4 * kept(Unrolled(), 64)


def peak(steps: int, size: int, history: int) -> float:
    """Most memory of forward and backward together, in states, as torch's profiler counts it."""
    weight = torch.linspace(-0.85, 0.85, size).requires_grad_()
    with torch.profiler.profile(profile_memory=True) as seen:
        sol = fpi.fixed_point(
            lambda z: weight * torch.tanh(z) + 0.3,
            torch.zeros(size),
            solver=Anderson(history),
            adjoint=Implicit(on_failure="ignore", fallback=None),
            rtol=1e-6,
            max_steps=steps,
            on_failure="ignore",
        )
        sol.value.sum().backward()
    level = most = 0
    for event in sorted(seen.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            level += event.nbytes()
            most = max(most, level)
    return most / (4 * size)


@pytest.mark.filterwarnings("ignore:expected rtol")
def test_peak_does_not_depend_on_the_steps() -> None:
    few, many = (peak(steps, 100_003, 5) for steps in (7, 14))
    assert few == pytest.approx(many, abs=0.1)
    assert many <= 1.25 * (2 * 5 + 8)
