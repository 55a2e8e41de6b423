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

from ._sources import (
    GraphTape,
    Map,
    Sources,
    belongs,
    brought,
    gradient,
    has_derivative,
    persistent_tape,
)

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
    solver: Callable[[Map, Leaves], Solve]
    """The solve for a map at a point of a graph."""
    tape: Callable[..., Any] = persistent_tape

    def here(self) -> "ImplicitFunction":
        """The same in tensors of the graph that is being built; f is called by its trace then.

        Each method below that makes a node begins with it: the node's pull-back, which may run in
        another graph, then finds all it needs in the graph of the node.
        """
        if belongs(self.value[0]):
            return self
        value, outputs = brought(self.value), brought(self.outputs)
        sources = self.sources.brought()

        def spoil(leaves: Leaves, found: Leaves) -> Leaves:
            return spoilt_if_changed(leaves, found, outputs) if sources.trace.variables else leaves

        def f(z: Leaves) -> Leaves:
            found = sources.evaluate(z)
            return spoil(found, found)

        def solve(v: Leaves, tangent: bool) -> Leaves:
            # A solver that meets NaN returns its best iterate, which is finite: hence once more,
            # and last, as nothing else orders what reads a variable after what writes to it.
            g = self.solver(f, value)(v, tangent)
            with tf.control_dependencies(g):
                return spoil(g, sources.evaluate(value))

        return ImplicitFunction(f, value, sources, solve, outputs, self.solver, GraphTape)

    def evaluate(self, z: Leaves) -> Leaves:
        """f(z*), where z stands for z*; raises if f has become another since."""
        found = self.f(z)
        check_same(found, self.outputs)
        return found

    def constant_solve(self, v: Leaves, tangent: bool) -> Leaves:
        """Mᵀv, or Mv, with M = (I − J)⁻¹ held constant: differentiable to every order."""
        here = self.here()
        found = tuple(tf.stop_gradient(leaf) for leaf in self.solve(v, tangent))

        @tf.custom_gradient
        def apply(*_: Any) -> Any:
            return found, lambda *w: here.constant_solve(w, not tangent)

        return apply(*v)

    def correction(self, v: Leaves) -> Leaves:
        """Zeros for θ, whose derivatives are those that the first-order scheme misses.

        That scheme pulls back through f recorded at a constant z*, with a constant M = (I − J)⁻¹.
        The correction is the true pull-back less that one: zero in value, not in its derivatives.
        """
        here, size = self.here(), len(v)

        @tf.custom_gradient
        def zero(*inputs: Any) -> Any:
            def pull_back(*w: Any) -> Any:
                return here._pull_correction(inputs[:size], w)

            return tuple(tf.zeros_like(value) for value in inputs[size:]), pull_back

        return zero(*v, *here.sources.values())

    def _pull_correction(self, v: Leaves, w: Leaves) -> Leaves:
        """The cotangents of v and θ for that of the correction."""
        here = self.here()
        v = tuple(map(tf.identity, v))  # f may capture these very tensors
        wanted = [*v, *here.sources.watched]
        with here.tape() as tape:
            tape.watch(wanted)
            exact = here.pull(v)
            constant = here._pull_at(here.value, here.constant_solve(v, False))
        true = gradient(tape, exact, wanted, w)
        return tuple(a - b for a, b in zip(true, gradient(tape, constant, wanted, w), strict=True))

    def pull(self, v: Leaves) -> Leaves:
        """The cotangent of θ as a function of v, z*(θ) and θ."""
        here = self.here()
        z = here._attached()
        return here._pull_at(z, here._solve_at(z, v, False))

    def _pull_at(self, z: Leaves, g: Leaves) -> Leaves:
        """(∂f/∂θ)ᵀ g at z."""
        with self.tape(z) as tape:
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
        here, result = self.here(), []
        z = z if tf.executing_eagerly() else brought(z)
        found = tuple(tf.stop_gradient(leaf) for leaf in self.solve(v, tangent))

        @tf.custom_gradient
        def apply(*_: Any) -> Any:
            def pull_back(*w: Any) -> Any:
                y = here._solve_at(z, w, not tangent)
                g = result[0]
                return (*y, *here._pull_product(z, *((y, g) if tangent else (g, y))))

            return found, pull_back

        result.append(apply(*v, *z, *here.sources.values()))
        return result[0]

    def _pull_product(self, z: Leaves, g: Leaves, y: Leaves) -> Leaves:
        """The derivative of ⟨y, Jᵀg⟩ with respect to z and θ."""
        here = self.here()
        z = tuple(map(tf.identity, z))
        wanted = [*z, *here.sources.watched]
        with here.tape(g) as outer:
            outer.watch(wanted)
            with here.tape() as inner:
                inner.watch(z)
                outputs = here.evaluate(z)
            product = gradient(inner, outputs, z, g)
        return gradient(outer, product, wanted, y)


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


def spoilt_if_changed(leaves: Leaves, found: Leaves, before: Leaves) -> Leaves:
    """The leaves; in a graph, which cannot raise, NaN if the evaluations differ as above."""
    factor = tf.ones([], tf.float64)
    for a, b in zip(found, before, strict=True):
        if has_derivative(b):
            known = tf.math.is_finite(tf.math.abs(a)) & tf.math.is_finite(tf.math.abs(b))
            gap = tf.where(known, tf.math.abs(a - b), 0)
            size = tf.where(known, tf.math.abs(b), 0)
            same = tf.reduce_max(gap) <= _ROUNDING[b.dtype.real_dtype] * tf.reduce_max(size)
            factor = tf.where(same, factor, float("nan"))
    return tuple(
        leaf * tf.stop_gradient(tf.cast(factor, leaf.dtype)) if has_derivative(leaf) else leaf
        for leaf in leaves
    )


def linear_solve(solve: Solve, v: Leaves, tangent: bool) -> Leaves:
    """Mᵀv, or Mv, with M = (I − J)⁻¹ held constant: differentiable to every order."""

    @tf.custom_gradient
    def apply(*v: Any) -> Any:
        found = tuple(tf.stop_gradient(leaf) for leaf in solve(v, tangent))
        return found, lambda *w: linear_solve(solve, w, not tangent)

    return apply(*v)
