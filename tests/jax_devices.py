"""Solves on two virtual devices, for `test_jax_sharding`: a process of its own has them.

``python -m tests.jax_devices`` runs every case and prints what each came to, as JSON.
"""

import json
import os
import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
)

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import fpicore_jax as fpi

RANDOM = np.random.default_rng(0)
WEIGHT = 0.5 * np.linalg.qr(RANDOM.standard_normal((4, 4)))[0]
DATA = RANDOM.standard_normal((6, 4))
QUIET = fpi.Implicit(on_failure="ignore", fallback=None)


def layer(w: Any, x: Any, **options: Any) -> Any:
    options = {"adjoint": QUIET, "rtol": 1e-12, **options}
    return fpi.fixed_point(
        lambda z: jnp.tanh(z @ w.T + x), jnp.zeros((x.shape[0], 4)), batch_ndim=1, **options
    ).value


def columns(w: Any, x: Any) -> Any:
    """The layer with w split by columns: f sums over the devices, and z is whole on each."""

    def f(z: Any) -> Any:
        part = jax.lax.dynamic_slice_in_dim(z, 2 * jax.lax.axis_index("d"), 2, 1)
        return jnp.tanh(jax.lax.psum(part @ w.T, "d") + x)

    return fpi.fixed_point(f, jnp.zeros(x.shape), batch_ndim=1, rtol=1e-12, adjoint=QUIET).value


def coupled(w: Any, x: Any) -> Any:
    """Each device has its own rows of z, and f mixes them."""
    return fpi.fixed_point(
        lambda z: jnp.tanh(z @ w.T + x + 0.1 * jax.lax.pmean(z.mean(0), "d")), jnp.zeros(x.shape)
    ).value


def gradient(function: Callable[..., Any], of: int | tuple[int, ...] = 0) -> Any:
    return jax.grad(lambda w, x: (function(w, x) ** 2).sum(), argnums=of)


def error(found: Any, wanted: Any) -> float:
    return float(jnp.max(jnp.abs(found - wanted)))


WHOLE, ROWS = P(), P("d")


def split(function: Callable[..., Any], w: Any = WHOLE, x: Any = ROWS, out: Any = ROWS) -> Any:
    mesh = Mesh(np.array(jax.devices()), ("d",))
    return jax.shard_map(function, mesh=mesh, in_specs=(w, x), out_specs=out)


def cases() -> dict[str, Any]:
    w, x = jnp.asarray(WEIGHT), jnp.asarray(DATA)
    value, wanted = jax.jit(lambda w, x: (layer(w, x), gradient(layer)(w, x)))(w, x)

    def compare(function: Any) -> list[float]:
        found = jax.jit(lambda w, x: (function(w, x), gradient(function)(w, x)))(w, x)
        return [error(found[0], value), error(found[1], wanted)]

    def with_options(**options: Any) -> list[float]:
        return compare(split(lambda w, x: layer(w, x, **options)))

    def reversible() -> list[float]:
        """Against the same strategy on one device, of which it is the exact gradient."""
        options = {"adjoint": fpi.Reversible(on_failure="ignore")}
        alone = lambda w, x: layer(w, x, **options)  # noqa: E731
        both = [
            jax.jit(lambda w, x, f=f: (f(w, x), gradient(f, (0, 1))(w, x)))(w, x)
            for f in (split(alone), alone)
        ]
        return [error(*pair) for pair in zip(*map(jax.tree.leaves, both), strict=True)]

    def gradient_inside() -> list[float]:
        """The derivative sums over the devices at each recorded step."""

        def objective(w: Any, x: Any) -> Any:
            options = {"solver": fpi.Picard(), "adjoint": fpi.Unrolled(), "max_steps": 60}
            return jax.lax.psum((layer(w, x, **options) ** 2).sum(), "d")

        return [error(jax.jit(split(jax.grad(objective), out=WHOLE))(w, x), wanted)]

    def refusal() -> str:
        try:
            jax.jit(split(coupled))(w, x)
        except fpi.InputError as message:
            return str(message)
        return ""

    return {
        "anderson": lambda: with_options(),
        "broyden": lambda: with_options(solver=fpi.Broyden()),
        "reuse": lambda: with_options(adjoint=fpi.Implicit(reuse=True)),
        "columns": lambda: compare(split(columns, P(None, "d"), WHOLE, WHOLE)),
        "reversible": reversible,
        "unrolled": gradient_inside,
        "coupled": refusal,
        "named": lambda: named_sharding(w, x, wanted),
        "pmap": lambda: (
            [error(jax.pmap(lambda x: layer(w, x))(x.reshape(2, 3, 4)).reshape(6, 4), value)]
            if hasattr(jax, "pmap")
            else [0.0]
        ),
    }


def named_sharding(w: Any, x: Any, wanted: Any) -> dict[str, Any]:
    """Collectives of the compiled gradient of a batch that is split, with its error."""
    mesh = Mesh(np.array(jax.devices()), ("d",))
    w, x = (
        jax.device_put(w, NamedSharding(mesh, WHOLE)),
        jax.device_put(x, NamedSharding(mesh, ROWS)),
    )
    compiled = jax.jit(gradient(layer)).lower(w, x).compile()
    kinds = ("all-gather", "all-to-all", "collective-permute", "all-reduce")
    text = compiled.as_text() or ""
    found: dict[str, Any] = {k: len(re.findall(k + r"(?:-start)?\(", text)) for k in kinds}
    return {**found, "error": error(compiled(w, x), wanted)}


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    print(json.dumps({name: run() for name, run in cases().items()}), file=sys.stdout)
