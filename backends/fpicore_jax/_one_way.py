"""A linear function that is known by its transpose alone, as a primitive of JAX.

Where f uses a jax.custom_vjp function, products with J do not exist, only those with Jᵀ. The
tangent of a fixed point is then a promise: reverse mode transposes it and so asks for what there
is, forward mode asks for its value and is refused.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

from jax.extend import core as jax_core
from jax.interpreters import ad, batching, mlir

from fpicore import DerivativeError, Leaves

from ._linear import Lane

Pull = Callable[..., Leaves]
"""(given operands, cotangents of the result) ↦ cotangents of the other operands."""


class _OneWayError(DerivativeError, NotImplementedError):
    """Told apart, as the solve around may again do without forward mode."""


def lacks_forward_mode(error: Exception) -> bool:
    """Whether this is how JAX, or this module, refuses the forward mode of a custom_vjp."""
    text = str(error)
    refused = "custom_lin" in text or "forward-mode autodiff (jvp) to a custom_vjp" in text
    return isinstance(error, _OneWayError) or refused


def transposed_over(lane: Lane, pull: Pull, moving: Collection[int], size: int) -> Pull:
    """The pull-back of what the lane maps: a sum over the lane for an operand that it does not."""
    mapped = replace(lane, axes=(*lane.axes, *(0,) * size)).over(pull)

    def summed(*operands: Any) -> Leaves:
        found = zip(moving, mapped(*operands), strict=True)
        return tuple(g.sum(0) if lane.axes[i] is None else g for i, g in found)

    return summed


def known_by_transpose(pull: Pull, operands: Leaves, given: int, size: int) -> Leaves:
    """The value of the function, of as many leaves as the first ``size`` of ``given`` operands."""
    return tuple(_one_way_p.bind(*operands, rule=_Rule(pull, given, size)))


@dataclass(frozen=True, eq=False)
class _Rule:
    pull: Pull
    given: int
    """Operands before the linear ones."""
    size: int
    """Leaves of the result, which look like the first operands."""


def _refuse(*_: Any, **__: Any) -> Any:
    raise _OneWayError(
        "expected reverse mode, or an f that has derivatives in forward mode; received forward "
        "mode through a fixed point of an f that uses a jax.custom_vjp function; define that by "
        "jax.custom_jvp, or use jax.grad, jax.vjp or jax.jacrev, in any number"
    )


def _transpose(cotangents: Any, *operands: Any, rule: _Rule) -> Any:
    given, linear = operands[: rule.given], operands[rule.given :]
    v = [ad.instantiate_zeros(cotangent) for cotangent in cotangents]
    found = zip(linear, rule.pull(*given, *v), strict=True)
    wanted = [g if ad.is_undefined_primal(leaf) else None for leaf, g in found]
    return [None] * rule.given + wanted


_one_way_p = jax_core.Primitive("fpicore_one_way")
_one_way_p.multiple_results = True
_one_way_p.def_impl(_refuse)
_one_way_p.def_abstract_eval(lambda *operands, rule: operands[: rule.size])
ad.primitive_jvps[_one_way_p] = _refuse
ad.primitive_transposes[_one_way_p] = _transpose
batching.primitive_batchers[_one_way_p] = _refuse
mlir.register_lowering(_one_way_p, _refuse)
