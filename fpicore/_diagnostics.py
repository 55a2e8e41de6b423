"""Figures of the Jacobian J = ∂f/∂z at a given z, from products with Jᵀ alone."""

from collections.abc import Callable
from typing import Any, Protocol

from . import _tree as tree
from ._arnoldi import LEAST_HISTORY, Arnoldi
from ._backend import Backend, Linear
from ._entry import finish, pose
from ._errors import InputError
from ._ops import Number
from ._options import check_count, check_interval
from ._problem import Problem
from ._reporting import report
from ._solution import Solution
from ._stopping import clamp_rtol
from ._tree import Leaves


class JacobianPenalty(Protocol):
    """The signature of ``jacobian_penalty``; every backend exposes the same."""

    def __call__(
        self,
        f: Callable[..., Any],
        z: Any,
        args: tuple[Any, ...] = (),
        *,
        probes: Any = 1,
        rng: Any = None,
        batch_ndim: int = 0,
        has_aux: bool = False,
    ) -> Any:
        """Estimate ‖J‖²_F per system, J = ∂f/∂z at z; differentiable, to keep J small in training.

        Returns (1/k) Σᵢ ‖Jᵀeᵢ‖² over k probes eᵢ, divided by nothing else: neither by the size of
        z nor by the number of systems. Its mean over probes of independent random signs is
        ‖J‖²_F, the sum of the squared entries of J. Add ``weight * penalty.mean()`` to the loss.

        Gradients reach z, args and all that f closes over, in every mode of the framework. Where
        z is the value of ``fixed_point``, its gradient goes on through the fixed point; pass a
        detached z to leave that part out. With z complex, J is that of a holomorphic f; of any
        other it is half of ‖·‖²_F of the real Jacobian of (Re z, Im z).

        Bai, Koltun, Kolter, arXiv 2106.14342; Hutchinson, Commun. Stat. 19 (1990), 433.

        Args:
            f: the map; called as f(z, *args).
            z: where to linearise: a tensor or a nested structure.
            args: further arguments of f.
            probes: how many to draw, each one product with Jᵀ; or a list of states like z to use
                instead, for an estimate that is not random.
            rng: the source of a drawn probe. PyTorch: a torch.Generator; None is the global one.
                TensorFlow: a tf.random.Generator, or two integers that seed stateless numbers;
                None is the global generator. JAX: a key, always.
            batch_ndim: leading axes of every leaf of z that index independent systems.
            has_aux: f returns (z, aux); aux is ignored.

        Returns:
            A tensor of the batch shape, in the real dtype of z; float32 if z is narrower.

        Raises:
            InputError: an argument is not usable; in JAX also if rng is missing.
            MapError: f(z) does not look like z.
            DerivativeError: the framework has no derivatives (NumPy).
        """
        ...


class SpectralRadius(Protocol):
    """The signature of ``spectral_radius``; every backend exposes the same."""

    def __call__(
        self,
        f: Callable[..., Any],
        z: Any,
        args: tuple[Any, ...] = (),
        *,
        rtol: float = 1e-3,
        max_steps: int = 100,
        history: int = 20,
        batch_ndim: int = 0,
        has_aux: bool = False,
        on_failure: str = "warn",
    ) -> Solution:
        """Estimate the largest |eigenvalue| of J = ∂f/∂z at z, per system.

        Below 1 the plain iteration z ← f(z) converges from close by, and the radius is its factor
        a step; f, Anderson and Broyden may well work above 1. Arnoldi's iteration on Jᵀ, which
        has the spectrum of J: complex and opposite eigenvalues are no special case.

        The answer is that of a solve. ``value`` is the radius |μ|. ``stats.residual`` is
        ‖Jᵀy − μy‖ for the unit vector y that was found, ``stats.tolerance`` rtol·|μ| (never less
        than the rounding of the product), and a system has converged when the one is at most the
        other. Then μ is an eigenvalue of a matrix at that distance from J; it is within
        κ·residual of one of J, where κ is the condition of that eigenvalue: 1 for a normal J. (A
        defective eigenvalue of multiplicity p has none; rounding moves it by eps^(1/p).)
        ``stats.steps`` counts products with Jᵀ. A system that did not converge gets its latest
        estimate.

        The start is fixed: entries between 0.5 and 1.5 that oscillate at every frequency, so that
        vectors of one sign and waves alike have a share in it. An eigenvector orthogonal to it
        stays unseen.

        **The value carries no derivative**, like the stats of a solve. ∂|μ| needs the left and the
        right eigenvector, each as accurate as the gradient shall be, which is far more than |μ|
        needs; and |μ| has none where eigenvalues meet or a complex pair takes over, as they do in
        training. To train for a small Jacobian take ``jacobian_penalty``: ‖J‖_F ≥ |μ|.

        Saad, Numerical Methods for Large Eigenvalue Problems (SIAM 2011), §6.2.

        Args:
            f: the map; called as f(z, *args).
            z: where to linearise: a tensor or a nested structure.
            args: further arguments of f.
            rtol: see above; 0 < rtol ≤ 1, raised to what the dtype of z resolves.
            max_steps: most products.
            history: states kept, ≥ 8; the iteration restarts when they are full.
            batch_ndim: leading axes of every leaf of z that index independent systems.
            has_aux: f returns (z, aux); aux is ignored.
            on_failure: "warn", "raise" or "ignore" when a system does not converge.

        Returns:
            A `Solution`, its value of the batch shape. NONFINITE, with a NaN, where J holds one.

        Raises:
            InputError: an argument is not usable.
            MapError: f(z) does not look like z.
            DerivativeError: the framework has no derivatives (NumPy).
            ConvergenceError: a system did not converge and ``on_failure="raise"``.
        """
        ...


def bind_diagnostics(backend: Backend) -> tuple[JacobianPenalty, SpectralRadius]:
    """``jacobian_penalty`` and ``spectral_radius`` of a backend."""

    def jacobian_penalty(
        f: Callable[..., Any],
        z: Any,
        args: tuple[Any, ...] = (),
        *,
        probes: Any = 1,
        rng: Any = None,
        batch_ndim: int = 0,
        has_aux: bool = False,
    ) -> Any:
        problem = pose(backend, f, z, args, batch_ndim, has_aux)
        given = _read_probes(backend, problem, probes, rng)

        def estimate(line: Linear) -> Number:
            states = line.signs(probes, rng) if given is None else given
            pulled = [line.pull(e) for e in states]
            return sum(tree.dot(line.ops, p, p) for p in pulled) / len(pulled)

        return backend.linearize(problem, estimate, recorded=True)

    def spectral_radius(
        f: Callable[..., Any],
        z: Any,
        args: tuple[Any, ...] = (),
        *,
        rtol: float = 1e-3,
        max_steps: int = 100,
        history: int = 20,
        batch_ndim: int = 0,
        has_aux: bool = False,
        on_failure: str = "warn",
    ) -> Solution:
        problem = pose(backend, f, z, args, batch_ndim, has_aux, on_failure)
        arnoldi = Arnoldi(
            limit=check_count("max_steps", max_steps, 1),
            history=check_count("history", history, LEAST_HISTORY),
            rtol=clamp_rtol(check_interval("rtol", rtol, 0.0, 1.0), problem.precision),
            precision=problem.precision,
        )

        def iterate(line: Linear) -> Solution:
            start = arnoldi.start(line.ops, line.fill(chirp))
            return _report(line, line.ops.loop(line.pull, arnoldi, start))

        found = backend.linearize(problem, iterate, recorded=False)
        finish(backend, found.result, found.stats, on_failure, "spectral_radius")
        return found

    jacobian_penalty.__doc__ = JacobianPenalty.__call__.__doc__
    spectral_radius.__doc__ = SpectralRadius.__call__.__doc__
    return jacobian_penalty, spectral_radius


def chirp(i: Any) -> Any:
    """2³⁰ + (φ i² mod 1)·2³¹, φ the golden section, in integers of 32 unsigned or 64 bits.

    The quadratic phase has a flat spectrum: no wave is orthogonal to it.
    """
    return ((i * i & _LAST) * _GOLDEN & _LAST) + 2**30


def _read_probes(backend: Backend, problem: Problem, probes: Any, rng: Any) -> list[Leaves] | None:
    """The leaves of the probes that the caller passed; None where they are to be drawn."""
    if not isinstance(probes, (list, tuple)):
        check_count("probes", probes, 1)
        return None
    if not probes or rng is not None:
        raise InputError(
            "expected probes to be a number, with rng, or a list of at least one state without; "
            f"received a list of {len(probes)} and rng={rng!r}"
        )
    return [_read_probe(backend, problem, i, probe) for i, probe in enumerate(probes)]


def _read_probe(backend: Backend, problem: Problem, index: int, probe: Any) -> Leaves:
    name = f"probes[{index}]"
    try:
        leaves = backend.flatten_like(probe, problem.z0)
    except InputError as error:
        raise InputError(str(error).replace("f(z)", name)) from None
    admitted = [backend.admit(e, z) for e, z in zip(leaves, problem.leaves, strict=True)]
    for e, z, leaf in zip(leaves, problem.leaves, admitted, strict=True):
        if leaf is None:
            raise InputError(
                f"expected the leaves of {name} to be like those of z, shape {tuple(z.shape)} "
                f"dtype {backend.dtype_name(z)}; received shape {tuple(e.shape)} dtype "
                f"{backend.dtype_name(e)}"
            )
    return tuple(admitted)


def _report(line: Linear, carry: Any) -> Solution:
    ops, found = line.ops, carry.estimate
    results, stats = report(
        ops,
        found.codes,
        steps=found.steps,
        evaluations=carry.step,
        residual=found.residual,
        tolerance=found.tolerance,
    )
    return Solution(ops.report(found.value), results, stats)


_LAST = 2**31 - 1
_GOLDEN = 1327217885
"""The odd number next to 2³¹ times the golden section."""
