"""Approximate gradients: a fixed number of terms of the Neumann series of (I − J)⁻ᵀ v."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from .. import _tree as tree
from .._adjoint import AbstractPullBack, Forward, Product
from .._ops import Number, Ops
from .._options import check_count, check_interval
from .._reporting import report
from .._solution import Result, Results, Stats
from .._tree import Leaves


@dataclass(frozen=True)
class Phantom(AbstractPullBack):
    """The gradient of ``steps`` damped iterations started at z*, held constant.

    g = λ Σ_{k<steps} ((1 − λ) I + λ Jᵀ)ᵏ v with λ = damping: the exact g in the limit of many
    steps where the damped iteration contracts, and biased before. It costs steps − 1
    vector-Jacobian products on one linearisation, so its memory does not depend on steps. Geng,
    Zhang, Bai, Wang, Lin, arXiv 2111.05177.

    ``stats.evaluations`` counts the products; the residual is not measured (NaN) and the result
    is TRUNCATED.

    Attributes:
        steps: terms of the series, ≥ 1.
        damping: 0 < damping ≤ 1.

    Raises:
        InputError: an attribute is out of its range.
    """

    steps: int = 5
    damping: float = 0.5
    uniform: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_count("steps", self.steps, 1)
        check_interval("damping", self.damping, 0.0, 1.0)

    def pull_back(
        self, ops: Ops, product: Product, v: Leaves, forward: Forward, tangent: bool = False
    ) -> tuple[Leaves, Results, Stats]:
        """The truncated series."""
        return truncated_series(ops, product, v, self.steps, self.damping)


@dataclass(frozen=True)
class Neumann(AbstractPullBack):
    """g = Σ_{k<terms} (Jᵀ)ᵏ v: `Phantom` without damping, terms − 1 products.

    The error is (Jᵀ)ᵗᵉʳᵐˢ g, small where J contracts. Lorraine, Vicol, Duvenaud, arXiv 1911.02590.

    Attributes:
        terms: terms of the series, ≥ 1.

    Raises:
        InputError: terms is not a positive integer.
    """

    terms: int = 10
    uniform: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_count("terms", self.terms, 1)

    def pull_back(
        self, ops: Ops, product: Product, v: Leaves, forward: Forward, tangent: bool = False
    ) -> tuple[Leaves, Results, Stats]:
        """The truncated series."""
        return truncated_series(ops, product, v, self.terms, 1.0)


@dataclass(frozen=True)
class OneStep(AbstractPullBack):
    """g = v: the gradient of one evaluation of f at z*, held constant. Jacobian-free, no product.

    Fung, Heaton, Li, McKenzie, Osher, Yin, arXiv 2103.12803; Bolte, Pauwels, Vaiter,
    arXiv 2305.13768.
    """

    uniform: ClassVar[bool] = True

    def pull_back(
        self, ops: Ops, product: Product, v: Leaves, forward: Forward, tangent: bool = False
    ) -> tuple[Leaves, Results, Stats]:
        """v itself."""
        return truncated_series(ops, product, v, 1, 1.0)


class _Sum(NamedTuple):
    z: Leaves
    """The newest term, without the factor λ."""
    total: Leaves
    products: Number


@dataclass(frozen=True)
class _Series:
    """Adds the next term ((1 − λ) I + λ Jᵀ)·z to the total."""

    limit: int
    damping: float

    def active(self, ops: Ops, carry: _Sum) -> Number:
        """Until the asked number of products is reached."""
        return carry.products < self.limit

    def update(self, ops: Ops, carry: _Sum, f: Leaves) -> _Sum:
        """One more term; f is Jᵀ times the newest."""
        term = f
        if self.damping != 1.0:
            pairs = zip(carry.z, f, strict=True)
            term = tuple([(1.0 - self.damping) * z + self.damping * jz for z, jz in pairs])
        return _Sum(term, tree.add(carry.total, term), carry.products + 1.0)


def truncated_series(
    ops: Ops, product: Product, v: Leaves, terms: int, damping: float
) -> tuple[Leaves, Results, Stats]:
    """λ Σ_{k<terms} ((1 − λ) I + λ Jᵀ)ᵏ v."""
    carry = _Sum(v, v, ops.scalar(0.0))
    if terms > 1:
        carry = ops.loop(product, _Series(terms - 1, damping), carry)
    total = carry.total
    if damping != 1.0:
        total = tuple([damping * leaf for leaf in total])
    unknown = ops.numbers(v[0], float("nan"))
    results, stats = report(
        ops,
        ops.numbers(v[0], float(Result.TRUNCATED)),
        steps=ops.numbers(v[0], float(terms)),
        evaluations=carry.products,
        residual=unknown,
        tolerance=unknown,
    )
    return total, results, stats
