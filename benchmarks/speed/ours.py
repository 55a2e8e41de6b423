"""The cases of fpicore, alike in every framework."""

from typing import Any

from .runners import Case, Task


def ours(fpi: Any, problem: Any, jit: bool = True, compiled: bool = False) -> list[Case]:
    """Every solver, for one system and for a batch of them.

    Not Broyden for a batch where each case is ``compiled``: that takes seconds, and tells little.
    """

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

    options = (fpi.Picard(), fpi.Anderson(), fpi.Broyden(8, kind="bad", scaled=True))
    batch = options[:2] if compiled else options
    several = [case(option, problem.batch_ndim) for option in batch if problem.batch_ndim]
    return [case(option, 0) for option in options] + several
