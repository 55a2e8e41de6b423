"""Maps whose fixed points are worth having: descent on an energy, proximal and projected descent.

Each is written once; a backend supplies the gradient of an energy and its structures.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

from ._backend import Backend
from ._errors import InputError, MapError
from ._options import check_interval
from ._snapshot import Composite, snapshot
from ._tree import Leaves, describe

Map = Callable[..., Any]


class GradientStep(Protocol):
    """The signature of ``gradient_step``; every backend exposes the same."""

    def __call__(
        self, energy: Map | None, step_size: Any, *, gradient: Map | None = None
    ) -> "Composite":
        """The map z ↦ z − γ ∂E/∂z (z, *args): the g of FPI_GD.

        Its fixed points are the stationary points of E, whatever γ is; they are solutions of an
        iteration that converges where E is convex near them and γ is below 2/L, L the largest
        eigenvalue of ∂²E/∂z². Derivatives of every order that the framework has go through.
        Jeon, Lee, Choi, arXiv 2002.02868.

            fixed_point(gradient_step(E, 0.1), z0, (x,))

        Args:
            energy: E(z, *args), real: one number per system or a single one; their sum is
                differentiated, so no system may enter the energy of another.
            step_size: γ: a number > 0, or a tensor that multiplies the leaves of z. At the fixed
                point the value does not depend on it, and so its implicit gradient is zero.
            gradient: (z, *args) ↦ ∂E/∂z of the structure of z, in place of ``energy``, which is
                then None. NumPy, which differentiates nothing, needs it.

        With z complex the gradient is ∂E/∂Re z + i ∂E/∂Im z, the direction of steepest ascent.

        Raises:
            InputError: an argument is not usable.
            MapError: when called, the energy is not real or the gradient does not look like z.
            DerivativeError: when called, the framework has no derivatives and there is no
                ``gradient``.
        """
        ...


class ProximalStep(Protocol):
    """The signature of ``proximal_step``; every backend exposes the same."""

    def __call__(
        self, energy: Map | None, prox: Map, step_size: Any, *, gradient: Map | None = None
    ) -> "Composite":
        """The map z ↦ prox(z − γ ∂E/∂z, γ): its fixed points minimise E + R.

        Args:
            energy: the smooth part E, as in ``gradient_step``.
            prox: (z, γ) ↦ argmin_u R(u) + ‖u − z‖²/(2γ), in functions of the framework, such as
                soft thresholding, sign(z)·max(|z| − γλ, 0), for R = λ‖z‖₁.
            step_size: γ, as in ``gradient_step``.
            gradient: as in ``gradient_step``.

        Forward-backward splitting: Combettes, Wajs, Multiscale Model. Simul. 4 (2005), 1168.

        Raises:
            InputError, MapError, DerivativeError: as ``gradient_step``.
        """
        ...


class ProjectedStep(Protocol):
    """The signature of ``projected_step``; every backend exposes the same."""

    def __call__(
        self, energy: Map | None, projection: Map, step_size: Any, *, gradient: Map | None = None
    ) -> "Composite":
        """The map z ↦ P(z − γ ∂E/∂z): its fixed points minimise E over a convex set.

        Args:
            energy: E, as in ``gradient_step``.
            projection: z ↦ P(z), the nearest point of the set, in functions of the framework.
            step_size: γ, as in ``gradient_step``.
            gradient: as in ``gradient_step``.

        Raises:
            InputError, MapError, DerivativeError: as ``gradient_step``.
        """
        ...


class Damped(Protocol):
    """The signature of ``damped``; every backend exposes the same."""

    def __call__(self, f: Map, damping: Any) -> "Composite":
        """The map z ↦ (1 − β)·z + β·f(z, *args): the fixed points of f, other eigenvalues.

        An eigenvalue λ of ∂f/∂z becomes 1 − β(1 − λ): a cycle of the plain iteration (λ ≤ −1)
        contracts for small enough β.

        Args:
            f: the map; it returns the structure of z and nothing else.
            damping: β: a number, 0 < β ≤ 1, or a tensor that multiplies the leaves of z.

        Raises:
            InputError: an argument is not usable.
            MapError: when called, f(z) does not have the structure of z.
        """
        ...


def bind_maps(backend: Backend) -> tuple[GradientStep, ProximalStep, ProjectedStep, Damped]:
    """``gradient_step``, ``proximal_step``, ``projected_step`` and ``damped`` of a backend."""

    def gradient_step(
        energy: Map | None, step_size: Any, *, gradient: Map | None = None
    ) -> Composite:
        return _descent(backend, energy, gradient, step_size)

    def proximal_step(
        energy: Map | None, prox: Map, step_size: Any, *, gradient: Map | None = None
    ) -> Composite:
        return Proximal(_descent(backend, energy, gradient, step_size), _callable("prox", prox))

    def projected_step(
        energy: Map | None, projection: Map, step_size: Any, *, gradient: Map | None = None
    ) -> Composite:
        descent = _descent(backend, energy, gradient, step_size)
        return Projected(descent, _callable("projection", projection))

    def damped(f: Map, damping: Any) -> Composite:
        if not _is_tensor(damping):
            damping = check_interval("damping", damping, 0.0, 1.0)
        return Mixture(backend, _callable("f", f), damping)

    gradient_step.__doc__ = GradientStep.__call__.__doc__
    proximal_step.__doc__ = ProximalStep.__call__.__doc__
    projected_step.__doc__ = ProjectedStep.__call__.__doc__
    damped.__doc__ = Damped.__call__.__doc__
    return gradient_step, proximal_step, projected_step, damped


@dataclass(frozen=True, eq=False)
class Gradient(Composite):
    """(z, *args) ↦ ∂E/∂z."""

    backend: Backend
    energy: Map

    def held(self) -> Self:
        """With the energy as it is now."""
        return replace(self, energy=snapshot(self.energy))

    def __call__(self, z: Any, *args: Any) -> Any:
        """∂E/∂z at z."""
        leaves, rebuild = self.backend.flatten(z)

        def energy(leaves: Leaves, *args: Any) -> Any:
            value = self.energy(rebuild(leaves), *args)
            if not hasattr(value, "dtype") or "float" not in self.backend.dtype_name(value):
                raise MapError(
                    "expected the energy to return a real tensor, one number per system or a "
                    f"single one; received {describe(value)}"
                    + (f" of {self.backend.dtype_name(value)}" if hasattr(value, "dtype") else "")
                )
            return value

        return rebuild(self.backend.gradient(energy, leaves, args))


@dataclass(frozen=True, eq=False)
class Descent(Composite):
    """(z, *args) ↦ z − γ gradient(z, *args)."""

    backend: Backend
    gradient: Map
    step_size: Any

    def held(self) -> Self:
        """With the gradient as it is now."""
        return replace(self, gradient=snapshot(self.gradient))

    def __call__(self, z: Any, *args: Any) -> Any:
        """One step."""
        leaves, rebuild = self.backend.flatten(z)
        slopes = _like(self.backend, self.gradient(z, *args), z, "the gradient")
        pairs = zip(leaves, slopes, strict=True)
        return rebuild(tuple([leaf - self.step_size * slope for leaf, slope in pairs]))


@dataclass(frozen=True, eq=False)
class Proximal(Composite):
    """(z, *args) ↦ prox(descent(z, *args), γ)."""

    descent: Descent
    prox: Map

    def held(self) -> Self:
        """With both parts as they are now."""
        return replace(self, descent=self.descent.held(), prox=snapshot(self.prox))

    def __call__(self, z: Any, *args: Any) -> Any:
        """One step."""
        return self.prox(self.descent(z, *args), self.descent.step_size)


@dataclass(frozen=True, eq=False)
class Projected(Composite):
    """(z, *args) ↦ P(descent(z, *args))."""

    descent: Descent
    projection: Map

    def held(self) -> Self:
        """With both parts as they are now."""
        return replace(self, descent=self.descent.held(), projection=snapshot(self.projection))

    def __call__(self, z: Any, *args: Any) -> Any:
        """One step."""
        return self.projection(self.descent(z, *args))


@dataclass(frozen=True, eq=False)
class Mixture(Composite):
    """(z, *args) ↦ (1 − β)·z + β·f(z, *args)."""

    backend: Backend
    f: Map
    damping: Any

    def held(self) -> Self:
        """With f as it is now."""
        return replace(self, f=snapshot(self.f))

    def __call__(self, z: Any, *args: Any) -> Any:
        """One evaluation."""
        leaves, rebuild = self.backend.flatten(z)
        new = _like(self.backend, self.f(z, *args), z, "f(z)")
        stay, go = 1.0 - self.damping, self.damping
        pairs = zip(leaves, new, strict=True)
        return rebuild(tuple([stay * old + go * leaf for old, leaf in pairs]))


def _descent(backend: Backend, energy: Any, gradient: Any, step_size: Any) -> Descent:
    if (energy is None) == (gradient is None):
        raise InputError(
            "expected an energy or, in its place, gradient=(z, *args) ↦ ∂E/∂z; received "
            + ("neither" if energy is None else "both")
        )
    if gradient is None:
        gradient = Gradient(backend, _callable("energy", energy))
    return Descent(backend, _callable("gradient", gradient), _check_step(step_size))


def _check_step(step: Any) -> Any:
    if _is_tensor(step):
        return step
    if isinstance(step, bool) or not isinstance(step, (int, float)) or not 0 < step < math.inf:
        raise InputError(
            "expected step_size to be a finite number > 0, or a tensor that multiplies the leaves "
            f"of z; received step_size={step!r}"
        )
    return step


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _callable(name: str, f: Any) -> Map:
    if not callable(f):
        raise InputError(f"expected {name} to be callable, received {describe(f)}")
    return f


def _like(backend: Backend, tree: Any, z: Any, what: str) -> Leaves:
    try:
        return backend.flatten_like(tree, z)
    except InputError as error:
        raise MapError(str(error).replace("f(z)", what)) from None
