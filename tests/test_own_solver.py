"""One subclass is a solver in every framework: of batches, compiled, with gradients."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fpicore.verify.arrays import leaf_error

from .labs import Lab
from .own_solver import BarzilaiBorwein
from .problems import problem, reference
from .test_anderson_kinds import family, three


def test_the_readme_shows_it() -> None:
    """Line by line, but for docstrings and imports."""
    lines = (Path(__file__).parent / "own_solver.py").read_text(encoding="utf-8").splitlines()
    shown = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    body = "\n".join(lines[lines.index("@dataclass(frozen=True)") :])
    assert body in shown
    assert len([line for line in body.splitlines() if line.strip()]) <= 20


@pytest.mark.modes("eager", "jit", "graph")
def test_systems_of_a_batch(lab: Lab, mode: str) -> None:
    """Three of them, each of which stops by itself."""

    def run(start: Any) -> Any:
        options: dict[str, Any] = {"rtol": 1e-8, "max_steps": 500, "batch_ndim": 1}
        sol = lab.fpi.fixed_point(family(lab, three()), start, solver=BarzilaiBorwein(), **options)
        return sol.value, sol.result.codes, sol.stats.steps

    value, codes, steps = lab.numpy(lab.compiled(run, mode)(lab.tensor(np.zeros((3, 6)))))
    matrices, shifts = three()
    image = (matrices @ value[..., None])[..., 0] + 0.02 * np.cos(value) + shifts
    assert not codes.any()
    assert np.linalg.norm(image - value) < 1e-7 * np.linalg.norm(value)
    assert steps[0] < steps[2]


@pytest.mark.gradients
def test_gradient(lab: Lab) -> None:
    """The adjoint equation, too, is solved by it."""
    mode = "jit" if lab.name == "jax" else "eager"
    found = lab.solve(problem("energy"), BarzilaiBorwein(), mode)
    assert not np.any(found.codes)
    assert leaf_error(found.gradients, reference("energy").gradients) < 1e-9
