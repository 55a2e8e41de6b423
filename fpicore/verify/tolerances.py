"""Every tolerance that ``fpicore verify`` applies, and why."""

from dataclasses import dataclass

import numpy as np

from .reference import Reference


@dataclass(frozen=True)
class Tolerances:
    """What is asked of the solves, and how far an answer may be from another.

    All errors are relative. A solve that stops at ‖f(z) − z‖ ≤ rtol·‖f(z)‖ leaves an error in z of
    up to κ·rtol, κ = ‖(I − J)⁻¹‖, and rounding in f adds a few units of the precision, also times
    κ. For gradients κ is their own condition number, measured by perturbing z* and the adjoint.
    ``bound`` is that estimate, doubled. An error is accepted up to the floor or the bound,
    whichever is larger: the floor decides for well-conditioned problems, the bound for the others.
    """

    dtype: str
    rtol: float
    """Asked of every solve and every adjoint solve."""
    floor: float
    """Accepted distance of value, loss and gradients from the reference."""
    agreement_floor: float
    """Accepted distance of two frameworks' value and gradients from each other."""
    exact: float = 1e-12
    """Accepted distance of the reference from an answer that the problem states, times κ if that
    is above 1; beyond it the reference itself is at fault."""

    def bound(self, condition: float) -> float:
        """Twice κ·(rtol + 8 units of the precision)."""
        return 2.0 * condition * (self.rtol + 8.0 * float(np.finfo(self.dtype).eps))

    def value(self, reference: Reference) -> float:
        """Accepted relative error of the value and of the loss."""
        return max(self.floor, self.bound(reference.condition))

    def gradient(self, reference: Reference) -> float:
        """Accepted relative error of a gradient; also what the reference's derivatives allow."""
        differences = 10.0 * max(1.0, reference.gradient_condition) * reference.accuracy
        return max(self.floor, self.bound(reference.gradient_condition), differences)

    def agreement(self, reference: Reference | None) -> tuple[float, float]:
        """Accepted distances of frameworks' values and gradients; the floor for κ unknown."""
        if reference is None:
            return self.agreement_floor, self.agreement_floor
        bounds = self.bound(reference.condition), self.bound(reference.gradient_condition)
        return max(self.agreement_floor, bounds[0]), max(self.agreement_floor, bounds[1])

    def reference(self, reference: Reference) -> float:
        """Accepted relative distance of the reference from a stated answer."""
        rounding = 8.0 * float(np.finfo(self.dtype).eps)  # the problem is rounded to the dtype
        return max(1.0, reference.condition) * max(self.exact, reference.accuracy, rounding)


TOLERANCES = {
    "float64": Tolerances("float64", rtol=1e-12, floor=1e-9, agreement_floor=1e-10),
    "float32": Tolerances("float32", rtol=2e-6, floor=1e-4, agreement_floor=1e-4),
}
