"""First-order gradients against the dense reference: problem × solver × framework × mode."""

from typing import Any

import numpy as np
import pytest

from fpicore.verify.arrays import Layout, leaf_error, system_error

from .labs import Lab
from .problems import SOLVERS, cases, problem, reference

EXPENSIVE = ("jit", "graph", "xla")


def _check(lab: Lab, name: str, solver: str, mode: str) -> None:
    found = lab.solve(problem(name), SOLVERS[solver], mode=mode)
    truth = reference(name)
    layout = Layout(problem(name).z0, problem(name).batch_ndim)
    assert not np.any(found.codes)
    assert system_error(layout, found.value, truth.value) < 1e-9
    assert leaf_error(found.gradients, truth.gradients) < 1e-9


@pytest.mark.modes("eager")
@pytest.mark.parametrize(("name", "solver"), cases())
def test_eager(lab: Lab, mode: str, name: str, solver: str) -> None:
    _check(lab, name, solver, mode)


@pytest.mark.modes(*EXPENSIVE)
@pytest.mark.parametrize(
    ("name", "solver"), [*cases("nested", "batch"), ("expansive", "broyden"), ("tanh", "anderson")]
)
def test_compiled(lab: Lab, mode: str, name: str, solver: str) -> None:
    _check(lab, name, solver, mode)


@pytest.mark.parametrize(("name", "solver"), cases())
def test_frameworks_agree(name: str, solver: str, pytestconfig: Any) -> None:
    raise NotImplementedError
