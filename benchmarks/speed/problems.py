"""The problems: a map over a small namespace, and its data in NumPy.

Each map is written once; a framework supplies the functions in its own idiom (`spaces`). What a
parameter is called is its key in ``params``; the gradient is taken with respect to all of them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Problem:
    """z = f(space, z, params) from z0; the loss is Σ weight·z."""

    name: str
    f: Callable[[Any, Any, dict[str, Any]], Any]
    z0: tuple[np.ndarray, ...]
    weight: tuple[np.ndarray, ...]
    params: Arrays
    dtype: str = "float32"
    rtol: float = 1e-4
    batch_ndim: int = 1
    """Leading axes of independent systems; 0 where all is one system."""
    max_steps: int = 300
    roles: dict[str, str] = field(default_factory=dict)
    """Arrays with a layout that differs by framework: "image" (z0 and weight too) or "kernel"."""

    @property
    def size(self) -> int:
        """Unknowns."""
        return sum(leaf.size for leaf in self.z0)


def _tanh(space: Any, z: Any, p: dict[str, Any]) -> Any:
    return space.tanh(space.linear(z, p["w"], p["b"]) + p["x"])


def _conv(space: Any, z: Any, p: dict[str, Any]) -> Any:
    hidden = space.relu(space.conv(z, p["k1"]) + p["x"])
    return space.tanh(space.conv(hidden, p["k2"]) + p["x"])


def _transformer(space: Any, z: Any, p: dict[str, Any]) -> Any:
    q, k, v = (space.heads(space.linear(z, p[name]), 4) for name in ("q", "k", "v"))
    mixed = space.linear(space.join(space.attention(q, k, v)), p["o"])
    h = space.norm(z + mixed + p["x"])
    return space.norm(h + space.linear(space.relu(space.linear(h, p["up"])), p["down"]) + p["x"])


def _energy(space: Any, z: Any, p: dict[str, Any]) -> Any:
    """A step of descent on ½|z − x|² + Σ softplus(z A + b), its gradient by the framework."""

    def energy(z: Any) -> Any:
        near = 0.5 * space.total((z - p["x"]) ** 2)
        return near + space.total(space.softplus(space.linear(z, p["a"], p["b"])))

    return z - 0.3 * space.gradient(energy, z)


def _pointwise(space: Any, z: Any, p: dict[str, Any]) -> Any:
    return p["w"] * space.tanh(z) + p["x"]


def _bellman(space: Any, z: Any, p: dict[str, Any]) -> Any:
    """max over actions of r + 0.9 P z; z is a row, P has a row for each state and action."""
    values = space.linear(z, 0.9 * p["p"])
    return space.max(space.reshape(values, p["r"].shape) + p["r"])[None]


def _nested(space: Any, z: Any, p: dict[str, Any]) -> Any:
    a, b, c = z
    return (
        space.tanh(space.linear(a, p["aa"]) + space.linear(c, p["ac"]) + p["x"]),
        space.tanh(space.linear(b, p["bb"]) + space.linear(a, p["ba"])),
        space.tanh(space.linear(c, p["cc"]) + space.linear(b, p["cb"])),
    )


def _radius(matrix: np.ndarray, radius: float) -> np.ndarray:
    return matrix * (radius / np.abs(np.linalg.eigvals(matrix)).max())


def _layer(name: str, rows: int, columns: int, radius: float = 0.9, **more: Any) -> Problem:
    rng = np.random.default_rng(0)
    params = {
        "w": _radius(rng.standard_normal((columns, columns)), radius),
        "b": 0.1 * rng.standard_normal(columns),
        "x": rng.standard_normal((rows, columns)),
    }
    return _make(name, _tanh, ((rows, columns),), params, **more)


def _stiff(name: str) -> Problem:
    """Eigenvalues −0.9 … 0.97 and a norm of 1.7, so that steps grow before they shrink."""
    rng = np.random.default_rng(1)
    rotation, _ = np.linalg.qr(rng.standard_normal((128, 128)))
    upper = np.triu(rng.standard_normal((128, 128)), 1) * 0.08
    params = {
        "w": rotation @ (np.diag(np.linspace(-0.9, 0.97, 128)) + upper) @ rotation.T,
        "b": 0.01 * rng.standard_normal(128),
        "x": 0.03 * rng.standard_normal((32, 128)),
    }
    return _make(name, _tanh, ((32, 128),), params, max_steps=1000)


def _image(name: str) -> Problem:
    rng = np.random.default_rng(2)
    kernels = {k: 0.1 * rng.standard_normal((3, 3, 16, 16)) for k in ("k1", "k2")}
    params = {**kernels, "x": rng.standard_normal((8, 32, 32, 16))}
    roles = {"k1": "kernel", "k2": "kernel", "x": "image", "z": "image"}
    return _make(name, _conv, ((8, 32, 32, 16),), params, roles=roles)


def _block(name: str) -> Problem:
    rng = np.random.default_rng(3)

    def weight(rows: int, columns: int, scale: float) -> np.ndarray:
        return scale * rng.standard_normal((rows, columns)) / columns**0.5

    params = {
        **{key: weight(256, 256, 1.0) for key in ("q", "k", "v")},
        "o": weight(256, 256, 1.0),
        "up": weight(512, 256, 1.0),
        "down": weight(256, 512, 1.0),
        "x": rng.standard_normal((8, 64, 256)),
    }
    return _make(name, _transformer, ((8, 64, 256),), params)


def _descent(name: str) -> Problem:
    rng = np.random.default_rng(4)
    params = {
        "a": rng.standard_normal((256, 128)) / 128**0.5,
        "b": 0.1 * rng.standard_normal(256),
        "x": rng.standard_normal((64, 128)),
    }
    return _make(name, _energy, ((64, 128),), params)


def _large(name: str) -> Problem:
    rng = np.random.default_rng(5)
    shape = (1, 1_000_000)
    params = {"w": rng.uniform(-0.85, 0.85, shape), "x": 0.3 * rng.standard_normal(shape)}
    return _make(name, _pointwise, (shape,), params, batch_ndim=0, max_steps=100)


def _decisions(name: str) -> Problem:
    rng = np.random.default_rng(6)
    states, actions = 200, 8
    chance = rng.exponential(size=(states * actions, states)) ** 4
    params = {
        "p": chance / chance.sum(axis=1, keepdims=True),
        "r": rng.standard_normal((states, actions)),
    }
    return _make(
        name, _bellman, ((1, states),), params, dtype="float64", rtol=1e-8, batch_ndim=0
    )  # fmt: skip


def _tree(name: str) -> Problem:
    rng = np.random.default_rng(7)
    wide = {"a": 64, "b": 32, "c": 16}
    params = {
        to + of: 0.55 * rng.standard_normal((wide[to], wide[of])) / wide[of] ** 0.5
        for to, of in ("aa", "ac", "bb", "ba", "cc", "cb")
    }
    params["x"] = rng.standard_normal((32, 64))
    return _make(name, _nested, tuple((32, n) for n in wide.values()), params)


def _make(
    name: str,
    f: Callable[..., Any],
    shapes: tuple[tuple[int, ...], ...],
    params: Arrays,
    dtype: str = "float32",
    **more: Any,
) -> Problem:
    rng = np.random.default_rng(99)
    return Problem(
        name=name,
        f=f,
        z0=tuple(np.zeros(shape) for shape in shapes),
        weight=tuple(rounded(rng.standard_normal(shape), dtype) for shape in shapes),
        params={key: rounded(array, dtype) for key, array in params.items()},
        dtype=dtype,
        **more,
    )


def rounded(array: np.ndarray, dtype: str) -> np.ndarray:
    """The float64 numbers that the dtype has for them: what every framework starts from."""
    if dtype != "bfloat16":
        return array.astype(dtype).astype(np.float64)
    bits = array.astype(np.float32).view(np.uint32)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return bits.view(np.float32).astype(np.float64)


MAKERS: dict[str, Callable[[str], Problem]] = {
    "tanh-32x128": lambda name: _layer(name, 32, 128),
    "tanh-256x1024": lambda name: _layer(name, 256, 1024),
    "conv": _image,
    "stiff": _stiff,
    "transformer": _block,
    "energy": _descent,
    "million": _large,
    "bellman": _decisions,
    "nested": _tree,
    "bf16": lambda name: _layer(name, 32, 128, dtype="bfloat16", rtol=2.0**-4),
}
"""What the record is made of, by name."""
TINY = "tiny"


def problem(name: str) -> Problem:
    """The problem of that name; "tiny" is for trying things out."""
    if name == TINY:
        return _layer(name, 4, 8, radius=0.7)
    if name not in MAKERS:
        raise ValueError(f"expected a problem of {(*MAKERS, TINY)}, received {name!r}")
    return MAKERS[name](name)
