"""The implicit function z*(θ), with derivatives of every order.

The pull-back of z* is v ↦ (∂f/∂θ)ᵀ (I − J)⁻ᵀ v. To be differentiable itself it must be written as
a function of v, θ and z*(θ), and each of the three pieces below is that: what it needs of z* it
takes from the implicit function again. Nothing of a higher order is computed before a tape asks
for it, so that the first one pays nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from fpicore import DerivativeError, Leaves

from ._sources import Map, Sources, gradient, has_derivative

Solve = Callable[[Leaves, bool], Leaves]
"""The adjoint solve: of v with Jᵀ or, if the flag is set, with J."""


_ROUNDING = {tf.float64: 1e-8, tf.float32: 1e-4, tf.float16: 0.1, tf.bfloat16: 0.1}
"""Relative difference of two evaluations that the order of their sums may explain."""


@dataclass(frozen=True)
class ImplicitFunction:
    """z*(θ) of z = f(z), where θ is all that f captures."""

    f: Map
    value: Leaves
    sources: Sources
    solve: Solve
    outputs: Leaves
    """f(z*), which f must give again."""

    def evaluate(self, z: Leaves) -> Leaves:
        """f(z*), where z stands for z*; raises if f has become another since."""
        found = self.f(z)
        check_same(found, self.outputs)
        return found

    def correction(self, v: Leaves) -> Leaves:
        """Zeros for θ, whose derivatives are those that the first-order scheme misses.

        That scheme pulls back through f recorded at a constant z*, with a constant M = (I − J)⁻¹.
        The correction is the true pull-back less that one: zero in value, not in its derivatives.
        """
        size, values = len(v), self.sources.values()

        @tf.custom_gradient
        def zero(*inputs: Any) -> Any:
            def pull_back(*w: Any) -> Any:
                check_in_scope(self.value, inputs)
                inner = tuple(map(tf.identity, inputs[:size]))  # f may capture these very tensors
                with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
                    tape.watch([*inner, *self.sources.watched])
                    exact = self.pull(inner)
                    constant = self._pull_constant(inner)
                wanted = [*inner, *self.sources.watched]
                true = gradient(tape, exact, wanted, w)
                return tuple(
                    a - b for a, b in zip(true, gradient(tape, constant, wanted, w), strict=True)
                )

            return tuple(tf.zeros_like(value) for value in inputs[size:]), pull_back

        return zero(*v, *values)

    def pull(self, v: Leaves) -> Leaves:
        """The cotangent of θ as a function of v, z*(θ) and θ."""
        z = self._attached()
        return self._pull_at(z, self._solve_at(z, v, False))

    def _pull_constant(self, v: Leaves) -> Leaves:
        """The same with z* and M held constant."""
        return self._pull_at(self.value, linear_solve(self.solve, v, False))

    def _pull_at(self, z: Leaves, g: Leaves) -> Leaves:
        """(∂f/∂θ)ᵀ g at z."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.sources.watched)
            outputs = self.evaluate(z)
        return gradient(tape, outputs, self.sources.watched, g)

    def _attached(self) -> Leaves:
        """z* as a function of θ."""

        @tf.custom_gradient
        def attach(*_: Any) -> Any:
            constant = tuple(tf.stop_gradient(leaf) for leaf in self.value)
            return constant, lambda *u: self.pull(u)

        return attach(*self.sources.values())

    def _solve_at(self, z: Leaves, v: Leaves, tangent: bool) -> Leaves:
        """g = Jᵀg + v, or g = Jg + v, as a function of v, z and θ.

        With y the other solve for the cotangent w of g, the cotangent of v is y and that of
        (z, θ) the derivative of ⟨y, Jᵀg⟩.
        """
        result: list[Leaves] = []

        @tf.custom_gradient
        def apply(*inputs: Any) -> Any:
            del inputs
            found = tuple(tf.stop_gradient(leaf) for leaf in self.solve(v, tangent))

            def pull_back(*w: Any) -> Any:
                y = self._solve_at(z, w, not tangent)
                g = result[0]
                return (*y, *self._pull_product(z, *((y, g) if tangent else (g, y))))

            return found, pull_back

        result.append(apply(*v, *z, *self.sources.values()))
        return result[0]

    def _pull_product(self, z: Leaves, g: Leaves, y: Leaves) -> Leaves:
        """The derivative of ⟨y, Jᵀg⟩ with respect to z and θ."""
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch([*z, *self.sources.watched])
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(z)
                outputs = self.evaluate(z)
            product = gradient(inner, outputs, z, g)
        return gradient(outer, product, [*z, *self.sources.watched], y)


def check_same(found: Leaves, before: Leaves) -> None:
    """Raise, in eager mode, if a second evaluation differs from the first by more than rounding."""
    if not tf.executing_eagerly():
        return
    for a, b in zip(found, before, strict=True):
        if not has_derivative(b):
            continue
        x, y = (np.asarray(tf.cast(leaf, tf.complex128)) for leaf in (a, b))
        known = np.isfinite(x) & np.isfinite(y)  # infinity is like infinity
        gap, size = np.abs(x[known] - y[known]), np.abs(y[known])
        rounding = _ROUNDING[b.dtype.real_dtype] * np.max(size, initial=0.0)
        if np.max(gap, initial=0.0) > rounding or (np.isfinite(x) != np.isfinite(y)).any():
            raise DerivativeError(
                "expected f to give in the backward pass what it gave when the fixed point was "
                "solved; received another value: a variable was assigned, or an object changed, "
                "that f refers to. Take the derivatives first, or pass what changes in args"
            )


def linear_solve(solve: Solve, v: Leaves, tangent: bool) -> Leaves:
    """Mᵀv, or Mv, with M = (I − J)⁻¹ held constant: differentiable to every order."""

    @tf.custom_gradient
    def apply(*v: Any) -> Any:
        found = tuple(tf.stop_gradient(leaf) for leaf in solve(v, tangent))
        return found, lambda *w: linear_solve(solve, w, not tangent)

    return apply(*v)


def check_in_scope(inside: Leaves, cotangents: Leaves) -> None:
    """Raise if a derivative of a tf.function has lost sight of the tensors inside of it.

    A tape around a traced function pulls back in a graph of its own, to which TensorFlow hands
    what it needs of the first; from the next such graph the first is out of scope. TensorFlow
    would say so much later, and of an unknown tensor.
    """
    if not tf.is_symbolic_tensor(inside[0]):
        return
    graph = cotangents[0].graph
    if graph is tf.compat.v1.get_default_graph():
        return
    while graph is not None:
        if graph is inside[0].graph:
            return
        graph = getattr(graph, "outer_graph", None)
    raise DerivativeError(
        "expected at most 1 derivative, in reverse mode, from outside of a tf.function that holds "
        "a fixed point; received a request for more, or for forward mode, which TensorFlow cannot "
        "trace; put the tapes into the tf.function too, and take forward mode by Unrolled()"
    )
