"""PyTorch: torch.func transforms and forward mode, against the same of very many plain steps."""

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch.autograd import forward_ad, gradcheck, gradgradcheck  # noqa: E402
from torch.func import (  # noqa: E402
    functional_call,
    grad,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    vjp,
    vmap,
)

import fpicore_torch as fpi  # noqa: E402

pytestmark = pytest.mark.framework("torch")
Tensor: TypeAlias = Any
Function: TypeAlias = Callable[[Tensor], Tensor]

MATRIX = 0.3 * torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double()
THETA = torch.tensor([0.4, -0.7, 0.2], dtype=torch.float64)
STACK = torch.stack([THETA, 0.5 * THETA, -0.3 * THETA, 1.1 * THETA])
ONES = torch.ones(3, dtype=torch.float64)
OPTIONS: dict[str, Any] = {"rtol": 1e-13, "max_steps": 300}


def cell(z: Tensor, theta: Tensor) -> Tensor:
    return theta * torch.sin(MATRIX @ z + 0.2 * z) + 1.0


def zero() -> Tensor:
    return torch.zeros(3, dtype=torch.float64)


def by_argument(theta: Tensor, **options: Any) -> Tensor:
    return fpi.fixed_point(cell, zero(), (theta,), **{**OPTIONS, **options}).value


def by_closure(theta: Tensor) -> Tensor:
    return fpi.fixed_point(lambda z: cell(z, theta), zero(), **OPTIONS).value


def by_computed_closure(theta: Tensor) -> Tensor:
    """θ itself and a tensor made of it are both captured."""
    double = 2.0 * theta
    return fpi.fixed_point(lambda z: cell(z, 3.0 * theta - double), zero(), **OPTIONS).value


def dense(theta: Tensor) -> Tensor:
    z = zero()
    for _ in range(120):
        z = cell(z, theta)
    return z


def by_unrolling(theta: Tensor) -> Tensor:
    return by_argument(theta, adjoint=fpi.Unrolled())


def scalar(solve: Function) -> Function:
    return lambda t: (solve(t) ** 2).sum() + solve(t).prod()


TRANSFORMS: dict[str, Callable[[Function], Tensor]] = {
    "grad": lambda s: grad(scalar(s))(THETA),
    "vjp": lambda s: vjp(s, THETA)[1](ONES)[0],  # pyright: ignore[reportCallIssue]
    "jvp": lambda s: jvp(s, (THETA,), (ONES,))[1],
    "jacrev": lambda s: jacrev(s)(THETA),
    "jacfwd": lambda s: jacfwd(s)(THETA),
    "hessian": lambda s: hessian(scalar(s))(THETA),
    "jacrev of jacrev": lambda s: jacrev(jacrev(s))(THETA),
    "jacfwd of jacfwd": lambda s: jacfwd(jacfwd(s))(THETA),
    "jacrev of jacfwd": lambda s: jacrev(jacfwd(s))(THETA),
    "third, reverse": lambda s: jacrev(jacrev(jacrev(s)))(THETA),
    "third, forward": lambda s: jacfwd(jacfwd(jacfwd(s)))(THETA),
    "third, mixed": lambda s: jacfwd(jacfwd(jacrev(s)))(THETA),
    "vmap": lambda s: vmap(s)(STACK),
    "vmap of vmap": lambda s: vmap(vmap(s))(STACK.view(2, 2, 3)),
    "vmap, another axis": lambda s: vmap(s, in_dims=1, out_dims=1)(STACK.T),
    "vmap of grad": lambda s: vmap(grad(scalar(s)))(STACK),
    "grad of vmap": lambda s: grad(lambda t: (vmap(s)(t) ** 2).sum())(STACK),
    "vmap of hessian": lambda s: vmap(hessian(scalar(s)))(STACK),
    "hessian of vmap": lambda s: hessian(lambda t: (vmap(s)(t) ** 2).sum())(STACK),
}


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("solve", [by_argument, by_closure, by_computed_closure])
def test_transform(name: str, solve: Any) -> None:
    found, expected = TRANSFORMS[name](solve), TRANSFORMS[name](dense)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


UNROLLED = ["grad", "jvp", "jacrev", "jacfwd", "hessian", "vmap", "vmap of vmap", "vmap of grad"]


@pytest.mark.parametrize("name", [*UNROLLED, "grad of vmap"])
def test_unrolled(name: str) -> None:
    """The program that ran is differentiated, in every mode."""
    found, expected = TRANSFORMS[name](by_unrolling), TRANSFORMS[name](dense)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_unrolled_vmap_equals_the_loop() -> None:
    """A sample that has stopped waits, so its derivative is that of its own steps."""
    solve = lambda t: by_argument(t, adjoint=fpi.Unrolled(), rtol=1e-3, solver=fpi.Picard())  # noqa: E731
    stack = torch.stack([0.01 * THETA, THETA])
    alone = torch.stack([jacrev(solve)(theta) for theta in stack])
    torch.testing.assert_close(vmap(jacrev(solve))(stack), alone, rtol=1e-12, atol=1e-14)


def test_unrolled_sample_that_would_run_off() -> None:
    """The first sample stops at once and would overflow while it waits for the second."""

    def solve(p: Tensor) -> Tensor:
        return fpi.fixed_point(
            lambda z: p[0] * z**2 + p[1] * z + p[2],
            torch.full((), 1.2, dtype=torch.float64),
            solver=fpi.Picard(), adjoint=fpi.Unrolled(), rtol=0.0, atol=0.5,
        ).value  # fmt: skip

    stack = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.97, 1.0]], dtype=torch.float64)
    alone = torch.stack([jacrev(solve)(p) for p in stack])
    torch.testing.assert_close(vmap(jacrev(solve))(stack), alone, rtol=1e-12, atol=0.0)


def test_vmap_equals_the_loop() -> None:
    """Samples stop one by one, whatever the others do."""
    together = vmap(by_argument)(STACK)
    alone = torch.stack([by_argument(theta) for theta in STACK])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=0.0)


def test_vmap_of_a_batch_and_of_the_start() -> None:
    starts = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(1)).double()

    def solve(start: Tensor, theta: Tensor) -> Tensor:
        f = lambda z: theta * torch.sin(z @ MATRIX.T) + 1.0  # noqa: E731
        return fpi.fixed_point(f, start, batch_ndim=1, **OPTIONS).value

    found = vmap(solve)(starts, STACK)
    expected = torch.stack([solve(z, t) for z, t in zip(starts, STACK, strict=True)])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0.0)
    only_start = vmap(solve, (0, None))(starts, THETA)
    torch.testing.assert_close(only_start[1], solve(starts[1], THETA), rtol=1e-12, atol=0.0)


def test_vmap_reports_each_sample() -> None:
    def solve(theta: Tensor) -> tuple[Tensor, Tensor]:
        sol = fpi.fixed_point(cell, zero(), (theta,), max_steps=3, rtol=1e-6)
        return sol.converged, sol.stats.steps

    converged, steps = vmap(solve)(torch.stack([0.0 * THETA, 1.3 * THETA]))
    assert converged.tolist() == [True, False]
    assert steps[0] < steps[1] == 3


@pytest.mark.parametrize("outer", [grad, lambda f: grad(lambda p, x: grad(f, 1)(p, x).sum())])
def test_functional_call(outer: Any) -> None:
    """The module's own parameters are back in place when derivatives are taken."""

    class Layer(torch.nn.Module):
        def __init__(self, plain: bool) -> None:
            super().__init__()
            self.plain = plain
            self.map = torch.nn.Linear(3, 3, dtype=torch.float64)

        def forward(self, x: Tensor) -> Tensor:
            f = lambda z: 0.5 * torch.tanh(self.map(z)) + x  # noqa: E731
            if self.plain:
                z = x
                for _ in range(100):
                    z = f(z)
                return z
            return fpi.fixed_point(f, zero(), **OPTIONS).value

    def answer(plain: bool) -> Any:
        torch.manual_seed(0)
        layer = Layer(plain)
        given = {k: 1.5 * v.detach() + 0.1 for k, v in layer.named_parameters()}
        return outer(lambda p, x: (functional_call(layer, p, (x,)) ** 2).sum())(given, THETA)

    answers = [answer(False), answer(True)]
    for name, found in answers[0].items():
        torch.testing.assert_close(found, answers[1][name], rtol=1e-9, atol=1e-10)


def test_per_sample_gradients_of_a_module() -> None:
    module = torch.nn.Linear(3, 3, dtype=torch.float64)

    def loss(parameters: Any, x: Tensor, steps: int = 0) -> Tensor:
        f = lambda z: 0.5 * torch.tanh(functional_call(module, parameters, (z,))) + x  # noqa: E731
        z = x
        for _ in range(steps):
            z = f(z)
        return ((z if steps else fpi.fixed_point(f, zero(), **OPTIONS).value) ** 3).sum()

    given = {k: v.detach() for k, v in module.named_parameters()}
    found = vmap(grad(loss), (None, 0))(given, STACK)
    for i, x in enumerate(STACK):
        for name, expected in grad(loss)(given, x, 100).items():
            torch.testing.assert_close(found[name][i], expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("solve", [by_argument, by_closure])
def test_dual_numbers(solve: Any) -> None:
    with forward_ad.dual_level():
        value = solve(forward_ad.make_dual(THETA, ONES))
        primal, tangent = forward_ad.unpack_dual(value)
    torch.testing.assert_close(primal, dense(THETA), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(tangent, jacfwd(dense)(THETA) @ ONES, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("solve", [by_argument, by_closure])
def test_gradcheck_in_both_modes(solve: Any) -> None:
    theta = THETA.clone().requires_grad_()
    assert gradcheck(solve, (theta,), check_forward_ad=True)
    assert gradgradcheck(solve, (theta,), check_fwd_over_rev=True, check_rev_over_rev=True)


APPROXIMATE = [fpi.OneStep(), fpi.Neumann(3), fpi.Phantom(4, 0.5)]


@pytest.mark.parametrize("adjoint", APPROXIMATE, ids=lambda a: type(a).__name__)
def test_approximate_adjoints_agree_across_modes(adjoint: Any) -> None:
    """Reverse by plain autograd, reverse by torch.func, and forward."""
    solve = lambda theta: by_argument(theta, adjoint=adjoint)  # noqa: E731
    plain = torch.autograd.functional.jacobian(solve, THETA)
    torch.testing.assert_close(jacrev(solve)(THETA), plain, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(jacfwd(solve)(THETA), plain, rtol=1e-10, atol=1e-12)


def test_autograd_around_transforms() -> None:
    theta = STACK.clone().requires_grad_()
    answers = [
        torch.autograd.grad(vmap(grad(scalar(s)))(theta).sum(), theta)[0]
        for s in (by_closure, dense)
    ]
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-9, atol=1e-10)


def test_vmap_over_a_backward_pass() -> None:
    theta = THETA.clone().requires_grad_()
    value = by_closure(theta)
    rows = vmap(lambda v: torch.autograd.grad(value, theta, v, retain_graph=True)[0])(
        torch.eye(3).double()
    )
    torch.testing.assert_close(rows, jacrev(dense)(THETA), rtol=1e-9, atol=1e-10)


def test_aux_under_a_transform() -> None:
    def with_aux(theta: Tensor) -> Tensor:
        f = lambda z: (cell(z, theta), z * theta)  # noqa: E731
        sol = fpi.fixed_point(f, zero(), has_aux=True, **OPTIONS)
        return sol.aux + sol.value

    expected = hessian(lambda t: (dense(t) * t + dense(t)).sum())(THETA)
    found = hessian(lambda t: with_aux(t).sum())(THETA)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
