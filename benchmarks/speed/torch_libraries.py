"""The cases of eager PyTorch: fpicore, torchdeq, xitorch and loops written by hand."""

import warnings
from typing import Any

import torch

from .ours import ours
from .runners import Case, Task


def fpicore_cases(problem: Any) -> list[Case]:
    """Every solver, for one system and for a batch of them."""
    import fpicore_torch as fpi

    return ours(fpi, problem)


def torchdeq_cases(problem: Any) -> list[Case]:
    """The defaults as they are; each solver with the implicit gradient and a relative stop."""
    from torchdeq import get_deq

    def case(label: str, tuned: str = "relative", **options: Any) -> Case:
        def solve(task: Task, tolerance: float, most: int) -> tuple[Any, Any]:
            limits = {"f_max_iter": most, "b_max_iter": most, "f_tol": tolerance}
            deq = get_deq(**(({**limits, "b_tol": problem.rtol} if tuned else {}) | options))
            deq.train(torch.is_grad_enabled())
            if isinstance(task.z0, tuple):
                found, _ = deq(lambda *z: list(task.at(z)), list(task.z0))
                return tuple(found[-1]), None
            return deq(task.at, task.z0)[0][-1], None

        settings = ", ".join(f"{k}={v}" for k, v in options.items()) or "none given"
        return Case(label, settings, solve, tuned, tight=True)

    best = {"ift": True, "f_stop_mode": "rel", "b_stop_mode": "rel"}
    pairs = (("fixed_point_iter", "fixed_point_iter"), ("anderson", "anderson"),
             ("broyden", "broyden"))  # fmt: skip
    tuned = [
        case(f"{f} / {b}", f_solver=f, b_solver=b, **(best | {"hook_ift": hook}))
        for f, b in pairs
        for hook in ((False, True) if f == "anderson" else (False,))
    ]
    named = [
        one._replace(label=f"{one.label}, hook") if "hook_ift=True" in one.settings else one
        for one in tuned
    ]
    return [case("defaults", tuned=""), *named]


def xitorch_cases(problem: Any) -> list[Case]:
    """The defaults (broyden1 and a dense adjoint); both solvers with a Krylov adjoint."""
    from xitorch.optimize import equilibrium

    def case(label: str, tuned: str = "absolute", **options: Any) -> Case:
        def solve(task: Task, tolerance: float, most: int) -> tuple[Any, Any]:
            if isinstance(task.z0, tuple):
                raise NotImplementedError("xitorch takes one tensor, not a nested state")
            names = list(task.params)

            def f(z: Any, *values: Any) -> Any:
                return task.f(z, dict(zip(names, values, strict=True)))

            if not tuned and problem.size > 512:
                raise NotImplementedError(f"a dense Jacobian of {problem.size} unknowns")
            more = options | {"maxiter": most}
            if tuned:
                more |= {"f_tol": tolerance, "x_tol": float("inf")}
                more["bck_options"] = {"method": "bicgstab", "rtol": problem.rtol}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return equilibrium(f, task.z0, tuple(task.params.values()), **more), None

        settings = ", ".join(f"{k}={v}" for k, v in options.items()) or "none given"
        return Case(label, settings, solve, tuned)

    features = problem.z0[0].ndim - problem.batch_ndim
    return [
        case("defaults", tuned=""),
        case("anderson_acc / bicgstab", method="anderson_acc", msize=6, feat_ndims=features),
        case("broyden1 / bicgstab", method="broyden1", alpha=-1.0),
    ]


def bare_cases(problem: Any) -> list[Case]:
    """Plain iteration and Anderson as one writes them by hand; g ← Jᵀg + v in a hook."""

    def plain(task: Task, tolerance: float, most: int) -> tuple[Any, Any]:
        with torch.no_grad():
            z, count = _plain(lambda z: _leaves(task.at(_state(z))), _leaves(task.z0), tolerance)
        return _attached(task, z, problem.rtol), count

    def mixed(task: Task, tolerance: float, most: int) -> tuple[Any, Any]:
        if isinstance(task.z0, tuple):
            raise NotImplementedError("written for one tensor")
        with torch.no_grad():
            z, count = bare_anderson(task.at, task.z0, tolerance, most)
        return _attached(task, (z,), problem.rtol), count

    return [
        Case("plain loop", "one stop test for all systems", plain),
        Case("Anderson loop", "6 pairs, ridge 1e-6, plain adjoint", mixed),
    ]


def _leaves(z: Any) -> tuple[Any, ...]:
    return z if isinstance(z, tuple) else (z,)


def _state(leaves: tuple[Any, ...]) -> Any:
    return leaves if len(leaves) > 1 else leaves[0]


def _norm(leaves: Any) -> Any:
    if len(leaves) == 1:
        return leaves[0].norm()
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(x) for x in leaves]))


def _plain(f: Any, z: Any, rtol: float, most: int = 1000) -> tuple[Any, int]:
    count = 1
    while True:
        fz = f(z)
        gap = [b - a for a, b in zip(z, fz, strict=True)]
        if _norm(gap) <= rtol * _norm(fz) or count == most:
            return z, count
        z, count = fz, count + 1


def _attached(task: Task, z: Any, rtol: float) -> Any:
    """f(z) with the implicit gradient behind it."""
    if not any(p.requires_grad for p in task.params.values()):
        return _state(z)
    at = tuple(leaf.detach().requires_grad_() for leaf in z)
    inner = _leaves(task.at(_state(at)))

    class Adjoint(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *leaves: Any) -> Any:
            return tuple(leaf.view_as(leaf) for leaf in leaves)

        @staticmethod
        def backward(ctx: Any, *v: Any) -> Any:
            def pull(g: Any) -> Any:
                products = torch.autograd.grad(inner, at, g, retain_graph=True)
                return tuple(a + b for a, b in zip(products, v, strict=True))

            return _plain(pull, v, rtol)[0]

    return _state(Adjoint.apply(*_leaves(task.at(_state(z)))))


def bare_anderson(f: Any, start: Any, rtol: float, most: int, history: int = 6) -> tuple[Any, int]:
    """Type II on a batch of rows, with one stop test for all."""
    rows = start.flatten(1)
    size, columns = rows.shape
    like = {"dtype": torch.float64 if start.dtype == torch.float64 else torch.float32}
    points, values = (torch.zeros(size, history, columns, **like) for _ in range(2))
    system = torch.zeros(size, history + 1, history + 1, **like)
    system[:, 0, 1:] = system[:, 1:, 0] = 1
    right = torch.zeros(size, history + 1, 1, **like)
    right[:, 0] = 1
    z = start
    for step in range(most):
        slot, used = step % history, min(step + 1, history)
        fz = f(z)
        if (fz - z).norm() <= rtol * fz.norm():
            return z, step + 1
        points[:, slot], values[:, slot] = z.flatten(1), fz.flatten(1)
        gaps = values[:, :used] - points[:, :used]
        ridge = 1e-6 * torch.eye(used, **like)
        system[:, 1 : used + 1, 1 : used + 1] = torch.bmm(gaps, gaps.transpose(1, 2)) + ridge
        solved = torch.linalg.solve(system[:, : used + 1, : used + 1], right[:, : used + 1])
        mixed = (solved[:, 1:, 0].unsqueeze(1) @ values[:, :used])[:, 0]
        z = mixed.view_as(start).to(start.dtype)
    return z, most
