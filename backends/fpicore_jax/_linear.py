"""The adjoint equation u = Ju + v as a primitive of JAX, linear in v.

`lax.custom_linear_solve` would do, but for two things. It stages its loops, and what is staged is
compiled anew in every un-jitted backward pass; and it is differentiable without end, which an
approximation of u must not be. This primitive stages what is traced. Otherwise JAX calls its
implementation with concrete arrays, and that is a `Program`, as the forward solve is.

Its operands are the residuals of the linearisation J, the forward solver's memory and v. Its
derivative is the equation with another right-hand side, its transpose that with Jᵀ.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core as jax_core
from jax.interpreters import ad, batching, mlir

from fpicore import AbstractPullBack, DerivativeError, Forward, Leaves, Results, Stats

from ._known import Map, Program, Structure
from ._lanes import staged
from ._ops import JaxOps
from ._telling import conclude, effects

Operands = tuple[Any, ...]


@jax.tree_util.register_static
@dataclass(frozen=True)
class Product:
    """(residuals, u) ↦ Ju or Jᵀu, whichever it was made of, and its transpose."""

    map: Map
    tangent: bool
    """Whether it was made of J."""

    def by(self, tangent: bool) -> Callable[[Operands, Leaves], Leaves]:
        """(residuals, u) ↦ Ju or, unless ``tangent``, Jᵀu."""
        return self.map if tangent == self.tangent else self._turned

    def _turned(self, residuals: Operands, v: Leaves) -> Leaves:
        return self.map.transposed((), (*residuals, *v))


@dataclass(frozen=True)
class Lane:
    """One vmap around the equation: which operands it maps, and what it is called."""

    axes: tuple[int | None, ...]
    size: int
    name: Any
    spmd: Any

    def over(self, function: Callable[..., Leaves]) -> Callable[..., Leaves]:
        """function(*operands), mapped."""
        return jax.vmap(
            function,
            in_axes=self.axes,
            axis_size=self.size,
            axis_name=self.name,
            spmd_axis_name=self.spmd,
        )


def to_front(
    axis: Any, operands: Any, dims: Any, always: Collection[int]
) -> tuple[list[Any], Lane]:
    """Operands with the mapped axis first, given to those as well that must ``always`` have it."""
    moved = [
        jnp.moveaxis(x, d, 0)
        if d is not None
        else (jnp.broadcast_to(x, (axis.size, *x.shape)) if i in always else x)
        for i, (x, d) in enumerate(zip(operands, dims, strict=True))
    ]
    axes = tuple(None if d is None and i not in always else 0 for i, d in enumerate(dims))
    return moved, Lane(axes, axis.size, axis.name, axis.spmd_name)


@dataclass(frozen=True)
class Equation:
    """All about u = Ju + v that is not an array."""

    product: Product
    adjoint: AbstractPullBack
    forward: Forward
    """Its memory is the structure of that among the operands."""
    ops: JaxOps
    sizes: tuple[int, int, int]
    """Of the residuals, of the memory, and of what the derivative of the answer depends on."""
    tangent: bool
    """With J, or with Jᵀ."""
    lanes: tuple[Lane, ...] = ()
    """From the innermost vmap outwards."""

    @property
    def given(self) -> int:
        """Operands before v."""
        return sum(self.sizes)

    @property
    def structure(self) -> Structure | None:
        """That of the product, with all else that there is to the equation."""
        found = self.product.map.structure
        if found is None:
            return None
        made_of = self.product.tangent, self.tangent, self.sizes
        skeleton = found.skeleton, made_of, self.adjoint, self.forward, self.ops, self.lanes
        return found._replace(skeleton=skeleton)

    def solve(self, *operands: Any) -> Leaves:
        """u."""
        run = self._solve
        for lane in self.lanes:
            run = lane.over(run)
        return run(*operands)

    def apply(self, *operands: Any) -> Leaves:
        """J or Jᵀ times what stands in the place of v."""
        run = self._apply
        for lane in self.lanes:
            run = lane.over(run)
        return run(*operands)

    def pull_back(self, operands: Operands) -> tuple[Leaves, Results, Stats]:
        """u, and how it was found, of one lane."""
        given, v = _split(operands, self.given)
        residuals, memory = given[: self.sizes[0]], given[self.sizes[0] :][: self.sizes[1]]
        return self.adjoint.pull_back(
            replace(self.ops, staged=staged(operands)),
            partial(self.product.by(self.tangent), residuals),
            v,
            self.forward._replace(memory=jax.tree.unflatten(self.forward.memory, memory)),
            self.tangent,
        )

    def _solve(self, *operands: Any) -> Leaves:
        silent = replace(self, adjoint=self.adjoint.silent())
        u, results, stats = pull_back(silent, operands)
        return conclude(self.adjoint, results, stats, u)

    def _apply(self, *operands: Any) -> Leaves:
        product = self.product.by(self.tangent)
        return product(operands[: self.sizes[0]], operands[self.given :])


pull_back = Program(Equation.pull_back, hashable=1)
"""(equation, operands) ↦ `Equation.pull_back`."""


def solve_linear(
    product: Product,
    residuals: Operands,
    v: Leaves,
    adjoint: AbstractPullBack,
    forward: Forward,
    ops: JaxOps,
    anchors: Leaves,
) -> Leaves:
    """u = Ju + v by the strategy, differentiable in v and, if the strategy is exact, in J.

    With Jᵀ if that is what ``product`` was made of. ``anchors`` are the tensors that J depends on.
    """
    memory, structure = jax.tree.flatten(forward.memory)
    sources = () if adjoint.exact else anchors  # an inexact u does not stand for its derivative
    given = (*residuals, *memory, *sources)
    equation = Equation(
        product,
        adjoint,
        forward._replace(memory=structure),
        ops,
        (len(residuals), len(memory), len(sources)),
        product.tangent,
    )
    return tuple(_linear_p.bind(*given, *v, equation=equation))


def _split(operands: Any, count: int) -> tuple[Operands, Operands]:
    return tuple(operands[:count]), tuple(operands[count:])


def _implementation(*operands: Any, equation: Equation) -> Leaves:
    return equation.solve(*operands)


def _abstract(*operands: Any, equation: Equation) -> Any:
    return operands[equation.given :], effects(equation.adjoint)


def _jvp(primals: Any, tangents: Any, *, equation: Equation) -> Any:
    """u̇ = Ju̇ + (v̇ + J̇u)."""
    given, _ = _split(primals, equation.given)
    given_dot, v_dot = _split(tangents, equation.given)
    u = tuple(_linear_p.bind(*primals, equation=equation))
    right = tuple(ad.instantiate_zeros(t) for t in v_dot)
    if any(type(t) is not ad.Zero for t in given_dot):
        if not equation.adjoint.exact:
            raise _refusal(equation.adjoint)
        moved = _moved(equation, given, given_dot, u)
        right = tuple(a + b for a, b in zip(right, moved, strict=True))
    return u, tuple(_linear_p.bind(*given, *right, equation=equation))


def _moved(equation: Equation, given: Operands, given_dot: Operands, u: Leaves) -> Leaves:
    """J̇u, from the residuals that move."""
    moving = [i for i in range(equation.sizes[0]) if type(given_dot[i]) is not ad.Zero]

    def at(values: Any) -> Leaves:
        operands = list(given)
        for i, value in zip(moving, values, strict=True):
            operands[i] = value
        return equation.apply(*operands, *u)

    return jax.jvp(at, ([given[i] for i in moving],), ([given_dot[i] for i in moving],))[1]


def _refusal(adjoint: AbstractPullBack) -> DerivativeError:
    name = type(adjoint).__name__
    return DerivativeError(
        f"expected at most 1 derivative of this fixed point, received a request for more, which "
        f"{name}, an approximation of the first, would answer wrongly; pass adjoint=Implicit() "
        "to fixed_point"
    )


def _transpose(cotangents: Any, *operands: Any, equation: Equation) -> Any:
    given, v = _split(operands, equation.given)
    right = [ad.instantiate_zeros(cotangent) for cotangent in cotangents]
    turned = replace(equation, tangent=not equation.tangent)
    found = _linear_p.bind(*given, *right, equation=turned)
    linear = [ad.is_undefined_primal(leaf) for leaf in v]
    return [None] * len(given) + [
        g if is_v else None for is_v, g in zip(linear, found, strict=True)
    ]


def _batch(axis: Any, operands: Any, dims: Any, *, equation: Equation) -> Any:
    """v is mapped in any case, so that it looks like u."""
    if all(d is None for d in dims):
        return _linear_p.bind(*operands, equation=equation), [None] * (len(dims) - equation.given)
    always = range(equation.given, len(operands))
    moved, lane = to_front(axis, operands, dims, always)
    wider = replace(equation, lanes=(*equation.lanes, lane))
    return _linear_p.bind(*moved, equation=wider), [0] * len(always)


_linear_p = jax_core.Primitive("fpicore_linear_solve")
_linear_p.multiple_results = True
_linear_p.def_impl(_implementation)
_linear_p.def_effectful_abstract_eval(_abstract)
ad.primitive_jvps[_linear_p] = _jvp
ad.primitive_transposes[_linear_p] = _transpose
batching.fancy_primitive_batchers[_linear_p] = _batch
mlir.register_lowering(
    _linear_p,
    mlir.lower_fun(lambda *operands, equation: equation.solve(*operands), multiple_results=True),
)
