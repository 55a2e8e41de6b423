"""The solver's own time: overhead = time of a solve / (evaluations × time of f).

``python -m benchmarks.overhead [--json FILE] [--size 32x128]``

f is the tanh equilibrium layer tanh(z W + b + x) in float32, on one CPU thread; f is timed in the
same mode (eager, or inside one compiled loop) in the same rounds as the solves, so the ratios hold
on a noisy machine. A bare loop that does the same arithmetic with no library stands beside them.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
)

import numpy as np  # noqa: E402

from .paper.records import processor  # noqa: E402

RTOL = 1e-5
ROUNDS = 31
F_CALLS = 60


def layer(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weight of spectral radius 0.9, bias and input."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((columns, columns))
    weight *= 0.9 / np.abs(np.linalg.eigvals(weight)).max()
    bias = 0.1 * rng.standard_normal(columns)
    x = rng.standard_normal((rows, columns))
    return weight.astype(np.float32), bias.astype(np.float32), x.astype(np.float32)


def measure(f: Callable[[], float], solve: Callable[[], int]) -> dict[str, float]:
    """Medians over interleaved rounds; f returns seconds an evaluation, solve its evaluations."""
    ratios, seconds_f, seconds = [], [], []
    evaluations = solve()
    for _ in range(ROUNDS):
        one = f()
        start = time.perf_counter()
        evaluations = solve()
        whole = time.perf_counter() - start
        ratios.append(whole / (evaluations * one))
        seconds_f.append(one)
        seconds.append(whole)
    return {
        "overhead": statistics.median(ratios),
        "evaluations": evaluations,
        "f_us": 1e6 * statistics.median(seconds_f),
        "solve_us": 1e6 * statistics.median(seconds),
    }


def torch_cases(rows: int, columns: int) -> dict[str, dict[str, float]]:
    """Eager PyTorch."""
    import torch

    import fpicore_torch as fpi

    torch.set_num_threads(1)
    weight, bias, x = (torch.from_numpy(a) for a in layer(rows, columns))
    linear = torch.nn.Linear(columns, columns)
    linear.weight.data, linear.bias.data = weight.T.contiguous(), bias
    start = torch.zeros(rows, columns)

    def f(z: torch.Tensor) -> torch.Tensor:
        return torch.tanh(linear(z) + x)

    def time_f() -> float:
        begin = time.perf_counter()
        for _ in range(F_CALLS):
            f(start)
        return (time.perf_counter() - begin) / F_CALLS

    def solver(option: Any, batch_ndim: int) -> Callable[[], int]:
        def solve() -> int:
            sol = fpi.fixed_point(
                f, start, solver=option, rtol=RTOL, max_steps=300, batch_ndim=batch_ndim
            )
            return sol.stats.evaluations

        return solve

    solves = {
        "torch eager, bare loop, plain": lambda: bare_picard(f, start),
        "torch eager, bare loop, Anderson": lambda: bare_anderson(torch, f, start),
    }
    for batch_ndim, name in ((0, "one system"), (1, "a batch")):
        for option in (fpi.Picard(), fpi.Anderson(), fpi.Broyden()):
            key = f"torch eager, {type(option).__name__}, {name}"
            solves[key] = solver(option, batch_ndim)
    with torch.no_grad():
        return {key: measure(time_f, solve) for key, solve in solves.items()}


def bare_picard(f: Callable[[Any], Any], z: Any) -> int:
    """Plain iteration as one writes it by hand."""
    count = 0
    while True:
        fz = f(z)
        count += 1
        if ((fz - z).norm() <= RTOL * fz.norm()).item():
            return count
        z = fz


def bare_anderson(torch: Any, f: Callable[[Any], Any], start: Any, history: int = 6) -> int:
    """Anderson on a batch of systems as one writes it by hand, with one stop test for all."""
    rows, columns = start.shape
    points = torch.zeros(rows, history, columns)
    values = torch.zeros(rows, history, columns)
    system = torch.zeros(rows, history + 1, history + 1)
    system[:, 0, 1:] = system[:, 1:, 0] = 1
    right = torch.zeros(rows, history + 1, 1)
    right[:, 0] = 1
    z, step = start, 0
    while step < 300:
        slot, used = step % history, min(step + 1, history)
        points[:, slot], values[:, slot] = z, f(z)
        residual = values[:, slot] - z
        if (residual.norm() <= RTOL * values[:, slot].norm()).item():
            break
        gaps = values[:, :used] - points[:, :used]
        ridge = 1e-6 * torch.eye(used)
        system[:, 1 : used + 1, 1 : used + 1] = torch.bmm(gaps, gaps.transpose(1, 2)) + ridge
        solved = torch.linalg.solve(system[:, : used + 1, : used + 1], right[:, : used + 1])
        z = (solved[:, 1:, 0].unsqueeze(1) @ values[:, :used])[:, 0]
        step += 1
    return step + 1


def jax_cases(rows: int, columns: int) -> dict[str, dict[str, float]]:
    """JAX: jit, f timed inside one compiled loop; and an un-jitted call."""
    import jax
    import jax.numpy as jnp

    import fpicore_jax as fpi

    weight, bias, x = (jnp.asarray(a) for a in layer(rows, columns))
    start = jnp.zeros((rows, columns))

    def f(z: Any, weight: Any, bias: Any, x: Any) -> Any:
        return jnp.tanh(z @ weight + bias + x)

    @jax.jit
    def repeated(weight: Any, bias: Any, x: Any) -> Any:
        return jax.lax.fori_loop(0, F_CALLS, lambda _, z: f(z, weight, bias, x), start)

    def time_f() -> float:
        begin = time.perf_counter()
        jax.block_until_ready(repeated(weight, bias, x))
        return (time.perf_counter() - begin) / F_CALLS

    def solver(option: Any, batch_ndim: int, jit: bool) -> Callable[[], int]:
        def whole(weight: Any, bias: Any, x: Any) -> Any:
            return fpi.fixed_point(
                f,
                start,
                (weight, bias, x),
                solver=option,
                rtol=RTOL,
                max_steps=300,
                batch_ndim=batch_ndim,
            )

        run = jax.jit(whole) if jit else whole

        def solve() -> int:
            return int(jax.block_until_ready(run(weight, bias, x)).stats.evaluations)

        return solve

    time_f()
    found = {}
    for batch_ndim, name in ((0, "one system"), (1, "a batch")):
        for option in (fpi.Picard(), fpi.Anderson(), fpi.Broyden()):
            key = f"jax jit, {type(option).__name__}, {name}"
            found[key] = measure(time_f, solver(option, batch_ndim, jit=True))
    found["jax not jitted, Anderson, one system"] = measure(
        time_f, solver(fpi.Anderson(), 0, jit=False)
    )
    return found


def jax_calls(rows: int, columns: int) -> dict[str, float]:
    """Milliseconds of a call under jit and not, of Anderson on one system; median of rounds."""
    import jax
    import jax.numpy as jnp

    import fpicore_jax as fpi

    given = tuple(jnp.asarray(a) for a in layer(rows, columns))

    def value(weight: Any, bias: Any, x: Any) -> Any:
        f = lambda z: jnp.tanh(z @ weight + bias + x)  # noqa: E731
        options: Any = {"solver": fpi.Anderson(), "rtol": RTOL, "max_steps": 300}
        return fpi.fixed_point(f, jnp.zeros((rows, columns)), **options).value

    gradient = jax.grad(lambda *given: (value(*given) ** 2).sum(), argnums=(0, 1, 2))
    runs = {
        "value, jit": jax.jit(value),
        "value, not jitted": value,
        "gradient, jit": jax.jit(gradient),
        "gradient, not jitted": gradient,
    }
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            begin = time.perf_counter()
            jax.block_until_ready(run(*given))
            taken[name].append(1e3 * (time.perf_counter() - begin))
    return {name: statistics.median(times) for name, times in taken.items()}


def main() -> int:
    """Measure, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="32x128", help="rows x columns of the state")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    options = parser.parse_args()
    rows, columns = (int(part) for part in options.size.split("x"))
    if hasattr(os, "sched_setaffinity"):  # XLA's newer kernels heed no flag
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    found = {**torch_cases(rows, columns), **jax_cases(rows, columns)}
    calls = jax_calls(rows, columns)
    print(f"{'':44s} evaluations     f us   solve us  overhead")
    for name, row in found.items():
        print(
            f"{name:44s} {row['evaluations']:11.0f} {row['f_us']:8.1f} {row['solve_us']:10.1f} "
            f"{row['overhead']:9.2f}"
        )
    for name, taken in calls.items():
        print(f"jax, a call, {name:31s} {taken:10.2f} ms")
    if options.json:
        machine = {"processor": processor(), "python": platform.python_version()}
        record = {"size": options.size, "rtol": RTOL, "machine": machine, "cases": found}
        text = json.dumps({**record, "calls_ms": calls}, indent=2)
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
