"""The table of problems and its dense reference are themselves right."""

import numpy as np
import pytest

from fpicore.verify.arrays import Layout, leaves, system_error

from .problems import PROBLEMS, problem, reference


@pytest.mark.parametrize("name", PROBLEMS)
def test_reference_is_the_chosen_fixed_point(name: str) -> None:
    found = problem(name)
    if found.exact is None:
        pytest.skip("the problem states no answer")
    layout = Layout(found.z0, found.batch_ndim)
    assert system_error(layout, reference(name).value, found.exact) < 1e-13


@pytest.mark.parametrize("name", ["affine", "scalar"])
def test_reference_gradient_is_the_known_one(name: str) -> None:
    for got, known in zip(
        reference(name).gradients, leaves(problem(name).exact_gradients), strict=True
    ):
        np.testing.assert_allclose(got, known, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", PROBLEMS)
def test_reference_gradient_is_the_slope_of_the_reference_loss(name: str) -> None:
    """Central differences of the whole solve, with no implicit function theorem in them."""
    from fpicore.verify.arrays import rebuild
    from fpicore.verify.dense import Functions
    from fpicore.verify.reference import solve_reference

    found, random = problem(name), np.random.default_rng(0)
    f, _ = found.bind("numpy", np)
    functions = Functions(f, None, "numpy", may_be_complex=True)
    flat = leaves(found.args)
    directions = [random.standard_normal(leaf.shape) for leaf in flat]

    def loss(t: float) -> float:
        args = [leaf + t * d for leaf, d in zip(flat, directions, strict=True)]
        return solve_reference(found, functions, rebuild(found.args, args), ()).loss

    slope = (loss(1e-6) - loss(-1e-6)) / 2e-6
    pairs = zip(reference(name).gradients, directions, strict=True)
    assert sum(np.sum(g * d) for g, d in pairs) == pytest.approx(slope, rel=1e-6, abs=1e-8)
