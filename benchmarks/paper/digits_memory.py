"""How much memory a training step needs at its peak."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .frameworks import Framework


def peak_bytes(framework: Framework, run: Callable[[], Any]) -> int | None:
    """Most bytes that PyTorch's CPU allocator has lent out at once during ``run``.

    The allocator's own records, as its profiler tells them: all tensors that the step makes
    count, those that autograd saves, the solver's memory and what passes by; the parameters and
    the batch do not. None in other frameworks, which do not tell. Run it once beforehand.
    """
    if framework.fpi.__name__ != "fpicore_torch":
        return None
    from torch.profiler import ProfilerActivity, profile

    run()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    told = [event["args"] for event in events if event.get("name") == "[memory]"]
    first = min(told, key=lambda args: args["Ev Idx"])
    before = first["Total Allocated"] - first["Bytes"]
    return max(args["Total Allocated"] for args in told) - before
