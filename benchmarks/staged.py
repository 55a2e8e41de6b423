"""PyTorch's eager step beside the staged one: one compiled program, or one captured CUDA graph.

``python -m benchmarks.staged [--device cpu] [--size 32x128] [--solver NAME] [--how compiled]
[--json FILE]``

f is the tanh equilibrium layer tanh(z W + b + x) in float32, with TF32 off unless ``--tf32``. Eager
and staged solves alternate in one process, and the ratio is the median over rounds, as the machine
may be noisy. The first call of a staged solve compiles, unless its code is in inductor's cache on
disk (TORCHINDUCTOR_CACHE_DIR). On the CPU, one thread, by processor time; on a GPU by events, with

- the waits within one solve, as the profiler counts them: stream and event synchronisations, and
  copies from the device to the host;
- the bandwidth of an Anderson step, from the state-sized arrays that it must read and write, as a
  fraction of what a copy on the device reaches.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .overhead import layer
from .paper.records import processor

RTOL = 1e-4
ROUNDS = 21
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "Memcpy DtoH")


def cases(how: str, device: str, size: tuple[int, int], only: str) -> dict[str, dict[str, Any]]:
    """Each solver, or only one, for one system and for a batch, forward and backward."""
    import torch

    import fpicore_torch as fpi

    arrays = [torch.from_numpy(a).to(device) for a in layer(*size)]
    weight, bias, x = arrays
    weight.requires_grad_()

    def f(z: Any, x: Any) -> Any:
        return torch.tanh(z @ weight + bias + x)

    def solve(f: Any, option: Any, batch_ndim: int, start: Any) -> Any:
        return fpi.fixed_point(
            f, start, (x,), solver=option, rtol=RTOL, max_steps=300, batch_ndim=batch_ndim
        )

    def both(f: Any, option: Any, batch_ndim: int, start: Any) -> Any:
        sol = solve(f, option, batch_ndim, start)
        return torch.autograd.grad(sol.value.sum(), weight)[0]

    staged, start = fpi.Staged(f, how), torch.zeros(size, device=device)
    compiled_f, found = torch.compile(f), {}
    solvers = (fpi.Picard(), fpi.Anderson(), fpi.Broyden(8, kind="bad", scaled=True))
    solvers = [s for s in solvers if only in ("", type(s).__name__)]
    for batch_ndim, name in ((0, "one system"), (1, "a batch")):
        for option in solvers:
            for what, run in (("forward", torch.no_grad()(solve)), ("both", both)):
                ways = {"eager": f, "f compiled": compiled_f, "staged": staged}
                runs = {k: _bound(run, g, option, batch_ndim, start) for k, g in ways.items()}
                found[f"{type(option).__name__}, {name}, {what}"] = _measured(torch, runs, device)
            there, here = (both(g, option, batch_ndim, start) for g in (f, staged))
            gap = float((here - there).abs().max() / there.abs().max())
            found[f"{type(option).__name__}, {name}, both"]["difference"] = gap
    if device != "cpu":
        _look(torch, found, solve, {"eager": f, "staged": staged}, fpi.Anderson(), start)
    return found


def _bound(run: Any, *arguments: Any) -> Callable[[], Any]:
    return lambda: run(*arguments)


def _measured(torch: Any, runs: dict[str, Callable[[], Any]], device: str) -> dict[str, Any]:
    """Medians of time, and of the ratio to eager, over interleaved rounds."""
    first = {}
    for key, run in runs.items():
        begin = time.perf_counter()
        run()
        first[key] = time.perf_counter() - begin
    times: dict[str, list[float]] = {key: [] for key in runs}
    for _ in range(ROUNDS):
        for key, run in runs.items():
            times[key].append(_seconds(torch, run, device))
    made = {f"{key} us": 1e6 * statistics.median(found) for key, found in times.items()}
    for key in ("f compiled", "staged"):
        pairs = zip(times[key], times["eager"], strict=True)
        made[f"{key} / eager"] = statistics.median(a / b for a, b in pairs)
    return made | {"first call s": first["staged"]}


def _seconds(torch: Any, run: Callable[[], Any], device: str, count: int = 3) -> float:
    if device == "cpu":
        begin = time.process_time()
        for _ in range(count):
            run()
        return (time.process_time() - begin) / count
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(count):
        run()
    end.record()
    torch.cuda.synchronize()
    return 1e-3 * start.elapsed_time(end) / count


def _look(
    torch: Any, found: dict[str, Any], solve: Any, ways: dict[str, Any], option: Any, start: Any
) -> None:
    """Waits of one solve, and the share of a copy's bandwidth that its steps reach."""
    from torch.profiler import ProfilerActivity, profile

    other = torch.empty_like(start)
    copy = _seconds(torch, lambda: other.copy_(start), "cuda", 100)
    for key, f in ways.items():
        with torch.no_grad():
            evaluations = int(solve(f, option, 0, start).stats.evaluations)
            with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
                solve(f, option, 0, start)
                torch.cuda.synchronize()
            seconds = _seconds(torch, _bound(solve, f, option, 0, start), "cuda")
        events = seen.key_averages()
        waits = {w: sum(e.count for e in events if w in e.key) for w in WAITS}
        # f: read z and x, write f; difference 3, norms 2, two stores 4, both histories, the mixed.
        arrays = 3 + 3 + 2 + 4 + 2 * (option.history + 1) + 2
        moved = evaluations * arrays * 0.5 * copy
        found[f"waits, {key}"] = {"evaluations": evaluations, **waits}
        found[f"bandwidth, {key}"] = {"of a copy": moved / seconds}


def main() -> int:
    """Measure, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--how", choices=("compiled", "captured"), help="default: captured on cuda")
    parser.add_argument("--size", default="32x128", help="rows x columns of the state")
    parser.add_argument("--solver", default="", help="Picard, Anderson or Broyden; default: all")
    parser.add_argument("--tf32", action="store_true", help="TF32 in matrix products of a GPU")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    options = parser.parse_args()
    try:
        import torch
    except ImportError:
        parser.error("PyTorch is not installed")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("expected a GPU that PyTorch can use for --device cuda, found none")
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = options.tf32
    rows, columns = map(int, options.size.split("x"))
    how = options.how or ("captured" if options.device == "cuda" else "compiled")
    gpu = options.device == "cuda"
    record = {
        "machine": torch.cuda.get_device_name() if gpu else processor(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "how": how,
        "size": options.size,
        "tf32": options.tf32,
        "rtol": RTOL,
        "cases": cases(how, options.device, (rows, columns), options.solver),
    }
    for key, line in record["cases"].items():
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in line.items())
        print(f"{key:32s} {numbers}")
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
