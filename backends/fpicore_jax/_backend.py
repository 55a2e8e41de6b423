"""JAX as fpicore's entry sees it."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer, eval_context

import fpicore
from fpicore import (
    AbstractPullBack,
    Forward,
    InputError,
    Iteration,
    Leaves,
    Linear,
    Outcome,
    Packing,
    Problem,
    Results,
    Run,
    Stats,
)

from ._autodiff import attach, close
from ._jacobian import JaxLinear
from ._known import Map, Program
from ._lanes import staged
from ._linear import Equation, Product, pull_back
from ._ops import JaxJoints, JaxOps
from ._recorded import JaxRecordedOps
from ._reversed import reversed_solve
from ._varying import Axes, on_mesh, vary

T = TypeVar("T")


def _iterated(
    f: Map, iteration: Iteration, ops: JaxOps, constants: list[Any], start: Leaves, budget: Any
) -> Run:
    """The answer of the iteration, and how it went."""
    ops = replace(ops, staged=staged((constants, start, budget)))
    return iteration.run(ops, partial(f, constants), start, budget)


_iterate = Program(_iterated, hashable=3)


def _still(arrays: Iterable[Any]) -> Leaves:
    """Without derivatives; what is not traced has none, and is spared the detour."""
    return tuple([lax.stop_gradient(x) if isinstance(x, Tracer) else x for x in arrays])


def _packing(
    problem: Problem, given: Leaves, iteration: Iteration, adjoint: AbstractPullBack
) -> Packing | None:
    """Where the loop is staged, on no mesh, and all leaves have one kind of type."""
    weak = {jax.typeof(leaf).weak_type for leaf in problem.leaves}  # each would keep its own
    if not staged((given, problem.budget)) or on_mesh(*given) or len(weak) > 1:
        return None
    return fpicore.packing(JaxJoints(), problem.leaves, problem.batch_ndim, iteration, adjoint)


def _check_array(leaf: Any, what: str) -> None:
    if not isinstance(leaf, (Array, np.ndarray, np.generic)):
        raise InputError(
            f"expected {what} to be a JAX or NumPy array, or a pytree of them; received a leaf of "
            f"type {type(leaf).__module__}.{type(leaf).__qualname__}"
        )


class JaxBackend:
    """Arrays and every pytree that JAX knows."""

    name = "jax"
    frames = 0

    def flatten(self, tree: Any) -> tuple[Leaves, Callable[[Leaves], Any]]:
        """Leaves and rebuild; NumPy arrays are taken as JAX arrays."""
        leaves, structure = jax.tree.flatten(tree)
        for leaf in leaves:
            _check_array(leaf, "the state")
        return tuple(jnp.asarray(leaf) for leaf in leaves), partial(jax.tree.unflatten, structure)

    def flatten_like(self, tree: Any, like: Any) -> Leaves:
        """Leaves of a tree with the structure of ``like``."""
        leaves, structure = jax.tree.flatten(tree)
        expected = jax.tree.structure(like)
        if structure != expected:
            raise InputError(f"expected f(z) of structure {expected} as z, received {structure}")
        for leaf in leaves:
            _check_array(leaf, "f(z)")
        return tuple(leaves)

    def dtype_name(self, leaf: Array) -> str:
        """NumPy's name."""
        return jnp.dtype(leaf.dtype).name

    def admit(self, new: Array, old: Array) -> Array | None:
        """The array if alike, with its type made as strong as that of z."""
        alike = new.shape == old.shape and new.dtype == old.dtype
        return lax.convert_element_type(new, old.dtype) if alike else None

    def ops(self, leaves: Leaves, batch_ndim: int, staged: bool = True, axes: Axes = ()) -> JaxOps:
        """Numbers as wide as the widest leaf, at least float32."""
        wide = [jnp.promote_types(jnp.finfo(leaf.dtype).dtype, jnp.float32) for leaf in leaves]
        eps = fpicore.accumulation_eps(tuple(self.dtype_name(leaf) for leaf in leaves))
        return JaxOps(batch_ndim, eps, jnp.result_type(*wide), staged, axes)

    def solve(self, problem: Problem, iteration: Iteration, adjoint: AbstractPullBack) -> Outcome:
        """Solve apart from any derivative, then attach it."""
        leaves = problem.leaves
        f, constants, axes = close(problem.map, leaves)
        start, frozen = _still(leaves), _still(constants)
        packing = _packing(problem, (*start, *frozen), iteration, adjoint)
        if packing is not None:
            leaves = packing.pack(leaves)
            f, constants, axes = close(partial(packing.around(f), constants), leaves)
            start, frozen = _still(leaves), _still(constants)
        start = tuple(vary(leaf, axes) for leaf in start)
        traced = any(isinstance(x, Tracer) for x in (*start, *frozen, problem.budget))
        ops = self.ops(start, problem.batch_ndim, axes=axes)
        # What is concrete need not pass through the derivative that may be recorded around it.
        with nullcontext() if traced else eval_context():
            run = _iterate if iteration.silent else _iterate.plain
            z, results, stats, memory = run(f, iteration, ops, frozen, start, problem.budget)
        z, memory = _still(z), jax.tree.map(lambda x: _still((x,))[0], memory)
        forward = adjoint.forward(iteration, memory)
        z = attach(f, z, constants, forward, adjoint, ops)
        if packing is not None:
            z = packing.unpack(z)
        aux = problem.evaluate(z)[1] if problem.has_aux else None
        return z, results, stats, aux, None

    def unroll(self, problem: Problem, iteration: Iteration, segment: int | None) -> Outcome:
        """A scan over max_steps, which JAX differentiates in every mode and order."""
        f, constants, axes = close(problem.map, problem.leaves)
        start = tuple(vary(leaf, axes) for leaf in problem.leaves)
        ops = self.ops(start, problem.batch_ndim)
        recorded = JaxRecordedOps(ops.batch_ndim, ops.eps, ops.dtype, True, axes, segment)
        z, results, stats, _ = iteration.run(recorded, partial(f, constants), start, problem.budget)
        aux = problem.evaluate(z)[1] if problem.has_aux else None
        return z, results, lax.stop_gradient(stats), aux, None

    def reverse(self, problem: Problem, iteration: Iteration, sweep: Any) -> Outcome:
        """A custom_vjp over z0 and all that f closes over."""
        f, constants, axes = close(problem.map, problem.leaves)
        start = tuple(vary(leaf, axes) for leaf in problem.leaves)
        make_ops = partial(self.ops, start, problem.batch_ndim, axes=axes)
        z, results, stats = reversed_solve(
            f, start, constants, problem.budget, make_ops, iteration, sweep
        )
        aux = problem.evaluate(z)[1] if problem.has_aux else None
        return z, results, lax.stop_gradient(stats), aux, None

    def solve_adjoint(
        self, problem: Problem, iteration: Iteration, adjoint: AbstractPullBack
    ) -> tuple[Leaves, Results, Stats]:
        """The adjoint solve itself."""
        product, constants, axes = close(problem.map, problem.leaves)
        v = tuple(vary(leaf, axes) for leaf in problem.leaves)
        ops = self.ops(v, problem.batch_ndim, axes=axes)
        forward = Forward(iteration, jax.tree.structure(None))
        sizes = (len(constants), 0, 0)
        equation = Equation(Product(product, False), adjoint, forward, ops, sizes, tangent=False)
        return pull_back(equation, (*constants, *v))

    def linearize(self, problem: Problem, use: Callable[[Linear], T], recorded: bool) -> T:
        """By jax.vjp, of f with all that it depends on held constant unless recorded."""
        z = problem.leaves
        if recorded:
            return use(JaxLinear(problem.map, z, self.ops(z, problem.batch_ndim)))
        f, constants, axes = close(problem.map, z)
        z, frozen = lax.stop_gradient((z, constants))
        staged = any(isinstance(x, Tracer) for x in (*z, *frozen))
        ops = self.ops(z, problem.batch_ndim, staged, axes)
        return use(JaxLinear(partial(f, frozen), z, ops))

    def gradient(self, energy: Callable[..., Any], z: Leaves, args: tuple[Any, ...]) -> Leaves:
        """By jax.grad, whose convention for complex numbers is the conjugate."""
        found = jax.grad(lambda leaves: jnp.sum(energy(leaves, *args)))(z)
        return tuple(jnp.conj(leaf) for leaf in found)

    def detach(self, tree: Any) -> Any:
        """Arrays in pytrees, behind stop_gradient."""
        return jax.tree.map(
            lambda leaf: lax.stop_gradient(leaf) if isinstance(leaf, Array) else leaf, tree
        )

    def is_concrete(self, results: Results) -> bool:
        """Outside of a trace."""
        return not isinstance(results.codes, Tracer)
