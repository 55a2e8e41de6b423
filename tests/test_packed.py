"""A small state of several leaves is iterated as one, and nobody but the clock can tell."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

from fpicore import AbstractPullBack, Leaves, MapError, Ops, Packing, Picard, Point
from fpicore._packed import FEW

from .labs import Lab

RANDOM = np.random.default_rng(5)
SHIFT, ALONG = RANDOM.standard_normal((2, 4))
STAGED = pytest.mark.modes("jit", "graph")


@dataclass(frozen=True)
class Seeing(Picard):
    """Notes how many leaves it is given."""

    seen: ClassVar[list[int]] = []
    remembers: ClassVar[bool] = True  # unlike Picard, which XLA does not need a packing for

    def step(self, ops: Ops, point: Point, state: Any) -> tuple[Leaves, Any]:
        self.seen.append(len(point.z))
        return super().step(ops, point, state)


@dataclass(frozen=True)
class Particular(Seeing):
    """A solver that may tell leaves apart, as one does that says nothing."""

    uniform: ClassVar[bool] = False


@dataclass(frozen=True)
class Forgetful(Seeing):
    """A solver without a state."""

    remembers: ClassVar[bool] = False


@dataclass(frozen=True)
class OwnAdjoint(AbstractPullBack):
    """Likewise."""

    def pull_back(self, ops: Ops, product: Any, v: Any, forward: Any, tangent: bool = False) -> Any:
        raise NotImplementedError


def coupled(xp: Any, shift: Any) -> Any:
    """A map of leaves of three ranks."""

    def f(z: Any) -> Any:
        grid, (line, level) = z["grid"], z["rest"]
        return {
            "grid": 0.4 * xp.tanh(grid + level) + shift[0],
            "rest": (0.3 * (line + grid[0, 1:]) + shift[1:3], 0.2 * line[0] * level + shift[3]),
        }

    return f


ZERO: Any = {"grid": np.zeros((2, 3)), "rest": (np.zeros(2), np.zeros(()))}


def objective(xp: Any, z: Any) -> Any:
    """Of all leaves."""
    line, level = z["rest"]
    return xp.sum(z["grid"] ** 2) + level**2 + xp.sum(line) * level


def slopes(x: np.ndarray) -> np.ndarray:
    """The derivative of the objective at the fixed point, by complex steps."""
    found = []
    for direction in np.eye(len(x)):
        z = ZERO
        for _ in range(100):
            z = coupled(np, x + 1e-30j * direction)(z)
        found.append(objective(np, z).imag / 1e-30)
    return np.array(found)


def loss(lab: Lab, **options: Any) -> Any:
    """The objective at the fixed point, as a function of the shift."""

    def function(x: Any) -> Any:
        f = coupled(lab.xp, x)
        sol = lab.fpi.fixed_point(f, lab.tensor(ZERO), rtol=1e-12, max_steps=200, **options)
        return objective(lab.xp, sol.value)

    return function


def seen(lab: Lab, mode: str, zero: Any, solver: Any = None, **options: Any) -> set[int]:
    """Leaves of what the solver works on."""
    Seeing.seen.clear()
    options = {"solver": solver or Seeing(), "on_failure": "ignore", "max_steps": 2, **options}

    def run(zero: Any) -> Any:
        def f(z: Any) -> Any:
            assert isinstance(z, tuple)
            return tuple(0.5 * leaf for leaf in z)

        return lab.fpi.fixed_point(f, zero, **options).value

    value = lab.numpy(lab.compiled(run, mode)(zero))
    assert [x.shape for x in value] == [tuple(x.shape) for x in zero]
    return set(Seeing.seen)


@STAGED
def test_small_state_is_one_leaf(lab: Lab, mode: str) -> None:
    zero = lab.tensor((np.ones((2, 3)), np.ones((2, 2, 2))))
    assert seen(lab, mode, zero, batch_ndim=1) == {1}
    assert seen(lab, mode, zero, Particular()) == {2}
    assert seen(lab, mode, zero, adjoint=OwnAdjoint()) == {2}


@STAGED
def test_solver_without_memory(lab: Lab, mode: str) -> None:
    """What is compiled as a whole has nothing to gain there."""
    zero = lab.tensor((np.ones((2, 3)), np.ones((2, 2))))
    assert seen(lab, mode, zero, Forgetful()) == {2 if lab.name == "jax" else 1}


@pytest.mark.only("jax")
@pytest.mark.modes("jit")
def test_state_on_a_mesh(lab: Lab, mode: str) -> None:
    """It would be gathered; one device is enough for JAX to say so."""
    import jax

    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("d",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("d"))
    zero = lab.tensor((np.ones((2, 3)), np.ones((2, 2))))
    assert seen(lab, mode, tuple(jax.device_put(leaf, rows) for leaf in zero)) == {2}


@pytest.mark.only("jax")
@pytest.mark.modes("jit")
def test_weak_type_of_a_leaf(lab: Lab, mode: str) -> None:
    """It decides what the value is promoted to later."""
    import jax
    import jax.numpy as jnp

    def run(x: Any) -> Any:
        f = lambda z: (0.5 * z[0] + 1.0, 0.5 * z[1] + x)  # noqa: E731
        zero = jnp.asarray(0.0), jnp.zeros(2, x.dtype)
        return lab.fpi.fixed_point(f, zero, solver=lab.fpi.Anderson(2), rtol=1e-2).value

    value = jax.jit(run)(jnp.ones(2))
    assert [jax.typeof(leaf).weak_type for leaf in value] == [True, False]


@STAGED
def test_other_states_keep_their_leaves(lab: Lab, mode: str) -> None:
    one = np.ones(2)
    assert seen(lab, mode, lab.tensor((one, one.astype("float32")))) == {2}
    assert seen(lab, mode, lab.tensor((one, one.astype("complex128")))) == {2}
    assert seen(lab, mode, lab.tensor((one, np.ones(FEW)))) == {2}


@pytest.mark.modes("eager")
@pytest.mark.only("jax", "tensorflow")
def test_eager_states_keep_their_leaves(lab: Lab, mode: str) -> None:
    """A concatenation and a split in each evaluation cost more than they save."""
    assert seen(lab, mode, lab.tensor((np.ones(2), np.ones(3)))) == {2}


LEAN: dict[str, Any] = {"fallback": None, "on_failure": "ignore"}


@STAGED
def test_gradient(lab: Lab, mode: str) -> None:
    """What a solver remembers reaches the adjoint as it is."""
    fpi: Any = lab.fpi
    function = loss(lab, solver=fpi.Anderson(2), adjoint=fpi.Implicit(reuse=True, **LEAN))
    found = lab.gradient(function, SHIFT, mode=mode)[0]
    np.testing.assert_allclose(found, slopes(SHIFT), rtol=1e-9)


@STAGED
def test_second_derivative(lab: Lab, mode: str) -> None:
    function = loss(lab, solver=Seeing(), adjoint=lab.fpi.Implicit(**LEAN))
    found = lab.hessian_product(function, SHIFT, ALONG, mode=mode)
    wanted = (slopes(SHIFT + 1e-5 * ALONG) - slopes(SHIFT - 1e-5 * ALONG)) / 2e-5
    np.testing.assert_allclose(found, wanted, rtol=1e-7)


@STAGED
def test_aux_and_certificate(lab: Lab, mode: str) -> None:
    """In the user's terms: aux at the value, the residual over all leaves."""

    def run(shift: Any) -> Any:
        f = coupled(lab.xp, shift)
        sol = lab.fpi.fixed_point(
            lambda z: (f(z), z), lab.tensor(ZERO), has_aux=True, rtol=1e-6, norm="max"
        )
        new = f(sol.value)
        parts = zip((new["grid"], *new["rest"]), (sol.value["grid"], *sol.value["rest"]),
                    strict=True)  # fmt: skip
        return sol.value, sol.aux, sol.stats.residual, [lab.xp.max(abs(a - b)) for a, b in parts]

    value, aux, residual, gaps = lab.numpy(lab.compiled(run, mode)(lab.tensor(SHIFT)))
    for a, b in zip((value["grid"], *value["rest"]), (aux["grid"], *aux["rest"]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert residual == pytest.approx(max(gaps), rel=1e-6)


@STAGED
def test_systems_do_not_feel_each_other(lab: Lab, mode: str) -> None:
    """Complex leaves; one of the systems is not finite, in one leaf."""
    z = RANDOM.standard_normal((2, 3, 2)) + 1j * RANDOM.standard_normal((2, 3, 2))
    broken = z.copy()
    broken[0, 1, 0] = np.nan

    def run(a: Any, b: Any) -> Any:
        f = lambda z: (0.5 * z[0] + 0.1 * z[1] + a, 0.4 * z[1] - 0.2 * z[0] + b)  # noqa: E731
        options = {"batch_ndim": 1, "on_failure": "ignore"}
        sol = lab.fpi.fixed_point(f, (0.0 * a, 0.0 * b), **options)
        return sol.value, sol.result.codes

    compiled = lab.compiled(run, mode)
    (whole, codes), (rest, others) = (lab.numpy(compiled(*map(lab.tensor, x))) for x in (z, broken))
    assert codes.tolist() == [0, 0, 0]
    assert (others != 0).tolist() == [False, True, False]
    for a, b in zip(whole, rest, strict=True):
        np.testing.assert_array_equal(a[[0, 2]], b[[0, 2]])
    np.testing.assert_allclose(0.5 * whole[0] - 0.1 * whole[1], z[0], rtol=1e-3, atol=1e-3)


@STAGED
def test_a_bad_leaf_is_named_as_the_user_knows_it(lab: Lab, mode: str) -> None:
    def run(zero: Any) -> Any:
        return lab.fpi.fixed_point(lambda z: (z[0], z[1][:1]), (zero, zero)).value

    with pytest.raises(MapError, match=r"expected leaf 1 of f\(z\) .* shape \(3,\)"):
        lab.compiled(run, mode)(lab.tensor(np.ones(3)))


class _Arrays:
    fused = False
    reshape = staticmethod(np.reshape)
    concatenate = staticmethod(lambda parts: np.concatenate(parts, axis=-1))
    split = staticmethod(lambda x, sizes: np.split(x, np.cumsum(sizes)[:-1], axis=-1))


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_there_and_back(batch: tuple[int, ...]) -> None:
    """A scalar, a vector and a matrix of each system, in the order of the leaves."""
    shapes = ((*batch,), (*batch, 2), (*batch, 2, 3))
    leaves = tuple(RANDOM.standard_normal(shape) for shape in shapes)
    packing = Packing(_Arrays(), shapes, len(batch))
    (packed,) = packing.pack(leaves)
    assert packed.shape == (*batch, 9)
    np.testing.assert_array_equal(packed[..., 0], leaves[0])
    np.testing.assert_array_equal(packed[..., 3:], leaves[2].reshape(*batch, 6))
    for found, leaf in zip(packing.unpack((packed,)), leaves, strict=True):
        np.testing.assert_array_equal(found, leaf)
