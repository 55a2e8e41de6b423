"""How a case is run in JAX under jit."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .runners import Case, Found, Runner
from .spaces import JaxSpace


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
        """Jitted, as users call it, and the seconds that its first call took."""
        if key not in self._programs:
            made, start = self.jax.jit(function), self.clock()
            self.jax.block_until_ready(made(self.task.params, *data))
            self._programs[key] = made, self.clock() - start
        return self._programs[key][0]

    def compiling(self, case: Case, tolerance: float, most: int) -> float:
        """Of forward and backward, with one run of them."""
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
        jax.effects_barrier()
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
        """One jitted function of the parameters."""
        program, params = self._forward(case, tolerance, most), self.task.params
        return lambda: self.jax.block_until_ready(program(params))

    def make_both(self, case: Case, tolerance: float, most: int) -> Callable[[], Any]:
        """One jitted gradient, to all parameters."""
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
        program = self._gradient(case, tolerance, most).lower(self.task.params).compile()
        plan = program.memory_analysis()
        return None if plan is None else float(plan.temp_size_in_bytes)
