"""The cases of fpicore, alike in every framework."""

from typing import Any

from .runners import Case, Task


def ours(fpi: Any, problem: Any, jit: bool = True) -> list[Case]:
    """Every solver, for one system and for a batch of them."""

    def case(option: Any, batch_ndim: int) -> Case:
        def solve(task: Task, tolerance: float, most: int) -> tuple[Any, Any]:
            found = fpi.fixed_point(
                task.f,
                task.z0,
                (task.params,),
                solver=option,
                rtol=tolerance,
                max_steps=most,
                batch_ndim=batch_ndim,
                on_failure="ignore",
            )
            return found.value, found.stats.evaluations

        scope = "a batch of systems" if batch_ndim else "one system"
        return Case(f"{type(option).__name__}, {scope}", repr(option), solve, jit=jit)

    options = (fpi.Picard(), fpi.Anderson(), fpi.Broyden())
    return [case(option, n) for n in sorted({0, problem.batch_ndim}) for option in options]
