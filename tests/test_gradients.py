"""First-order gradients against the dense reference: problem × solver × framework × mode."""

import itertools
from functools import cache

import numpy as np
import pytest

from fpicore import Implicit
from fpicore.verify.arrays import Layout, leaf_error, system_error
from fpicore.verify.frameworks import installed
from fpicore.verify.harness import Run
from fpicore.verify.problem import FRAMEWORKS

from .labs import Lab
from .problems import SOLVERS, cases, problem, reference

HARD = ("expansive", "nested", "batch", "twice")
LEFT_OUT = [case for case in cases() if case[1] == "newton_krylov" and case[0] not in HARD]
"""Slow to compile; the eager frameworks solve them."""
LEAN = Implicit(fallback=None, on_failure="ignore")
"""A loop less to compile, where the hard problems have it."""


@cache
def run(framework: str, name: str, solver: str, mode: str) -> Run:
    """Kept, because agreement is asked of what was compared with the reference already."""
    lab = Lab(framework)
    adjoint = LEAN if mode == "jit" and name not in HARD else None
    with lab.precision():
        return lab.solve(problem(name), SOLVERS[solver], mode, adjoint)


def _check(lab: Lab, name: str, solver: str, mode: str) -> None:
    found = run(lab.name, name, solver, mode)
    truth = reference(name)
    layout = Layout(problem(name).z0, problem(name).batch_ndim)
    assert not np.any(found.codes)
    assert system_error(layout, found.value, truth.value) < 1e-9
    assert leaf_error(found.gradients, truth.gradients) < 1e-9


@pytest.mark.only("numpy", "torch", "tensorflow")
@pytest.mark.modes("eager")
@pytest.mark.parametrize(("name", "solver"), cases())
def test_eager(lab: Lab, mode: str, name: str, solver: str) -> None:
    _check(lab, name, solver, mode)


@pytest.mark.only("jax")
@pytest.mark.modes("jit")
@pytest.mark.parametrize(("name", "solver"), [c for c in cases() if c not in LEFT_OUT])
def test_jit(lab: Lab, mode: str, name: str, solver: str) -> None:
    _check(lab, name, solver, mode)


@pytest.mark.only("jax")
@pytest.mark.modes("eager")
@pytest.mark.parametrize(("name", "solver"), [("nested", "anderson")])
def test_eager_jax(lab: Lab, mode: str, name: str, solver: str) -> None:
    _check(lab, name, solver, mode)


@pytest.mark.only("tensorflow")
@pytest.mark.modes("graph", "xla")
@pytest.mark.parametrize(
    ("name", "solver"), [("nested", "picard"), ("batch", "anderson"), ("expansive", "broyden")]
)
def test_compiled(lab: Lab, mode: str, name: str, solver: str) -> None:
    _check(lab, name, solver, mode)


@pytest.mark.parametrize(("name", "solver"), cases(*HARD))
def test_frameworks_agree(pytestconfig: pytest.Config, name: str, solver: str) -> None:
    """Every pair of frameworks, to 1e-10, values and gradients."""
    named = pytestconfig.getoption("--backend")
    names = [n for n in FRAMEWORKS if (n in named if named else installed(n))]
    if len(names) < 2:
        pytest.skip("one framework has nothing to agree with")
    modes = {"jax": "jit"}
    found = [run(framework, name, solver, modes.get(framework, "eager")) for framework in names]
    layout = Layout(problem(name).z0, problem(name).batch_ndim)
    for a, b in itertools.combinations(found, 2):
        assert a.evaluations == b.evaluations
        assert system_error(layout, a.value, b.value) < 1e-10
        assert leaf_error(a.gradients, b.gradients) < 1e-10
