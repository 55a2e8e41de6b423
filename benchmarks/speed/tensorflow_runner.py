"""How a case is run in TensorFlow."""

from collections.abc import Callable
from typing import Any

from .runners import Case, Found, Runner
from .spaces import TensorFlowSpace


class TensorFlowRunner(Runner):
    """TensorFlow in a tf.function, or eager."""

    space_type = TensorFlowSpace
    compiles = True

    def make_space(self) -> Any:
        """One thread."""
        import tensorflow as tf

        self.tf = tf
        return TensorFlowSpace(self.problem.dtype)

    def wrap(self, function: Callable[..., Any], case: Case | None) -> Callable[..., Any]:
        """In a tf.function, unless the case is eager."""
        if case is not None and not case.jit:
            return function
        return self.tf.function(function, autograph=False)

    def solve(self, case: Case, tolerance: float, most: int) -> Found:
        """Counted in Python where f runs there, else as reported."""
        if not case.jit:
            return super().solve(case, tolerance, most)
        run = self.wrap(lambda: self.forward(self.task, case, tolerance, most), case)
        z, reported = run()
        reported = None if reported is None else int(reported)
        return Found(self.arrays(z), reported=reported)

    def make_forward(self, case: Case, tolerance: float, most: int) -> Callable[[], Any]:
        """One function."""
        return self.wrap(lambda: case.solve(self.task, tolerance, most)[0], case)

    def make_both(self, case: Case, tolerance: float, most: int) -> Callable[[], Any]:
        """By a tape around the solve."""
        params, tf = self.task.params, self.tf

        def run() -> Any:
            with tf.GradientTape() as tape:
                tape.watch(list(params.values()))
                z = case.solve(self.task, tolerance, most)[0]
                pairs = zip(self.weight, self.leaves(z), strict=True)
                loss = tf.add_n([tf.reduce_sum(w * leaf) for w, leaf in pairs])
            return tape.gradient(loss, list(params.values()))

        return self.wrap(run, case)

    def make_f(self, case: Case | None = None) -> tuple[Callable[[], Any], int]:
        """In one tf.while_loop, or in Python."""
        if case is not None and not case.jit:
            return super().make_f(case)
        tf, task = self.tf, self.task

        @tf.function(autograph=False)
        def repeated(count: Any) -> Any:
            def body(i: Any, z: Any) -> Any:
                return i + 1, task.at(z)

            return tf.while_loop(
                lambda i, z: i < count, body, (tf.constant(0), task.z0), parallel_iterations=1
            )

        count = self.enough(lambda: repeated(tf.constant(1)))
        several = tf.constant(count)
        return (lambda: repeated(several)), count
