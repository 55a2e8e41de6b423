"""One library in a process of its own, which does what the parent asks, one thing at a time."""

import os
import traceback
from multiprocessing.connection import Connection
from typing import Any

from .jax_runner import JaxRunner
from .libraries import LIBRARIES
from .problems import problem
from .runners import Found, Runner, clock_of
from .tensorflow_runner import TensorFlowRunner
from .torch_runner import TorchRunner

RUNNERS: dict[str, type[Runner]] = {
    "torch": TorchRunner,
    "jax": JaxRunner,
    "tensorflow": TensorFlowRunner,
    "tensorflow-eager": TensorFlowRunner,
    "numpy": Runner,
}
BLOCK_SECONDS = 0.01
"""What a short solve is repeated for within a round."""


class Worker:
    """The cases of a library on one problem after another."""

    def __init__(self, name: str, device: str, clock: str) -> None:
        self._library, self._device = LIBRARIES[name], device
        self._clock = clock_of(clock)
        self._runner_type = RUNNERS[self._library.framework]
        if "tensorflow" in self._library.framework:
            import tensorflow as tf

            tf.config.threading.set_intra_op_parallelism_threads(1)
            tf.config.threading.set_inter_op_parallelism_threads(1)

    def open(self, name: str) -> list[tuple[str, str, str, bool]]:
        """Prepare a problem; label, settings, and how the tolerance of each case is found."""
        self._ready: dict[int, Any] = {}
        self._run_f: Any = None
        posed = problem(name)
        self._runner: Runner = self._runner_type(posed, self._device, self._clock)
        self._cases = self._library.load()(posed)
        return [(case.label, case.settings, case.tuned, case.tight) for case in self._cases]

    def solve(self, index: int, tolerance: float, most: int) -> Found:
        """Forward, counted."""
        return self._runner.solve(self._cases[index], tolerance, most)

    def gradient(self, index: int, tolerance: float, most: int) -> Found | None:
        """Forward and backward, counted; None without derivatives."""
        if self._runner.make_both(self._cases[index], tolerance, most) is None:
            return None
        return self._runner.gradient(self._cases[index], tolerance, most)

    def prepare(self, index: int, tolerance: float, most: int) -> tuple[float, float]:
        """Seconds of the first call of the whole, compilation included, and of the second."""
        runner, case = self._runner, self._cases[index]
        runs = [runner.make_forward(case, tolerance, most)]
        both = runner.make_both(case, tolerance, most)
        if both is not None:
            runs.append(both)
        first = [runner.seconds(run) for run in runs]
        # A second call is needed only where the first may have compiled something.
        second = [s if s > 0.5 and not runner.compiles else runner.seconds(run)
                  for s, run in zip(first, runs, strict=True)]  # fmt: skip
        repeats = [max(1, min(50, round(BLOCK_SECONDS / s))) for s in second]
        self._ready[index] = list(zip(runs, repeats, strict=True))
        return runner.compiling(case, tolerance, most) + first[-1], sum(second)

    def memory(self, index: int, tolerance: float, most: int) -> float | None:
        """Peak of forward and backward."""
        return self._runner.memory(self._cases[index], tolerance, most)

    def time_f(self) -> float:
        """Seconds an evaluation."""
        if self._run_f is None:
            self._run_f = self._runner.make_f(self._cases[0])
        run, count = self._run_f
        return self._runner.seconds(run) / count

    def time(self, index: int) -> list[float]:
        """Seconds forward, and forward and backward."""
        if index not in self._ready:
            raise RuntimeError("what was prepared was lost when another case ended the process")
        return [self._runner.seconds(run, repeats) for run, repeats in self._ready[index]]


def main(link: Connection, name: str, device: str, clock: str) -> None:
    """Answer requests until there is None."""
    worker: Any = None
    while (request := link.recv()) is not None:
        method, arguments = request
        try:
            worker = worker or Worker(name, device, clock)
            link.send((True, getattr(worker, method)(*arguments)))
        except Exception as error:
            if os.environ.get("FPICORE_BENCH_DEBUG"):
                traceback.print_exc()
            text = " ".join(str(error).split())[:160]
            link.send((False, f"{type(error).__name__}: {text}"))
