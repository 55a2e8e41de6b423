"""The cases of fpicore, alike in every framework."""

from typing import Any

from .runners import Case, Task


def ours(fpi: Any, problem: Any, jit: bool = True, compiled: bool = False) -> list[Case]:
    """Every solver, for one system and for a batch of them; with 20 pairs for one system alone.

    Not Broyden for a batch where each case is ``compiled``: that takes seconds, and tells little.
    """

    def case(name: str, option: Any, batch_ndim: int) -> Case:
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
        return Case(f"{name}, {scope}", repr(option), solve, jit=jit)

    options = {
        "Picard": fpi.Picard(),
        "Anderson": fpi.Anderson(),
        "Broyden": fpi.Broyden(8, kind="bad", scaled=True),
        "Broyden(20)": fpi.Broyden(20),
    }
    single = [case(name, option, 0) for name, option in options.items()]
    if not problem.batch_ndim:
        return single
    batch = ("Picard", "Anderson") if compiled else ("Picard", "Anderson", "Broyden")
    return single + [case(name, options[name], problem.batch_ndim) for name in batch]
