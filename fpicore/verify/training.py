"""Training: a problem solved again after each optimiser step, and a plain problem as one step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from .arrays import Array, leaves, rebuild
from .problem import Problem


@dataclass(frozen=True, eq=False)
class Training:
    """Steps of gradient descent with momentum, m ← μ·m + gradient and args ← args − η·m.

    The update is written on float64 NumPy arrays, so that it is the same for every framework.
    """

    problem: Problem
    batches: tuple[tuple[Any, ...], ...]
    """The problem's ``data``, one tuple for each step."""
    learning_rate: float
    momentum: float


Subject = Problem | Training
"""What can be verified."""


class Outcome(Protocol):
    """What one step yields, from the reference or from a framework."""

    @property
    def gradients(self) -> tuple[Array, ...]:
        """∂loss/∂leaf for every leaf of args, in order."""
        ...


O = TypeVar("O", bound=Outcome)  # noqa: E741
Evaluate = Callable[[tuple[Any, ...], tuple[Any, ...]], O]
"""Solves and differentiates a problem for given args and data."""


def problem_of(subject: Subject) -> Problem:
    """The problem that is solved in each step."""
    return subject.problem if isinstance(subject, Training) else subject


def follow(subject: Subject, evaluate: Evaluate[O]) -> list[O]:
    """The outcomes along the steps; a plain problem has one step."""
    if isinstance(subject, Problem):
        return [evaluate(subject.args, subject.data)]
    args = subject.problem.args
    momenta = [np.zeros_like(leaf) for leaf in leaves(args)]
    outcomes = []
    for data in subject.batches:
        outcome = evaluate(args, data)
        outcomes.append(outcome)
        pairs = zip(momenta, outcome.gradients, strict=True)
        momenta = [subject.momentum * m + np.asarray(g, np.float64) for m, g in pairs]
        moved = zip(leaves(args), momenta, strict=True)
        args = rebuild(args, [leaf - subject.learning_rate * m for leaf, m in moved])
    return outcomes
