"""How a case is run in eager PyTorch."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .runners import Case, Found, Runner, Task
from .spaces import TorchSpace


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
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
            run()
        level = peak = 0
        events = found.profiler.kineto_results.events()  # type: ignore[union-attr]
        for event in sorted(events, key=lambda e: e.start_ns()):
            if event.name() == "[memory]":
                level += event.nbytes()
                peak = max(peak, level)
        return float(peak)
