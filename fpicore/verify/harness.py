"""Harness: what a backend supplies to be verified, and what all of them do alike."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .._adjoint import AbstractAdjoint
from .._solver import AbstractSolver
from ..adjoints import Implicit
from .arrays import Array, Tree, cast, convert, leaves, leaves_like, rebuild, weighted_sum
from .probes import Probes
from .problem import Problem

Leaves = tuple[Any, ...]
Entries = dict[str, Any]
"""What a solve yields: value (a tuple of leaves), loss, and the entries of result and stats."""


class Run(NamedTuple):
    """A solve and its gradients, in NumPy arrays."""

    value: Tree
    loss: float
    gradients: tuple[Array, ...]
    codes: Array
    """Per system a `Result`."""
    steps: Array
    evaluations: int
    residual: Array


@dataclass(frozen=True, eq=False)
class Task:
    """A problem bound to a framework: what to solve and how."""

    problem: Problem
    map: Callable[..., Any]
    """Plain ``f(z, *args, *data)`` on the framework's tensors."""
    loss: Callable[..., Any] | None
    """Plain ``loss(z, *args, *data)``; None is Σ cotangent·z."""
    solver: AbstractSolver
    rtol: float
    """Relative tolerance of the solve and of its adjoint."""
    dtype: str
    mode: str
    """One of the harness's modes."""
    strategy: AbstractAdjoint | None = None
    """The gradient strategy; None is the exact one, as tight as the solve."""

    def adjoint(self) -> AbstractAdjoint:
        """The gradient strategy."""
        if self.strategy is not None:
            return self.strategy
        return Implicit(rtol=self.rtol, max_steps=self.problem.max_steps, on_failure="ignore")


class Harness(ABC):
    """Solves and differentiates a task in one framework; NumPy arrays in and out."""

    name: ClassVar[str]
    """The framework, as in ``--backend``."""
    modes: ClassVar[tuple[str, ...]]
    """Ways to run it; the first is the default."""
    library: ClassVar[ModuleType]
    """The backend package."""
    probes: ClassVar[Probes] = {}
    """How the framework spells the derivatives of the matrix; those it has not are left out."""
    ways: ClassVar[tuple[str, ...]] = ("both",)
    """How x reaches the map of a probe, one run for each: "argument", "closure", or "both" in one
    run, where the two are the same to the framework."""

    @property
    @abstractmethod
    def namespace(self) -> Any:
        """The xp that maps in array-API style receive."""

    @abstractmethod
    def asarray(self, array: Array) -> Any:
        """A tensor with the dtype of a NumPy array."""

    @abstractmethod
    def to_numpy(self, tensor: Any) -> Array:
        """The NumPy array of a tensor."""

    @abstractmethod
    def differentiate(
        self, task: Task, z0: Tree, args: Leaves, data: Leaves
    ) -> tuple[Entries, Leaves]:
        """What the solve yields, and the gradient of the loss for every leaf of args.

        ``args`` are the leaves of the task's args, ``data`` the task's data with its structure.
        """

    def compile(self, function: Callable[..., Any], mode: str) -> Callable[..., Any]:
        """The function as the mode runs it; itself where a framework runs eagerly."""
        del mode
        return function

    def offers(self, adjoint: AbstractAdjoint) -> bool:
        """Whether the framework has this gradient strategy."""
        del adjoint
        return True

    def settle(self) -> None:
        """Wait until callbacks from compiled code have run; eager code has nothing to wait for."""
        return

    def precision(self, dtype: str) -> AbstractContextManager[Any]:
        """A context in which the framework keeps tensors of this dtype."""
        del dtype
        return nullcontext()

    def prepare(self, task: Task) -> Callable[[tuple[Any, ...], tuple[Any, ...]], Run]:
        """A function of args and data, nested NumPy arrays, that solves and differentiates.

        Raises:
            InputError: the map is not usable, as in ``fixed_point``.
        """

        def compute(z0: Leaves, args: Leaves, data: Leaves) -> tuple[Entries, Leaves]:
            start = rebuild(task.problem.z0, z0)
            return self.differentiate(task, start, args, rebuild(task.problem.data, data))

        compiled = self.compile(compute, task.mode)

        def run(args: tuple[Any, ...], data: tuple[Any, ...]) -> Run:
            with self.precision(task.dtype):
                inputs = [self._tensors(tree, task.dtype) for tree in (task.problem.z0, args, data)]
                entries, gradients = compiled(*inputs)
                found = {key: self._number(entries[key]) for key in entries if key != "value"}
                value = rebuild(task.problem.z0, [self.to_numpy(z) for z in entries["value"]])
                return Run(
                    value=value,
                    gradients=tuple(self.to_numpy(g) for g in gradients),
                    loss=float(found["loss"]),
                    codes=found["codes"],
                    steps=found["steps"],
                    evaluations=int(found["evaluations"]),
                    residual=found["residual"],
                )

        return run

    def on_numpy(self, function: Callable[..., Any]) -> Callable[..., Tree]:
        """A function of tensors as a function of float64 NumPy trees."""
        compiled = self.compile(function, self.modes[0])

        def call(*trees: Tree) -> Tree:
            with self.precision("float64"):
                return convert(self.to_numpy, compiled(*convert(self.asarray, trees)))

        return call

    def loss(self, task: Task, value: Tree, args: tuple[Any, ...], data: tuple[Any, ...]) -> Any:
        """The task's loss at a value."""
        if task.loss is not None:
            return task.loss(value, *args, *data)
        weights = convert(lambda v: self.asarray(cast(v, task.dtype)), task.problem.cotangent)
        return weighted_sum(self.namespace, weights, value)

    def objective(
        self, task: Task, z0: Tree, data: tuple[Any, ...]
    ) -> Callable[[Leaves], tuple[Any, Entries]]:
        """The loss as a function of the leaves of args, with what the solve yields."""

        def objective(parameters: Leaves) -> tuple[Any, Entries]:
            args = rebuild(task.problem.args, parameters)
            solution = self.library.fixed_point(
                task.map,
                z0,
                (*args, *data),
                solver=task.solver,
                adjoint=task.adjoint(),
                rtol=task.rtol,
                max_steps=task.problem.max_steps,
                batch_ndim=task.problem.batch_ndim,
                on_failure="ignore",
            )
            loss = self.loss(task, solution.value, args, data)
            return loss, {
                "value": leaves_like(solution.value, task.problem.z0),
                "loss": loss,
                "codes": solution.result.codes,
                "steps": solution.stats.steps,
                "evaluations": solution.stats.evaluations,
                "residual": solution.stats.residual,
            }

        return objective

    def _tensors(self, tree: Tree, dtype: str) -> Leaves:
        return tuple(self.asarray(cast(np.asarray(leaf), dtype)) for leaf in leaves(tree))

    def _number(self, value: Any) -> Array:
        plain = isinstance(value, (int, float, np.ndarray, np.generic))
        return np.asarray(value) if plain else self.to_numpy(value)
