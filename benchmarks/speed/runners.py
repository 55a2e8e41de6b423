"""How each framework runs a case: once with f counted, and as often as wanted against the clock."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from .problems import Problem
from .spaces import JaxSpace, NumpySpace, TensorFlowSpace, TorchSpace

F_SECONDS = 0.02
"""What f is measured over, so that the clock's own resolution does not matter."""


@dataclass(frozen=True)
class Task:
    """What a case solves: z = f(z, params), in the framework's own arrays."""

    f: Callable[[Any, dict[str, Any]], Any]
    z0: Any
    """A tensor, or a tuple of them."""
    params: dict[str, Any]
    problem: Problem

    def at(self, z: Any) -> Any:
        """f of z alone."""
        return self.f(z, self.params)


class Case(NamedTuple):
    """A solver of a library with its settings."""

    label: str
    settings: str
    solve: Callable[[Task, Any, int], tuple[Any, Any]]
    """(task, tolerance, most evaluations) to z and the evaluations reported, or None."""
    tuned: str = ""
    """Its tolerance is looked for: "absolute" is to begin at rtol·‖z‖, "relative" at rtol."""
    tight: bool = False
    """What it costs grows with the steps allowed: they are set to twice those needed."""
    jit: bool = True
    """Whether JAX or TensorFlow compiles the whole."""


class Found(NamedTuple):
    """What one counted run says."""

    arrays: Any
    """z, or the gradients by name."""
    count: int | None = None
    """Evaluations or products that were seen."""
    reported: int | None = None
    """Evaluations that the library tells of."""


class Runner:
    """NumPy's, and what the others share."""

    space_type: Any = NumpySpace

    def __init__(self, problem: Problem, device: str, clock: Callable[[], float]) -> None:
        self.problem, self.device, self.clock = problem, device, clock
        self.space = self.make_space()
        self.role = problem.roles.get("z", "")
        roles = problem.roles
        params = {k: self.space.tensor(a, roles.get(k, "")) for k, a in problem.params.items()}
        leaves = tuple(self.space.tensor(leaf, self.role) for leaf in problem.z0)
        self.weight = tuple(self.space.tensor(w, self.role) for w in problem.weight)
        self.nested = len(leaves) > 1
        f = problem.f
        self.task = Task(
            f=lambda z, params: f(self.space, z, params),
            z0=leaves if self.nested else leaves[0],
            params=params,
            problem=problem,
        )

    def make_space(self) -> Any:
        """The functions of the framework."""
        return self.space_type(self.problem.dtype)

    def leaves(self, z: Any) -> tuple[Any, ...]:
        """The leaves of a state."""
        return tuple(z) if self.nested else (z,)

    def arrays(self, z: Any) -> tuple[np.ndarray, ...]:
        """A state in float64."""
        return tuple(self.space.array(leaf, self.role) for leaf in self.leaves(z))

    def named(self, gradients: Any) -> dict[str, np.ndarray]:
        """Gradients in float64, by the names of the parameters."""
        roles = self.problem.roles
        pairs = zip(self.task.params, gradients, strict=True)
        return {k: self.space.array(g, roles.get(k, "")) for k, g in pairs}

    def sync(self) -> None:
        """Wait for the device."""

    def solve(self, case: Case, tolerance: float, most: int) -> Found:
        """Forward, f counted in Python as it is called."""
        calls = []

        def f(z: Any, params: Any) -> Any:
            calls.append(None)
            return self.task.f(z, params)

        z, reported = self.forward(replace(self.task, f=f), case, tolerance, most)
        reported = None if reported is None else int(reported)
        return Found(self.arrays(z), len(calls), reported)

    def forward(self, task: Task, case: Case, tolerance: float, most: int) -> Any:
        """z and the evaluations reported, outside of every derivative."""
        return case.solve(task, tolerance, most)

    def make_forward(self, case: Case, tolerance: float, most: int) -> Callable[[], Any]:
        """What the forward time is the time of."""
        return lambda: self.forward(self.task, case, tolerance, most)[0]

    def make_both(self, case: Case, tolerance: float, most: int) -> Callable[[], Any] | None:
        """Forward and backward, to the gradients; None without derivatives."""
        return None

    def gradient(self, case: Case, tolerance: float, most: int) -> Found:
        """Gradients and the products they took, if these can be counted."""
        run = self.make_both(case, tolerance, most)
        return Found(self.named(run()))

    def make_f(self, case: Case | None = None) -> tuple[Callable[[], Any], int]:
        """Evaluations of f in a row, in the mode of the solves, and how many."""

        def run() -> None:
            for _ in range(count):
                self.task.at(self.task.z0)

        count = 1
        count = self.enough(run)
        return run, count

    def enough(self, run: Callable[[], Any]) -> int:
        """How many runs fill the time that f is measured over."""
        run()
        return max(1, min(2000, round(F_SECONDS / self.seconds(run))))

    def seconds(self, run: Callable[[], Any], repeats: int = 1) -> float:
        """Of one run, by the clock."""
        self.sync()
        start = self.clock()
        for _ in range(repeats):
            run()
        self.sync()
        return (self.clock() - start) / repeats

    def compiling(self, case: Case, tolerance: float, most: int) -> float:
        """Seconds that compilation took before the first call."""
        return 0.0

    def memory(self, case: Case, tolerance: float, most: int) -> float | None:
        """Peak bytes of forward and backward beyond what is there before, if it can be told."""
        return None


class TorchRunner(Runner):
    """Eager PyTorch."""

    def make_space(self) -> Any:
        """On the device."""
        import torch

        torch.set_num_threads(1)
        self.torch = torch
        return TorchSpace(self.problem.dtype, self.device)

    def sync(self) -> None:
        """Wait for the device."""
        if self.device != "cpu":
            self.torch.cuda.synchronize()

    def forward(self, task: Task, case: Case, tolerance: float, most: int) -> Any:
        """Without recording."""
        with self.torch.no_grad():
            return case.solve(task, tolerance, most)

    def make_f(self, case: Case | None = None) -> tuple[Callable[[], Any], int]:
        """Without recording."""
        run, count = super().make_f(case)
        return self.torch.no_grad()(run), count

    def make_both(self, case: Case, tolerance: float, most: int) -> Callable[[], Any]:
        """By autograd.grad, to all parameters."""
        return self._both(self.task, case, tolerance, most)

    def _both(self, task: Task, case: Case, tolerance: float, most: int) -> Callable[[], Any]:
        params = {k: p.detach().requires_grad_() for k, p in task.params.items()}
        live = replace(task, params=params)

        def run() -> Any:
            z = case.solve(live, tolerance, most)[0]
            pairs = zip(self.weight, self.leaves(z), strict=True)
            loss = sum((w * leaf).sum() for w, leaf in pairs)
            return self.torch.autograd.grad(loss, list(params.values()))

        return run

    def gradient(self, case: Case, tolerance: float, most: int) -> Found:
        """Products of f are counted by a node behind it."""
        torch, products = self.torch, []

        class Node(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, *leaves: Any) -> Any:
                return tuple(leaf.view_as(leaf) for leaf in leaves)

            @staticmethod
            def backward(ctx: Any, *cotangents: Any) -> Any:
                products.append(None)
                return cotangents

        def f(z: Any, params: Any) -> Any:
            out = Node.apply(*self.leaves(self.task.f(z, params)))
            return out if self.nested else out[0]

        run = self._both(replace(self.task, f=f), case, tolerance, most)
        return Found(self.named(run()), len(products))

    def memory(self, case: Case, tolerance: float, most: int) -> float | None:
        """The running sum of what torch's profiler sees allocated and freed."""
        if self.device != "cpu":
            return None
        from torch.profiler import ProfilerActivity, profile

        run = self.make_both(case, tolerance, most)
        run()
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
            run()
        level = peak = 0
        events = found.profiler.kineto_results.events()  # type: ignore[union-attr]
        for event in sorted(events, key=lambda e: e.start_ns()):
            if event.name() == "[memory]":
                level += event.nbytes()
                peak = max(peak, level)
        return float(peak)


class JaxRunner(Runner):
    """JAX under jit: f is timed inside one compiled loop. Every program is compiled once."""

    space_type = JaxSpace

    def make_space(self) -> Any:
        """With or without 64 bits."""
        import jax

        self.jax = jax
        self._programs: dict[Any, Any] = {}
        self._calls: list[None] = []
        return JaxSpace(self.problem.dtype)

    def _program(self, key: Any, function: Callable[..., Any], *data: Any) -> Any:
        """Compiled ahead, and the seconds that took."""
        if key not in self._programs:
            start = self.clock()
            made = self.jax.jit(function).lower(self.task.params, *data).compile()
            self._programs[key] = made, self.clock() - start
        return self._programs[key][0]

    def compiling(self, case: Case, tolerance: float, most: int) -> float:
        """Of forward and backward."""
        return self._programs[case.label, "both", tolerance, most][1]

    def solve(self, case: Case, tolerance: float, most: int) -> Found:
        """Where a tolerance is looked for it is data, and f is counted by a callback."""
        if not case.tuned:
            z, reported = self._forward(case, tolerance, most)(self.task.params)
            return Found(self.arrays(z), reported=None if reported is None else int(reported))
        jax = self.jax

        def f(z: Any, params: Any) -> Any:
            jax.debug.callback(lambda: self._calls.append(None))
            return self.task.f(z, params)

        def whole(params: Any, tolerance: Any) -> Any:
            return case.solve(replace(self.task, f=f, params=params), tolerance, most)

        value = self.jax.numpy.asarray(tolerance, self.jax.numpy.result_type(float))
        program = self._program((case.label, "counted", most), whole, value)
        self._calls.clear()
        z, reported = jax.block_until_ready(program(self.task.params, value))
        jax.effects_barrier()
        return Found(
            self.arrays(z), len(self._calls), None if reported is None else int(reported)
        )  # fmt: skip

    def _forward(self, case: Case, tolerance: float, most: int) -> Any:
        def whole(params: Any) -> Any:
            return case.solve(replace(self.task, params=params), tolerance, most)

        return self._program((case.label, "forward", tolerance, most), whole)

    def make_forward(self, case: Case, tolerance: float, most: int) -> Callable[[], Any]:
        """One compiled function of the parameters."""
        program, params = self._forward(case, tolerance, most), self.task.params
        return lambda: self.jax.block_until_ready(program(params))

    def make_both(self, case: Case, tolerance: float, most: int) -> Callable[[], Any]:
        """One compiled gradient, to all parameters."""
        program, params = self._gradient(case, tolerance, most), self.task.params

        def run() -> Any:
            found = self.jax.block_until_ready(program(params))
            return [found[k] for k in params]

        return run

    def _gradient(self, case: Case, tolerance: float, most: int) -> Any:
        def loss(params: Any) -> Any:
            z = case.solve(replace(self.task, params=params), tolerance, most)[0]
            pairs = zip(self.weight, self.leaves(z), strict=True)
            return sum((w * leaf).sum() for w, leaf in pairs)

        return self._program((case.label, "both", tolerance, most), self.jax.grad(loss))

    def make_f(self, case: Case | None = None) -> tuple[Callable[[], Any], int]:
        """Each evaluation takes the last one's value, so that none can be left out."""
        jax, task = self.jax, self.task

        def repeated(params: Any, count: Any) -> Any:
            return jax.lax.fori_loop(0, count, lambda _, z: task.f(z, params), task.z0)

        compiled = jax.jit(repeated)
        count = self.enough(lambda: jax.block_until_ready(compiled(task.params, 1)))
        return (lambda: jax.block_until_ready(compiled(task.params, count))), count

    def memory(self, case: Case, tolerance: float, most: int) -> float | None:
        """What XLA's plan of the compiled gradient says: its scratch space."""
        plan = self._gradient(case, tolerance, most).memory_analysis()
        return None if plan is None else float(plan.temp_size_in_bytes)


class TensorFlowRunner(Runner):
    """TensorFlow in a tf.function, or eager."""

    space_type = TensorFlowSpace

    def make_space(self) -> Any:
        """One thread."""
        import tensorflow as tf

        self.tf = tf
        return TensorFlowSpace(self.problem.dtype)

    def wrap(self, function: Callable[..., Any], case: Case | None) -> Callable[..., Any]:
        """In a tf.function, unless the case is eager."""
        if case is not None and not case.jit:
            return function
        return self.tf.function(function, autograph=False)

    def solve(self, case: Case, tolerance: float, most: int) -> Found:
        """Counted in Python where f runs there, else as reported."""
        if not case.jit:
            return super().solve(case, tolerance, most)
        run = self.wrap(lambda: self.forward(self.task, case, tolerance, most), case)
        z, reported = run()
        reported = None if reported is None else int(reported)
        return Found(self.arrays(z), reported=reported)

    def make_forward(self, case: Case, tolerance: float, most: int) -> Callable[[], Any]:
        """One function."""
        return self.wrap(lambda: case.solve(self.task, tolerance, most)[0], case)

    def make_both(self, case: Case, tolerance: float, most: int) -> Callable[[], Any]:
        """By a tape around the solve."""
        params, tf = self.task.params, self.tf

        def run() -> Any:
            with tf.GradientTape() as tape:
                tape.watch(list(params.values()))
                z = case.solve(self.task, tolerance, most)[0]
                pairs = zip(self.weight, self.leaves(z), strict=True)
                loss = tf.add_n([tf.reduce_sum(w * leaf) for w, leaf in pairs])
            return tape.gradient(loss, list(params.values()))

        return self.wrap(run, case)

    def make_f(self, case: Case | None = None) -> tuple[Callable[[], Any], int]:
        """In one tf.while_loop, or in Python."""
        if case is not None and not case.jit:
            return super().make_f(case)
        tf, task = self.tf, self.task

        @tf.function(autograph=False)
        def repeated(count: Any) -> Any:
            def body(i: Any, z: Any) -> Any:
                return i + 1, task.at(z)

            return tf.while_loop(
                lambda i, z: i < count, body, (tf.constant(0), task.z0), parallel_iterations=1
            )

        count = self.enough(lambda: repeated(tf.constant(1)))
        several = tf.constant(count)
        return (lambda: repeated(several)), count


RUNNERS: dict[str, type[Runner]] = {
    "torch": TorchRunner,
    "jax": JaxRunner,
    "tensorflow": TensorFlowRunner,
    "numpy": Runner,
}


def clock_of(name: str) -> Callable[[], float]:
    """ "cpu": processor time of the whole process, which other work on the machine leaves alone."""
    return time.process_time if name == "cpu" else time.perf_counter
