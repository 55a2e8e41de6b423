"""A solver from outside the package: no more than README.md shows."""

from dataclasses import dataclass
from typing import Any, ClassVar

from fpicore import AbstractSolver, Leaves, Ops, Point


@dataclass(frozen=True)
class BarzilaiBorwein(AbstractSolver):
    """z ← z + α r with α = −⟨s, s⟩/⟨s, y⟩ of the last step s and change y of r; 1 at first."""

    name: ClassVar[str] = "barzilai_borwein"

    def init(self, ops: Ops, z: Leaves) -> Any:
        return z, z, ops.scalar(0.0)

    def step(self, ops: Ops, point: Point, state: Any) -> tuple[Leaves, Any]:
        z, r, count = state
        s = [a - b for a, b in zip(point.z, z, strict=True)]
        y = [a - b for a, b in zip(point.residual, r, strict=True)]
        square = sum(ops.dot(a, a) for a in s)
        alpha = -square * ops.xp.reciprocal(sum(ops.dot(a, b) for a, b in zip(s, y, strict=True)))
        alpha = ops.xp.where(ops.xp.isfinite(alpha) & (count > 0.0), alpha, ops.scalar(1.0))
        moved = [a + ops.scale(alpha, b) for a, b in zip(point.z, point.residual, strict=True)]
        return tuple(moved), (point.z, point.residual, count + 1.0)
