"""A learned energy of flows, its minimum, and the loss of it; one system a pair of pictures.

    E(u) = Σ_p w ρ(Σ_j r_j²; δ) + Σ_p Σ_i a_i ρ(|k_i ∗ u|²; ε_i) + ½ Σ_p q |u − u₀|²,
    ρ(s; ε) = ε² (√(1 + s/ε²) − 1)

r_j is what learned channels F_j of the pictures differ by, linear in u about the flow u₀ that
the second picture was drawn back by: r_j = F_j(second) − F_j(first) + ∇F_j · (u − u₀). The
weights w and a_i, and the pull q to u₀, are a small network's of the clues in the batch. E is
convex; one step of gradient descent, divided by a bound D on the curvature for each entry, is the
map, so that the plain iteration converges too. The pull is at least PULL times the smoothness:
without it a system's condition grows with the square of the pictures' side.
"""

from typing import Any

import numpy as np

from fpicore import Anderson

from ..frameworks import Arrays, Framework

CHANNELS, FILTERS, CLUES, HIDDEN = 4, 4, 7, 16
RTOL, ATOL, MAX_STEPS, HISTORY = 1e-3, 1e-2, 200, 6
PULL, LEAST = 0.05, 3e-3
"""Of a width, a threshold, a smoothness weight."""


def initial(seed: int) -> Arrays:
    """Channels near the picture and its slopes, filters near first differences; even weights."""
    random = np.random.default_rng(seed)
    channels = 0.02 * random.standard_normal((5, 5, 1, CHANNELS))
    channels[2, 2, 0, 0] += 1.0
    channels[2, 1:4, 0, 1] += (-0.5, 0.0, 0.5)
    channels[1:4, 2, 0, 2] += (-0.5, 0.0, 0.5)
    filters = 0.02 * random.standard_normal((3, 3, 2, 2 * FILTERS))
    for i in range(FILTERS):
        row, column = ((1, 2), (2, 1), (2, 2), (2, 0))[i]
        for part in range(2):
            filters[row, column, part, i + part * FILTERS] += 1.0
            filters[1, 1, part, i + part * FILTERS] -= 1.0
    found = {
        "channels": channels,
        "filters": filters,
        "width_bias": np.full(FILTERS, -1.0),
        "threshold_bias": np.full(1, -1.0),
        "clues": random.standard_normal((3, 3, CLUES, HIDDEN)) * (9 * CLUES) ** -0.5,
        "hidden_bias": np.zeros(HIDDEN),
        "weights": np.zeros((3, 3, HIDDEN, FILTERS + 2)),
        "weight_bias": np.array([-6.0] * FILTERS + [0.5, -7.0]),
    }
    return {name: x.astype(np.float32) for name, x in found.items()}


def penalty(square: Any, width: Any) -> Any:
    """ρ: half the square where it is small beside the width's, then its root times the width."""
    return width * width * ((1.0 + square / (width * width)) ** 0.5 - 1.0)


def energy(framework: Framework) -> Any:
    """E(u, *terms) of the terms that `terms` gives."""

    def value(u: Any, data: Any, smooth: Any) -> Any:
        along_x, along_y, rest, trust, threshold = data
        weights, filters, width, pull, start = smooth
        r = along_x * u[..., :1] + along_y * u[..., 1:] + rest
        fit = framework.sum(trust * penalty(framework.sum(r * r, axis=3), threshold))
        bends = framework.conv(u, filters) ** 2
        square = bends[..., :FILTERS] + bends[..., FILTERS:]
        held = 0.5 * framework.sum(pull * framework.sum((u - start) ** 2, axis=3))
        return fit + held + framework.sum(weights * penalty(square, width))

    return value


def terms(framework: Framework, p: Any, batch: Any) -> tuple[Any, Any]:
    """What E is made of: the data, and the smoothness."""
    names = ("along_x", "along_y", "change")
    along_x, along_y, change = (framework.conv(batch[x], p["channels"]) for x in names)
    start = batch["start"]
    rest = change - along_x * start[..., :1] - along_y * start[..., 1:]
    hidden = framework.relu(framework.conv(batch["clues"], p["clues"]) + p["hidden_bias"])
    out = framework.softplus(framework.conv(hidden, p["weights"]) + p["weight_bias"])
    trust = out[..., FILTERS] * batch["inside"]
    threshold = framework.softplus(p["threshold_bias"]) + LEAST
    width = framework.softplus(p["width_bias"]) + LEAST
    filters = p["filters"] - framework.sum(p["filters"], axis=(0, 1)) / 9.0
    data = along_x, along_y, rest, trust, threshold
    weights = out[..., :FILTERS] + LEAST
    pull = PULL * framework.sum(weights, axis=3) + out[..., FILTERS + 1]
    return data, (weights, filters, width, pull, start)


def curvature(framework: Framework, start: Any, data: Any, smooth: Any) -> Any:
    """D, so that ∂²E/∂u² ≤ diag(D): for the data |∇F|², for A = KᵀWK the rows' sums of |K|ᵀW|K|.

    ρ bends less than half the square does, everywhere.
    """
    along_x, along_y, _, trust, _ = data
    weights, filters, _, pull, _ = smooth
    steep = framework.sum(along_x * along_x + along_y * along_y, axis=3)
    size = framework.relu(filters) + framework.relu(-filters)
    sums = framework.sum(size, axis=(0, 1, 2))
    # The transpose of a linear map is the derivative of ⟨a, Kx⟩.
    turned = framework.fpi.gradient_step(
        lambda x, k: framework.sum(
            weights * sums[:FILTERS] * framework.conv(x, k)[..., :FILTERS]
            + weights * sums[FILTERS:] * framework.conv(x, k)[..., FILTERS:]
        ),
        1.0,
    )
    return (trust * steep + pull)[..., None] - turned(0.0 * start, size)


def refined(framework: Framework, p: Any, batch: Any, adjoint: Any) -> tuple[Any, dict[str, Any]]:
    """The flow of least energy, and what the solve told."""
    data, smooth = terms(framework, p, batch)
    start, least = batch["start"], energy(framework)
    size = framework.constant(1.0 / curvature(framework, start, data, smooth))

    def f(u: Any, size: Any, data: Any, smooth: Any) -> Any:
        return framework.fpi.gradient_step(least, size)(u, data, smooth)

    solution = framework.fpi.fixed_point(
        f,
        start,
        (size, data, smooth),
        solver=Anderson(history=HISTORY),
        adjoint=adjoint,
        rtol=RTOL,
        atol=ATOL,
        max_steps=MAX_STEPS,
        batch_ndim=1,
        on_failure="ignore",
    )
    figures = {
        "codes": solution.result.codes,
        "steps": solution.stats.steps,
        "flow": framework.constant(solution.value),
    }
    return solution.value, figures


def make_loss(framework: Framework, adjoint: Any) -> Any:
    """The mean end-point error where the flow is known."""

    def loss(parameters: Any, batch: Any) -> tuple[Any, dict[str, Any]]:
        flow, figures = refined(framework, parameters, batch, adjoint)
        off = framework.sum((flow - batch["truth"]) ** 2, axis=3)
        error = framework.sum(batch["known"] * (off + 1e-4) ** 0.5)
        return error / (framework.sum(batch["known"]) + 1.0), figures

    return loss
