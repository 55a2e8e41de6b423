"""Lab: one framework's tensors, ways to run a function, and derivatives; NumPy in and out."""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from fpicore.verify.arrays import convert, leaves, rebuild
from fpicore.verify.frameworks import load
from fpicore.verify.harness import Run, Task
from fpicore.verify.problem import Problem

from .compilers import forget

MODES = {
    "numpy": ("eager",),
    "torch": ("eager",),
    "jax": ("eager", "jit"),
    "tensorflow": ("eager", "graph", "xla"),
}
"""Ways to run a function, by framework."""

Tree = Any
Function = Callable[..., Any]


class Lab:
    """What a test needs of a framework."""

    def __init__(self, name: str) -> None:
        self.name = name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a framework says at its own import
            self._harness = load(name)
        self.fpi: Any = self._harness.library
        self.xp: Any = self._harness.namespace

    def precision(self) -> AbstractContextManager[Any]:
        """A context in which float64 stays float64."""
        return self._harness.precision("float64")

    def tensor(self, tree: Tree, dtype: str | None = None) -> Tree:
        """Nested arrays or numbers as tensors; float64 unless they say otherwise."""

        def one(leaf: Any) -> Any:
            array = np.asarray(leaf)
            if dtype == "bfloat16":
                return self._bfloat16(array.astype("float32"))
            return self._harness.asarray(array if dtype is None else array.astype(dtype))

        return convert(one, tree)

    def numpy(self, tree: Tree) -> Tree:
        """Nested tensors as arrays; half precision that NumPy lacks is widened."""
        return convert(self._to_numpy, tree)

    def run(self, function: Function, *trees: Tree, mode: str = "eager") -> Tree:
        """function of tensors, run in a mode, on NumPy trees."""
        return self.numpy(self.compiled(function, mode)(*map(self.tensor, trees)))

    def compiled(self, function: Function, mode: str) -> Function:
        """function as the mode runs it."""
        return self._harness.compile(function, mode)

    def gradient(self, function: Function, *trees: Tree, mode: str = "eager") -> tuple[Tree, ...]:
        """The gradient of a scalar function with respect to each of its nested arguments."""
        gradient = self.compiled(self.gradient_function(function), mode)
        return self.numpy(tuple(gradient(*map(self.tensor, trees))))

    def gradient_function(self, function: Function) -> Function:
        """The gradient as a function of tensors."""
        return getattr(self, f"_{self.name}_gradient")(function)

    def hessian_product(
        self, function: Function, x: Tree, direction: Tree, mode: str = "eager"
    ) -> Tree:
        """The second derivative of a scalar function of one array, times a direction."""

        def slope(x: Any, direction: Any) -> Any:
            gradient = getattr(self, f"_{self.name}_gradient")(function, again=True)(x)[0]
            return self.xp.sum(gradient * direction)

        return self.gradient(slope, x, direction, mode=mode)[0]

    def solve(self, problem: Problem, solver: Any, mode: str = "eager", adjoint: Any = None) -> Run:
        """Solve and differentiate a problem of the table, to 1e-12."""
        f, loss = problem.bind(self.name, self.xp)
        task = Task(problem, f, loss, solver, 1e-12, "float64", mode, adjoint)
        return self._harness.prepare(task)(problem.args, problem.data)

    @property
    def swift(self) -> str:
        """The mode that takes derivatives with the least compilation."""
        return "jit" if self.name == "jax" else "eager"

    def bind(self, problem: Problem) -> Function:
        """The problem's map on tensors."""
        return problem.bind(self.name, self.xp)[0]

    def counted(self, f: Function) -> tuple[Function, Callable[[], int]]:
        """f, and the number of times that its values were computed so far."""
        calls: list[int] = []
        note = getattr(self, f"_{self.name}_note", _note)

        def observed(*args: Any) -> Any:
            note(calls)
            return f(*args)

        def count() -> int:
            self.wait()
            return len(calls)

        return observed, count

    def clear(self) -> None:
        """Forget what was compiled, once it is much."""
        if self.name == "jax":
            forget()

    def wait(self) -> None:
        """Until host callbacks have run."""
        if self.name == "jax":
            import jax

            jax.effects_barrier()

    def _bfloat16(self, array: np.ndarray) -> Any:
        tensor = self._harness.asarray(array)
        if self.name == "torch":
            return tensor.bfloat16()
        if self.name == "jax":
            return tensor.astype("bfloat16")
        import tensorflow as tf

        return tf.cast(tensor, tf.bfloat16)

    def _to_numpy(self, leaf: Any) -> np.ndarray:
        if leaf is None or isinstance(leaf, (bool, int, float, np.generic, np.ndarray)):
            return np.asarray(leaf)
        if "bfloat16" in str(leaf.dtype):
            leaf = leaf.float() if self.name == "torch" else leaf
            return np.asarray(self._harness.to_numpy(leaf)).astype("float32")
        return self._harness.to_numpy(leaf)

    @staticmethod
    def _torch_gradient(function: Function, again: bool = False) -> Function:
        import torch

        def gradient(*args: Tree) -> Tree:
            inputs = leaves(args)
            for leaf in inputs:
                leaf.requires_grad_(leaf.is_floating_point() or leaf.is_complex())
            value = function(*args)
            found = torch.autograd.grad(
                value, inputs, create_graph=again, allow_unused=True, materialize_grads=True
            )
            return rebuild(args, found)

        return gradient

    @staticmethod
    def _jax_gradient(function: Function, again: bool = False) -> Function:
        import jax

        del again  # a gradient is a function like any other
        return lambda *args: jax.grad(function, argnums=tuple(range(len(args))))(*args)

    @staticmethod
    def _tensorflow_gradient(function: Function, again: bool = False) -> Function:
        import tensorflow as tf

        del again  # an outer tape records the gradient

        def gradient(*args: Tree) -> Tree:
            with tf.GradientTape() as tape:
                tape.watch(args)
                loss = function(*args)
            zero = tf.UnconnectedGradients.ZERO
            return tape.gradient(loss, args, unconnected_gradients=zero)

        return gradient

    @staticmethod
    def _jax_note(calls: list[int]) -> None:
        import jax

        jax.debug.callback(lambda: calls.append(1))

    @staticmethod
    def _tensorflow_note(calls: list[int]) -> None:
        import tensorflow as tf

        if tf.executing_eagerly():
            calls.append(1)
        else:
            tf.py_function(lambda: calls.append(1), [], [])


def _note(calls: list[int]) -> None:
    calls.append(1)
