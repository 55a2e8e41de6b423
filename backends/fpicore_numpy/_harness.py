"""NumPy's side of ``fpicore verify``: the library's adjoint solve, fed with a dense Jacobian."""

from typing import Any, ClassVar

import numpy as np

import fpicore_numpy
from fpicore import AbstractAdjoint, AbstractPullBack, Implicit
from fpicore.verify.arrays import Array, Tree, cast, convert, rebuild
from fpicore.verify.dense import Dense, Functions
from fpicore.verify.extras import require
from fpicore.verify.harness import Entries, Harness, Leaves, Task


class NumPyHarness(Harness):
    """Takes the derivatives of f at z* itself, in float64 whatever the dtype of the solves."""

    name: ClassVar[str] = "numpy"
    modes: ClassVar[tuple[str, ...]] = ("eager",)
    library: ClassVar[Any] = fpicore_numpy

    @property
    def namespace(self) -> Any:
        """NumPy, with the array API's names also before NumPy 2."""
        return require("array_api_compat.numpy", "maps in array-API style", "array-api-compat")

    def asarray(self, array: Array) -> Array:
        """The array itself."""
        return array

    def to_numpy(self, tensor: Any) -> Array:
        """The array itself."""
        return np.asarray(tensor)

    def offers(self, adjoint: AbstractAdjoint) -> bool:
        """Those that solve the adjoint equation by itself, without the forward solve."""
        reuses = isinstance(adjoint, Implicit) and adjoint.reuse
        return isinstance(adjoint, AbstractPullBack) and not reuses

    def differentiate(
        self, task: Task, z0: Tree, args: Leaves, data: Tree
    ) -> tuple[Entries, Leaves]:
        """Solve; solve the adjoint with the dense vector-Jacobian product; differentiate f."""
        _, entries = self.objective(task, z0, data)(args)
        functions = Functions(task.map, task.loss, self.name, may_be_complex=True)
        dense = Dense(task.problem, functions, rebuild(task.problem.args, args), data)
        x = dense.layout.pack(rebuild(z0, entries["value"])).astype(np.float64)
        dense.choose(x)
        jacobians = dense.jacobian(x)

        def vjp(g: Tree) -> Tree:
            products = np.einsum("sij,si->sj", jacobians, dense.layout.pack(g))
            return self._state(dense, products, task.dtype)

        adjoint = task.adjoint()
        solution = fpicore_numpy.adjoint_solve(
            vjp,
            self._state(dense, dense.loss_gradient(x), task.dtype),
            solver=task.solver,
            adjoint=adjoint,
            batch_ndim=task.problem.batch_ndim,
            on_failure="ignore",
        )
        if isinstance(adjoint, AbstractPullBack):
            adjoint.conclude(solution.result, solution.stats)
        return entries, dense.gradients(x, dense.layout.pack(solution.value))

    def _state(self, dense: Dense, packed: Array, dtype: str) -> Tree:
        return convert(lambda leaf: cast(leaf, dtype), dense.layout.unpack(packed))


HARNESS = NumPyHarness
