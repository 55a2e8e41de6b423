"""Broyden's method with limited memory."""

from dataclasses import dataclass
from typing import Any, ClassVar

from .. import _tree as tree
from .._chain import Chain, State
from .._errors import InputError
from .._ops import Number, Ops
from .._options import check_count
from .._search import Search, no_search, searched
from .._search import renewed as searched_anew
from .._secants import Updates, inverse, moved, no_updates, renewed
from .._solver import AbstractStage, Point
from .._tree import Leaves

_KINDS = ("good", "bad")


@dataclass(frozen=True)
class Broyden(AbstractStage):
    """Broyden's good method on r(z) = f(z) − z with the inverse Jacobian H = −I at the start.

    Each step s_j = −H_j r_j updates H_{j+1} = (I + b_j s_jᵀ/σ_j) H_j, σ_j = ‖s_j‖², where b_j
    turns out to be the next step s_{j+1}. Hence s = (r + Σ_{j<k} c_j b_j)/(1 − c_k) with
    c_j = (s_jᵀr + Σ_{i<j} c_i s_jᵀb_i)/σ_j: only the steps are stored, and only their Gram matrix
    enters the recurrence, which is kept as a matrix that gains a row a step. A step reads the
    memory twice, whatever its length. When the memory is full, it is emptied and H restarts at
    −I, updated by the newest pair (s, y) alone: there b = −(s + y)·σ/(sᵀy) is known and stored
    like a step. Dropping the oldest pair instead would lose the secant equations that the later
    pairs were built on. Broyden, Math. Comp. 19 (1965), 577; Kelley, Iterative Methods for
    Linear and Nonlinear Equations (SIAM 1995), §7.3.

    The bad method has the least change of H that maps y_j = r_{j+1} − r_j to s_j:
    H_{j+1} = H_j + (s_j − H_j y_j) y_jᵀ/‖y_j‖², kept as s_j − H_j y_j = −H_j r_{j+1} and y_j, and
    emptied when it is full. It stores twice as much. On contractions it often needs fewer
    evaluations, as type II of Anderson's method does, on expansive maps it fails more often.
    Broyden (1965), the second method; Kvaalen, BIT 31 (1991), 369.

    With ``line_search`` the step is −λHr. z + s is taken if ‖r‖ there is at most
    (1 + η_k − σλ²)‖r‖, η_k = 10/(k + 1)² after k steps taken, σ = 10⁻⁴. Where it is not, its pair
    updates H all the same, and a shorter step from z is next, with the new H; λ is the minimiser of
    a parabola, 0.1 to 0.5 of the last, and a quarter of it where f is not finite, from where the
    search goes back. λ ≤ 0.3 is taken come what may, unless f is not finite down to λ ≤ 10⁻³: then
    the next step is plain, with an empty memory. The memory is that of the bad method for both
    kinds, of the good one with H_jᵀs_j in place of y_j. ‖·‖ is the norm of the stopping rule. For
    maps on which the steps are too long: of the 279 solves of the first 31 problems of
    benchmarks/solvers the good method fails on 25 with it and on 50 without, the bad one on 66 and
    77; where both converge it needs 9 % more evaluations in the median, and on a few many times as
    many. Li and Fukushima, Optim. Methods Softw. 13 (2000), 181, whose rule has the square of the
    step in place of λ²‖r‖.

    With ``scaled`` H begins and begins again at −γI. At first γ is 1, or less, so that the first
    step is no longer than half of z, unless z is next to nothing; after the first, and when the
    memory is full, γ = −sᵀy/‖y‖² of the newest pair (‖s‖/‖y‖ where that is not positive), and 1
    where that is above ½: contractions keep the plain step, and steep slopes are not learned
    direction by direction. It needs no memory, and an evaluation at most. Of the 351 solves of
    benchmarks/solvers the good method fails on 23 with it and on 77 without, the bad one with 8
    pairs on 32, with 20 and without it on 104. Barzilai and Borwein, IMA J. Numer. Anal. 8 (1988),
    141, for γ; Shanno and Phua, Math. Program. 14 (1978), 149, who scale H once.

    Attributes:
        history: most pairs in use, ≥ 1.
        kind: "good" or "bad".
        line_search: whether steps that let ‖r‖ grow too much are shortened.
        scaled: whether H restarts at −γI; not together with ``line_search``.

    Raises:
        InputError: history is not a positive integer, the kind is unknown, line_search or scaled
            neither True nor False, or both are True.
    """

    history: int = 20
    kind: str = "good"
    line_search: bool = False
    scaled: bool = False
    name: ClassVar[str] = "broyden"
    uniform: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_count("history", self.history, 1)
        if self.kind not in _KINDS:
            raise InputError(f"expected kind to be one of {_KINDS}, received kind={self.kind!r}")
        if not isinstance(self.line_search, bool):
            raise InputError(
                f"expected line_search to be True or False, received {self.line_search!r}"
            )
        if not isinstance(self.scaled, bool):
            raise InputError(f"expected scaled to be True or False, received {self.scaled!r}")
        if self.scaled and self.line_search:
            raise InputError("expected line_search or scaled, received both; leave one out")

    @property
    def tentative(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether steps may be taken back."""
        return self.line_search

    @property
    def _chain(self) -> Chain:
        return Chain(self.history, self.scaled)

    def init(self, ops: Ops, z: Leaves) -> "State | Updates | Search":
        """An empty memory."""
        if self.line_search:
            return no_search(ops, z, self.history)
        if self.kind == "bad":
            return no_updates(ops, z, self.history)
        return self._chain.init(ops, z)

    def step(self, ops: Ops, point: Point, state: Any) -> tuple[Leaves, Any]:
        """The quasi-Newton step; a plain one, and an empty memory, where it breaks down."""
        if self.line_search:
            return searched(ops, point, state, self.kind == "good")
        if self.kind == "bad":
            step, state = moved(ops, state, point, self.scaled)
        else:
            step, state = self._chain.step(ops, point, state)
        return tree.add(point.z, step), state

    def renew(self, ops: Ops, mask: Number, point: Point, state: Any, count: Number) -> Any:
        """H = −γI; no pair has its first half in what was before."""
        if self.line_search:
            return searched_anew(ops, mask, point, state, count)
        if self.kind == "bad":
            return renewed(ops, mask, point, state, count, self.scaled)
        return self._chain.renew(ops, mask, point, state, count)

    def inverse(self, ops: Ops, state: Any, v: Leaves, tangent: bool) -> Leaves:
        """−Hv or its transpose; the good method knows nothing of its newest step."""
        if self.line_search:
            return inverse(ops, state.memory, v, tangent)
        if self.kind == "bad":
            return inverse(ops, state, v, tangent)
        return self._chain.inverse(ops, state, v, tangent)
