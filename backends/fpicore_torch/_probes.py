"""PyTorch's spellings of the derivatives in the matrix of ``fpicore verify``."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, func
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from fpicore.verify.probes import Case, Probe, Probes

Scalar = Callable[[Tensor], Tensor]


def _leaf(x: Tensor) -> Tensor:
    return x.requires_grad_()


def _backward(case: Case) -> Tensor:
    x = _leaf(case.x)
    case.loss(x).backward()
    assert x.grad is not None
    return x.grad


def _compiled(case: Case) -> Tensor:
    """Without the code generator, which has no part in derivatives and takes long."""
    torch.compiler.reset()
    x = _leaf(case.x)
    (found,) = torch.autograd.grad(torch.compile(case.loss, backend="aot_eager")(x), x)
    return found


class _Layer(torch.nn.Module):
    def __init__(self, case: Case) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(case.weight)
        self.bias = torch.nn.Parameter(case.x)
        self.case = case

    def forward(self, z: Tensor) -> Tensor:
        return self.case.layer(z, self.weight, self.bias)


def _functional_call(case: Case) -> tuple[Tensor, Tensor]:
    layer = _Layer(case)

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        def f(z: Tensor, parameters: dict[str, Tensor]) -> Tensor:
            return func.functional_call(layer, parameters, (z,))

        if case.way == "closure":
            z = case.solve(lambda z: f(z, parameters), torch.zeros_like(case.x))
        else:
            z = case.solve(f, torch.zeros_like(case.x), (parameters,))
        return case.weigh(z)

    found = func.grad(loss)({k: p.detach() for k, p in layer.named_parameters()})
    return found["weight"], found["bias"]


def _gradient_of_vmap(case: Case) -> Tensor:
    x = _leaf(case.batch)
    (found,) = torch.autograd.grad(func.vmap(case.loss)(x).sum(), x)
    return found


def _checkpoint(case: Case) -> Tensor:
    x = _leaf(case.x)
    loss: Any = checkpoint(case.loss, x, use_reentrant=False)
    (found,) = torch.autograd.grad(loss, x)
    return found


def _push(function: Callable[[Tensor], Tensor], case: Case) -> Tensor:
    """The derivative along the direction, by dual numbers; x itself is a leaf."""
    with forward_ad.dual_level():
        value = function(forward_ad.make_dual(case.x.requires_grad_(), case.direction))
        tangent = forward_ad.unpack_dual(value).tangent
        assert tangent is not None
        return tangent


def _slope(case: Case, x: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(case.loss(x), x, create_graph=True)
    return found


def _recorded_product(case: Case, order: int) -> Tensor:
    """The derivative of an order, times the direction order − 1 times."""
    x = _leaf(case.x)
    found = _slope(case, x)
    for _ in range(order - 1):
        (found,) = torch.autograd.grad(found @ case.direction, x, create_graph=True)
    return found


def _compiled_product(case: Case) -> Tensor:
    torch.compiler.reset()
    x = _leaf(case.x)
    loss = torch.compile(case.loss, backend="eager")(x)
    (slope,) = torch.autograd.grad(loss, x, create_graph=True)
    return torch.autograd.grad(slope @ case.direction, x)[0]


def _reverse_over_dual(case: Case) -> Tensor:
    with forward_ad.dual_level():
        x = _leaf(case.x)
        value = case.loss(forward_ad.make_dual(x, case.direction))
        tangent = forward_ad.unpack_dual(value).tangent
        assert tangent is not None
        return torch.autograd.grad(tangent, x)[0]


def _along(case: Case, function: Callable[[Tensor], Tensor]) -> Scalar:
    return lambda x: function(x) @ case.direction


def _functional_product(case: Case, order: int) -> Tensor:
    gradient = func.grad(case.loss)
    for _ in range(order - 1):
        gradient = func.grad(_along(case, gradient))
    return gradient(case.x)


def _jvp(function: Callable[[Tensor], Tensor], case: Case) -> Tensor:
    return func.jvp(function, (case.x,), (case.direction,))[1]


PROBES: Probes = {
    (0, "value", "vmap"): Probe("func.vmap", lambda c: func.vmap(c.state)(c.batch)),
    (1, "reverse", "recorded"): Probe("Tensor.backward", _backward),
    (1, "reverse", "functional"): Probe("func.grad", lambda c: func.grad(c.loss)(c.x)),
    (1, "reverse", "in a graph"): Probe("torch.compile", _compiled),
    (1, "reverse", "parameters of a module"): Probe("func.functional_call", _functional_call),
    (1, "reverse", "Jacobian, recorded"): Probe(
        "autograd.functional.jacobian", lambda c: torch.autograd.functional.jacobian(c.state, c.x)
    ),
    (1, "reverse", "Jacobian, functional"): Probe(
        "func.jacrev", lambda c: func.jacrev(c.state)(c.x)
    ),
    (1, "reverse", "batch of Jacobians"): Probe(
        "vmap(jacrev)", lambda c: func.vmap(func.jacrev(c.state))(c.batch)
    ),
    (1, "reverse", "vmap of gradient"): Probe(
        "vmap(grad)", lambda c: func.vmap(func.grad(c.loss))(c.batch)
    ),
    (1, "reverse", "gradient of vmap"): Probe("autograd.grad of vmap", _gradient_of_vmap),
    (1, "reverse", "checkpoint"): Probe("utils.checkpoint", _checkpoint),
    (1, "forward", "recorded"): Probe("forward_ad.make_dual", lambda c: _push(c.state, c)),
    (1, "forward", "functional"): Probe("func.jvp", lambda c: _jvp(c.state, c)),
    (1, "forward", "linearize"): Probe(
        "func.linearize", lambda c: func.linearize(c.state, c.x)[1](c.direction)
    ),
    (1, "forward", "Jacobian"): Probe("func.jacfwd", lambda c: func.jacfwd(c.state)(c.x)),
    (2, "reverse over reverse", "recorded"): Probe(
        "autograd.grad", lambda c: _recorded_product(c, 2)
    ),
    (2, "reverse over reverse", "functional"): Probe(
        "grad(grad)", lambda c: _functional_product(c, 2)
    ),
    (2, "reverse over reverse", "compiled"): Probe("torch.compile", _compiled_product),
    (2, "reverse over reverse", "Implicit(order=1)"): Probe(
        "autograd.grad", lambda c: _recorded_product(c, 2)
    ),
    (2, "forward over reverse", "recorded"): Probe(
        "dual autograd.grad", lambda c: _push(lambda x: _slope(c, x), c)
    ),
    (2, "forward over reverse", "functional"): Probe(
        "jvp(grad)", lambda c: _jvp(func.grad(c.loss), c)
    ),
    (2, "forward over reverse", "Hessian"): Probe(
        "func.hessian", lambda c: func.hessian(c.loss)(c.x)
    ),
    (2, "reverse over forward", "recorded"): Probe("autograd.grad of dual", _reverse_over_dual),
    (2, "reverse over forward", "functional"): Probe(
        "grad(jvp)",
        lambda c: func.grad(lambda x: func.jvp(c.loss, (x,), (c.direction,))[1])(c.x),
    ),
    (3, "reverse over reverse", "recorded"): Probe(
        "autograd.grad", lambda c: _recorded_product(c, 3)
    ),
    (3, "reverse over reverse", "functional"): Probe(
        "grad(grad(grad))", lambda c: _functional_product(c, 3)
    ),
}
"""By order, mode and transform. ``func`` is torch.func."""
