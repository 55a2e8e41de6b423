"""f as data, and its product with Jᵀ: what the programs of `Staged` are made of."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from fpicore import AbstractPullBack, DerivativeError, Forward, Leaves, MapError, Results, Stats

from ._evaluation import version
from ._packing import Fixed
from ._products import pull as pulled
from ._programs import Roles
from ._split import halves


class Plan:
    """The graph of f, where its inputs come from, and which of its outputs are the leaves of f."""

    def __init__(
        self, graph: Any, sources: tuple[tuple[int, int], ...], order: tuple[int, ...]
    ) -> None:
        """Equal to itself alone: part of the key of a program."""
        self._graph, self._sources, self._order = graph, sources, order

    def __call__(self, *groups: Leaves) -> Leaves:
        """f, from z, the args and what is fixed."""
        inputs = [groups[group][place] for group, place in self._sources]
        with torch.set_grad_enabled(torch.is_grad_enabled()):  # a no_grad in f switches it on again
            both = (*self._graph(*inputs), *inputs)
        return tuple([both[i] for i in self._order])

    def confirm(self, z: Leaves, args: Leaves, fixed: Leaves, expected: Leaves) -> None:
        """Trace it once by itself, and compare with what f gives.

        Raises:
            MapError: they differ.
        """
        first, second = len(z), len(z) + len(args)

        def flat(*x: Tensor) -> Leaves:
            return self(x[:first], x[first:second], x[second:])

        inputs = (*z, *args, *fixed)
        if not _alike(graph_of(flat, inputs)(*inputs), expected):
            raise MapError(_OTHERWISE)


class Map(NamedTuple):
    """f as data: its graph, and the tensors that it reads."""

    plan: Plan
    args: Leaves
    fixed: Fixed

    def __call__(self, z: Leaves) -> Leaves:
        """f(z)."""
        return self.plan(z, self.args, self.fixed.tensors)


class Product(NamedTuple):
    """g ↦ Jᵀg as data: the part of it that depends on g, and the values that this takes."""

    remaining: Any
    values: Leaves
    fixed: Fixed

    def __call__(self, g: Leaves) -> Leaves:
        """Jᵀg."""
        return tuple(self.remaining(*self.values, *self.fixed.tensors, *g))


class Line:
    """f at z*: the product with Jᵀ is made at the first backward pass."""

    def __init__(self, owner: Any, f: Map, z: Leaves) -> None:
        """Look at what f reads, as a backward pass may come after a change."""
        self._owner, self._map, self._z = owner, f, z
        self._versions = self._now()
        self._product: Product | None = None

    def pull_back(
        self,
        ops: Any,
        adjoint: AbstractPullBack,
        v: Leaves,
        forward: Forward,
        eager: Callable[[Leaves], Leaves],
    ) -> tuple[Leaves, Results, Stats]:
        """``adjoint.pull_back`` by programs; ``eager`` is the product to compare theirs with."""
        ops = self._owner.ops(ops, v)
        with np.errstate(all="ignore"):  # numbers may lie on the host
            return adjoint.pull_back(ops, self.product(eager), v, forward)

    def product(self, eager: Callable[[Leaves], Leaves]) -> Product:
        """The product; one that is traced anew is compared with the other.

        Raises:
            DerivativeError: what f reads was written to since the solve, or they differ.
        """
        if self._product is None:
            if self._now() != self._versions:
                raise DerivativeError(
                    "expected what f reads to be as it was in the solve, received a tensor that "
                    "was written to since; take the gradient first"
                )
            with torch.no_grad():
                self._product = self._make(eager)
        return self._product

    def _now(self) -> list[int | None]:
        return [version(x) for x in (*self._map.args, *self._map.fixed.tensors)]

    def _make(self, eager: Callable[[Leaves], Leaves]) -> Product:
        plan, args, fixed = self._map.plan, self._map.args, self._map.fixed.tensors
        size, count, z = len(self._z), len(args), self._z

        def pull(*tensors: Tensor) -> Leaves:
            held, g = tensors[:-size], tensors[-size:]
            with torch.enable_grad():
                at = tuple([x.detach().requires_grad_() for x in held[:size]])
                out = plan(at, held[size : size + count], held[size + count :])
                return pulled(out, at, g)

        inputs = (*z, *args, *fixed)
        key = ("pull", plan, tuple([kind_of(x) for x in inputs]))

        def traced() -> Any:
            graph = graph_of(pull, (*inputs, *z))
            g = tuple([torch.arange(x.numel(), device=x.device).cos().to(x).view_as(x) for x in z])
            if not _alike(graph(*inputs, *g), eager(g)):
                raise DerivativeError(_OTHERWISE)
            return halves(graph, size)

        parts = self._owner.kept(key, traced)
        roles = Roles(0, 0, size + count, len(fixed))
        values: Leaves = ()
        if any(node.op == "call_function" for node in parts.before.graph.nodes):
            before = self._owner.program(("before", parts.before), parts.before, inputs, roles)
            values = before(*inputs)
        own = [inputs[i] for i in parts.places if i < size + count]
        rest = [inputs[i] for i in parts.places if i >= size + count]
        return Product(parts.after, (*values, *own), Fixed(tuple(rest)))


def kind_of(x: Tensor) -> Any:
    """What a program is made for."""
    return x.shape, x.stride(), x.dtype, x.device


def graph_of(function: Callable[..., Any], inputs: Leaves) -> Any:
    """Its FX graph for such tensors, each of which is another one even where they are the same."""
    apart = [x.detach() for x in inputs]
    return make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)(*apart)


def _alike(found: Leaves, expected: Leaves) -> bool:
    """Whether they differ by no more than rounding could."""
    for a, b in zip(found, expected, strict=True):
        slack = torch.finfo(b.dtype).eps ** 0.5
        top = torch.nan_to_num(b.detach().abs(), 0.0, 0.0, 0.0).max().item()
        if not torch.isclose(a, b, rtol=slack, atol=slack * top, equal_nan=True).all():
            return False
    return True


_OTHERWISE = (
    "expected torch.compile to trace a staged f as it is, received a graph that gives something "
    "else, as it does of torch.func within f; leave f unstaged"
)
