"""What the experiments of the paper take from a framework is the same in all three."""

import numpy as np
import pytest
from scipy.ndimage import correlate

from benchmarks.paper.frameworks import NAMES, Arrays, Framework, open_framework


@pytest.fixture(params=NAMES)
def framework(request: pytest.FixtureRequest) -> Framework:
    """Each of them."""
    return open_framework(request.param)


def pictures() -> Arrays:
    """Two pictures of three channels, and five filters, taller than wide."""
    random = np.random.default_rng(0)
    return {
        "x": random.standard_normal((2, 7, 6, 3)).astype(np.float32),
        "kernel": random.standard_normal((5, 3, 3, 5)).astype(np.float32),
    }


def test_convolution(framework: Framework) -> None:
    """It is SciPy's correlation, mirrored at the outermost pixels."""
    given = pictures()
    found = framework.forward(lambda p, b: framework.conv(b["x"], p["kernel"]))(given, given)
    expected = np.zeros((2, 7, 6, 5))
    for n, i, o in np.ndindex(2, 3, 5):
        plane, kernel = given["x"][n, :, :, i], given["kernel"][:, :, i, o]
        expected[n, :, :, o] += correlate(plane.astype(float), kernel, mode="mirror")
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_derivatives_of_a_convolution(framework: Framework) -> None:
    """By central differences, of both arguments at once."""
    given = pictures()
    random = np.random.default_rng(1)
    way = {name: random.standard_normal(x.shape).astype(np.float32) for name, x in given.items()}
    step = framework.step(
        lambda p, _: (framework.sum(framework.log1p(framework.conv(p["x"], p["kernel"]) ** 2)), {})
    )
    gradients = step(given, {})[2]
    slope = sum(float(np.sum(gradients[name] * way[name])) for name in given)
    h = 3e-3
    ahead, behind = (step({k: x + s * way[k] for k, x in given.items()}, {})[0] for s in (h, -h))
    assert (ahead - behind) / (2 * h) == pytest.approx(slope, rel=1e-2)


def test_a_step_down_an_energy_of_filters_is_differentiable(framework: Framework) -> None:
    """The gradient of its length; in each framework that of E itself where ∂E/∂x is linear."""
    given = pictures()

    def loss(p: Arrays, _: Arrays) -> tuple[Arrays, Arrays]:
        move = framework.fpi.gradient_step(
            lambda x, k: 0.5 * framework.sum(framework.conv(x, k) ** 2), 1.0
        )
        down = p["x"] - move(p["x"], p["kernel"])
        return framework.sum(down * p["x"]) / 2.0, {}

    def energy(p: Arrays, _: Arrays) -> tuple[Arrays, Arrays]:
        return 0.5 * framework.sum(framework.conv(p["x"], p["kernel"]) ** 2), {}

    through, direct = framework.step(loss)(given, {}), framework.step(energy)(given, {})
    assert through[0] == pytest.approx(direct[0], rel=1e-5)
    for name, gradient in direct[2].items():
        scale = float(np.abs(gradient).max())
        np.testing.assert_allclose(through[2][name], gradient, atol=1e-5 * scale)
