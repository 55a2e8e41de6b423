"""JAX: a backward pass that fails says so from within compiled code, at no cost to the others."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fpicore_jax as fpi
from fpicore import ConvergenceWarning

STEEP, FLAT = 2.5, 0.5
"""Slopes at the fixed point; plain iteration of the adjoint diverges at the first."""


def slope(theta: Any, on_failure: str = "warn") -> Any:
    """d/dθ of the root of z = 1 − θ z, for which the adjoint has no more than plain iteration."""
    adjoint = fpi.Implicit(fpi.Picard(), fallback=None, max_steps=20, on_failure=on_failure)
    return jax.grad(
        lambda t: (
            fpi.fixed_point(
                lambda z, t: 1.0 - t * z,
                jnp.zeros(()),
                (t,),
                solver=fpi.Anderson(),
                adjoint=adjoint,
            ).value
        )
    )(theta)


def told(compute: Callable[[], Any]) -> tuple[np.ndarray, list[str]]:
    """What it gives, and the warnings of adjoint solves."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = np.asarray(jax.block_until_ready(compute()))
    messages = [str(w.message) for w in caught if w.category is ConvergenceWarning]
    assert all(message.startswith("the adjoint solve did not converge") for message in messages)
    return found, messages


WAYS: dict[str, tuple[Callable[[Any], Any], int]] = {
    "jit": (lambda one: lambda thetas: jnp.stack([one(t) for t in thetas]), 1),
    "vmap": (jax.vmap, 1),  # all samples together
    "scan": (lambda one: lambda thetas: jax.lax.scan(lambda c, t: (c, one(t)), 0, thetas)[1], 1),
    "checkpoint": (lambda one: jax.vmap(jax.checkpoint(one)), 1),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_failure_is_told_and_changes_nothing(way: str) -> None:
    thetas = jnp.array([FLAT, STEEP, -FLAT])
    around, count = WAYS[way]
    found, messages = told(lambda: jax.jit(around(slope))(thetas))
    assert len(messages) == count
    silent, none = told(lambda: jax.jit(around(lambda t: slope(t, "ignore")))(thetas))
    assert not none
    assert np.isfinite(silent).all()
    np.testing.assert_array_equal(found, silent)


@pytest.mark.parametrize("way", WAYS)
def test_success_is_silent(way: str) -> None:
    thetas = jnp.array([FLAT, -FLAT])
    around, _ = WAYS[way]
    found, messages = told(lambda: jax.jit(around(slope))(thetas))
    assert not messages
    np.testing.assert_allclose(found, -1.0 / (1.0 + np.asarray(thetas)) ** 2, rtol=1e-2)


def test_a_gradient_is_a_program_without_effects() -> None:
    """JAX calls one that has some by way of Python, which takes as long as a small solve."""
    assert not jax.make_jaxpr(slope)(FLAT).effects
