"""The entry: validate, iterate, attach the gradient."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from ._adjoint import AbstractAdjoint
from ._backend import Backend
from ._compact import compacted
from ._entry import finish, given, make_adjoint, make_budget, make_iteration, pose
from ._solution import Solution
from ._solver import AbstractSolver
from ._watch import Callback, watch


class FixedPoint(Protocol):
    """The signature of ``fixed_point``; every backend exposes the same."""

    def __call__(
        self,
        f: Callable[..., Any],
        z0: Any,
        args: tuple[Any, ...] = (),
        *,
        solver: AbstractSolver | None = None,
        adjoint: AbstractAdjoint | None = None,
        rtol: float | None = None,
        atol: float = 0.0,
        norm: str = "l2",
        max_steps: int = 100,
        batch_ndim: int = 0,
        has_aux: bool = False,
        compact: Any = None,
        on_failure: str = "warn",
        trace: bool = False,
        callback: Callback | None = None,
        budget: Any = None,
    ) -> Solution:
        """Solve z = f(z, *args) and make the answer differentiable.

        Args:
            f: the map; called as f(z, *args), returns the structure, shapes and dtypes of z.
            z0: the start: a floating or complex tensor, or a nested structure of them.
            args: further arguments of f. Gradients reach them, and tensors that f closes over.
            solver: the strategy; None is Broyden(8, kind="bad", scaled=True).
            adjoint: the gradient strategy; None is Implicit().
            rtol: a system has converged when ‖f(z) − z‖ ≤ atol + rtol·‖f(z)‖ at the returned z.
                None is 1e-4, or what the dtype resolves if that is coarser.
            atol: see rtol; needed only where f(z) tends to 0.
            norm: "l2", "rms" (l2 over the root of the number of entries) or "max", per system.
            max_steps: most solver steps, ≥ 1; f is evaluated at most once more than that in the
                solve, and once more where a gradient is attached or aux is wanted.
            batch_ndim: leading axes of every leaf that index independent systems; a system's
                result does not depend on the others. 0 is one system.
            has_aux: f returns (z, aux); the solution holds aux at the returned value.
            compact: call f with those systems of the batch that still iterate, gathered whenever
                a quarter has finished; the answers are the same. It says which args go with the
                systems, as in_axes does for a vmap: a tuple with one entry for each, 0 where its
                tensors begin with the batch axes, None where all systems share it, or a structure
                of these like that of the argument; 0 alone stands for all args. A tensor that f
                closes over cannot be gathered: pass it in args. One evaluation of the whole batch
                checks in the end that f gives a system the same, whichever others are with it. For
                eager NumPy, PyTorch on the CPU and TensorFlow, and adjoints that begin at the
                answer.
            on_failure: "warn", "raise" or "ignore" when a system does not converge. In traced
                code the status is data: read ``solution.result``.
            trace: keep ‖f(z) − z‖ of every evaluation in ``solution.stats.trace``, of the batch
                shape + (max_steps + 1,), NaN from where a system has stopped; one norm a step.
            callback: called with a `Progress` after every evaluation of the solve: step, and per
                system residual, tolerance and whether it goes on; `ProgressBar` is one. Two norms
                a step, and an accelerator is waited for. In traced JAX by jax.debug.callback, for
                each sample of a vmap, and perhaps late (jax.effects_barrier waits); in a
                tf.function by tf.py_function. What it raises ends an eager solve.
            budget: most steps of this call, 1 ≤ budget ≤ max_steps, where max_steps is what was
                compiled for: another budget compiles nothing anew. An integer or, in traced code,
                an integer tensor without axes, which is brought into that range. A system that
                it stops is MAX_STEPS. The adjoint solve has max_steps still.

        Returns:
            A `Solution`.

        Raises:
            InputError: an argument is not usable; a callback within XLA in TensorFlow, within
                torch.func.vmap with Unrolled(), or with Unrolled(checkpoint=...), which would
                tell of every step twice.
            MapError: f(z) does not look like z, or depends on the batch where compact is given.
            ConvergenceError: a system failed and ``on_failure="raise"``.

        Warns:
            ConvergenceWarning: a system failed and ``on_failure="warn"``.
            PrecisionWarning: rtol was below what the dtype resolves and was raised.
        """
        ...


def bind_fixed_point(backend: Backend, default_solver: AbstractSolver) -> FixedPoint:
    """``fixed_point`` of a backend."""

    def fixed_point(
        f: Callable[..., Any],
        z0: Any,
        args: tuple[Any, ...] = (),
        *,
        solver: AbstractSolver | None = None,
        adjoint: AbstractAdjoint | None = None,
        rtol: float | None = None,
        atol: float = 0.0,
        norm: str = "l2",
        max_steps: int = 100,
        batch_ndim: int = 0,
        has_aux: bool = False,
        compact: Any = None,
        on_failure: str = "warn",
        trace: bool = False,
        callback: Callback | None = None,
        budget: Any = None,
    ) -> Solution:
        problem = pose(backend, f, z0, args, batch_ndim, has_aux, on_failure)
        if budget is not None:
            problem = replace(problem, budget=make_budget(backend, problem, budget, max_steps))
        iteration = make_iteration(
            given(solver, default_solver),
            rtol,
            atol,
            norm,
            max_steps,
            problem.precision,
            backend.frames,
        )
        strategy = make_adjoint(adjoint)
        iteration = watch(iteration, trace, callback)
        if compact is not None:
            ops = backend.ops(problem.leaves, problem.batch_ndim)
            problem, iteration = compacted(problem, iteration, strategy, ops, compact)
        leaves, results, stats, aux, backward = strategy.solve(backend, problem, iteration)
        finish(backend, results, stats, on_failure, "fixed_point")
        return Solution(problem.rebuild(leaves), results, stats, aux, backward)

    fixed_point.__doc__ = FixedPoint.__call__.__doc__
    return fixed_point
