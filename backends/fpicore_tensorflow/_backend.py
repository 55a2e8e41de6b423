"""TensorFlow as fpicore's entry sees it."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

import fpicore
from fpicore import (
    AbstractPullBack,
    Backward,
    Forward,
    InputError,
    Iteration,
    Leaves,
    Linear,
    Outcome,
    Problem,
    Results,
    Stats,
)

from ._arrays import passage
from ._autodiff import Linearization, exact_node, node, refuse_forward_mode
from ._evaluation import steady
from ._jacobian import TensorFlowLinear
from ._ops import (
    TensorFlowEagerOps,
    TensorFlowGraphOps,
    TensorFlowJoints,
    TensorFlowRecordedOps,
)
from ._orders import ImplicitFunction, Solve
from ._recompute import iterate_in_segments
from ._reversed import reversed_solve
from ._sources import GraphTape, may_differentiate_twice, persistent_tape, sources_if_traceable

T = TypeVar("T")


class TensorFlowBackend:
    """Tensors and variables in every structure that tf.nest knows."""

    name = "tensorflow"
    frames = 0

    def flatten(self, tree: Any) -> tuple[Leaves, Callable[[Leaves], Any]]:
        """Leaves and rebuild; variables and NumPy arrays are taken as tensors."""
        leaves = tf.nest.flatten(tree)
        for leaf in leaves:
            if not isinstance(leaf, (tf.Tensor, tf.Variable, np.ndarray, np.generic)):
                raise InputError(
                    "expected a TensorFlow tensor or NumPy array, or a structure of them; "
                    f"received a leaf of type {type(leaf).__module__}.{type(leaf).__qualname__}"
                )
        tensors = tuple(tf.convert_to_tensor(leaf) for leaf in leaves)
        return tensors, lambda new: tf.nest.pack_sequence_as(tree, list(new))

    def flatten_like(self, tree: Any, like: Any) -> Leaves:
        """Leaves of a tree with the structure of ``like``."""
        try:
            tf.nest.assert_same_structure(like, tree)
        except (ValueError, TypeError) as error:
            raise InputError(f"expected f(z) of the structure of z: {error}") from None
        leaves = tf.nest.flatten(tree)
        for leaf in leaves:
            if not tf.is_tensor(leaf):
                raise InputError(f"expected f(z) to hold TensorFlow tensors, received {type(leaf)}")
        return tuple(leaves)

    def dtype_name(self, leaf: Any) -> str:
        """NumPy's name."""
        return leaf.dtype.name

    def admit(self, new: Any, old: Any) -> Any:
        """The tensor if alike, with the static shape that is known of z."""
        if new.dtype != old.dtype:
            return None
        if not new.shape.is_compatible_with(old.shape) or len(new.shape) != len(old.shape):
            return None
        return new if new.shape == old.shape else tf.ensure_shape(new, old.shape)

    def ops(self, leaves: Leaves, batch_ndim: int) -> Any:
        """Numbers on the host in eager mode, in the graph otherwise."""
        if tf.executing_eagerly():
            return TensorFlowEagerOps(batch_ndim, self._eps(leaves))
        return self._graph_ops(leaves, batch_ndim)

    def _graph_ops(
        self,
        leaves: Leaves,
        batch_ndim: int,
        kind: type[TensorFlowGraphOps] = TensorFlowGraphOps,
    ) -> TensorFlowGraphOps:
        wide = any(leaf.dtype in (tf.float64, tf.complex128) for leaf in leaves)
        numbers = tf.float64 if wide else tf.float32
        return kind(batch_ndim, self._eps(leaves), numbers)

    def _eps(self, leaves: Leaves) -> float:
        return fpicore.accumulation_eps(tuple(self.dtype_name(leaf) for leaf in leaves))

    @tf.autograph.experimental.do_not_convert
    def solve(self, problem: Problem, iteration: Iteration, adjoint: AbstractPullBack) -> Outcome:
        """Solve apart from any gradient; then attach it level by level."""
        mapping, leaves, packing = problem.map, problem.leaves, None
        if not tf.executing_eagerly():
            packing = fpicore.packing(
                TensorFlowJoints(), leaves, problem.batch_ndim, iteration, adjoint
            )
        if packing is not None:
            mapping, leaves = packing.around(mapping), packing.pack(leaves)
        ops = self.ops(leaves, problem.batch_ndim)
        start = tuple(tf.stop_gradient(leaf) for leaf in leaves)
        f = steady(mapping, refuse_forward_mode)
        z, results, stats, memory = passage(ops, start)(iteration.run, f, start, problem.budget)
        record = Backward() if tf.executing_eagerly() else None
        record_at = persistent_tape if tf.executing_eagerly() else GraphTape
        value = tuple(tf.stop_gradient(leaf) for leaf in z)
        line = Linearization(mapping, value, record_at)
        forward = adjoint.forward(iteration, memory)
        rest = (adjoint, problem.batch_ndim, record)

        def solver(f: Callable[[Leaves], Leaves], z: Leaves) -> Solve:
            """Apart from what else the graph of the solve knows."""
            return partial(
                _pull_back, self, Linearization(f, z, GraphTape), Forward(iteration), *rest
            )

        solve = partial(_pull_back, self, line, forward, *rest)
        out = self._attach(mapping, adjoint, line, solve, solver)
        if packing is not None:
            out = packing.unpack(out)
        aux = problem.evaluate(out)[1] if problem.has_aux else None
        return out, results, stats, aux, record

    def _attach(
        self,
        mapping: Callable[[Leaves], Leaves],
        adjoint: AbstractPullBack,
        line: Linearization,
        solve: Solve,
        solver: Callable[[Callable[[Leaves], Leaves], Leaves], Solve],
    ) -> Leaves:
        """z*, differentiable: by the implicit function, or as many times as there are levels.

        Levels are for a map that cannot be traced, and so not be searched for what it captures.
        """
        levels = 1
        if may_differentiate_twice(line.outputs):
            levels = adjoint.order or 1
            sources = sources_if_traceable(mapping, line.inputs) if adjoint.exact else None
            if sources is not None:
                function = ImplicitFunction(
                    mapping,
                    line.inputs,
                    sources.inside(),
                    solve,
                    line.outputs,
                    solver,
                    line.new_tape,
                )
                return exact_node(function, line.outputs)
        out = node(solve, levels, line.inputs, line.outputs, line.inputs)
        for _ in range(1, levels):
            out = node(solve, levels, line.inputs, mapping(out), out)
        return out

    @tf.autograph.experimental.do_not_convert
    def unroll(self, problem: Problem, iteration: Iteration, segment: int | None) -> Outcome:
        """Iterate with numbers in tensors, which tapes and tf.gradients follow."""
        ops = self._graph_ops(problem.leaves, problem.batch_ndim, TensorFlowRecordedOps)
        if segment is None:
            carry = iteration.iterate(
                ops, steady(problem.map), problem.leaves, budget=problem.budget
            )
        else:
            carry = iterate_in_segments(
                ops, iteration, problem.map, problem.leaves, segment, problem.budget
            )
        z, results, stats, _ = fpicore.outcome(ops, carry)
        aux = problem.evaluate(z)[1] if problem.has_aux else None
        return z, results, self.detach(stats), aux, None

    @tf.autograph.experimental.do_not_convert
    def reverse(self, problem: Problem, iteration: Iteration, sweep: Any) -> Outcome:
        """A custom_gradient over z0 and all that f captures."""
        ops = self.ops(problem.leaves, problem.batch_ndim)
        record = Backward() if tf.executing_eagerly() else None
        conclude = partial(_conclude, sweep, record)
        z, results, stats = reversed_solve(
            problem.map, problem.leaves, problem.budget, ops, iteration, sweep, conclude
        )
        aux = problem.evaluate(z)[1] if problem.has_aux else None
        return z, results, stats, aux, record

    @tf.autograph.experimental.do_not_convert
    def solve_adjoint(
        self, problem: Problem, iteration: Iteration, adjoint: AbstractPullBack
    ) -> tuple[Leaves, Results, Stats]:
        """The adjoint solve itself."""
        way = passage(self.ops(problem.leaves, problem.batch_ndim), problem.leaves)
        return way(adjoint.pull_back, problem.map, problem.leaves, Forward(iteration))

    @tf.autograph.experimental.do_not_convert
    def linearize(self, problem: Problem, use: Callable[[Linear], T], recorded: bool) -> T:
        """By a tape; numbers in tensors where other tapes shall follow them."""
        make = self._graph_ops if recorded else self.ops
        line = TensorFlowLinear(problem, make(problem.leaves, problem.batch_ndim), recorded)
        return use(line) if recorded else self.detach(use(line))

    def gradient(self, energy: Callable[..., Any], z: Leaves, args: tuple[Any, ...]) -> Leaves:
        """By a tape of its own, which outer ones record."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            leaves = tuple(tf.identity(leaf) for leaf in z)
            tape.watch(leaves)
            total = tf.reduce_sum(energy(leaves, *args))
        zero = tf.UnconnectedGradients.ZERO
        return tuple(tape.gradient(total, leaves, unconnected_gradients=zero))

    def detach(self, tree: Any) -> Any:
        """Tensors in structures that tf.nest knows, behind tf.stop_gradient."""
        return tf.nest.map_structure(
            lambda leaf: tf.stop_gradient(leaf) if tf.is_tensor(leaf) else leaf, tree
        )

    def is_concrete(self, results: Results) -> bool:
        """In eager mode."""
        return tf.executing_eagerly()


def _pull_back(
    backend: TensorFlowBackend,
    line: Linearization,
    forward: Forward,
    adjoint: AbstractPullBack,
    batch_ndim: int,
    record: Backward | None,
    v: Leaves,
    tangent: bool,
) -> Leaves:
    """The adjoint solve, and what becomes of its outcome."""
    way = passage(backend.ops(v, batch_ndim), v)
    product = line.jvp if tangent else line.vjp
    g, results, stats = way(adjoint.pull_back, product, v, forward, tangent)
    _conclude(adjoint, record, results, stats)
    return g


def _conclude(adjoint: Any, record: Backward | None, results: Results, stats: Stats) -> None:
    """Report a backward pass, by a py_function where its outcome is not known yet."""
    if tf.executing_eagerly():
        if record is not None:
            record.note(results, stats)
        adjoint.conclude(results, stats)
    elif adjoint.callback is not None:
        tf.py_function(_tell(adjoint), [results.codes, *[x for x in stats if x is not None]], [])


def _tell(adjoint: Any) -> Callable[..., None]:
    def tell(codes: Any, *stats: Any) -> None:
        adjoint.conclude(Results(codes), Stats(*stats))

    return tell
