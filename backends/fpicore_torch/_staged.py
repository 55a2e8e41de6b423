"""`Staged`: the whole step, f and update and residual, as one program that is run again and again.

What f is at a solve is told by dynamo: it gives the graph of f, with every tensor that f reads as an
input, and its guards say whether that graph still holds, at the price of one evaluation a solve.
The solver's step is traced around that graph by operations whose counters are tensors, so that one
program serves every step. The adjoint's step is traced likewise, around the product with Jᵀ.
"""

from collections.abc import Callable
from threading import local
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

import fpicore
from fpicore import (
    AbstractPullBack,
    DerivativeError,
    Forward,
    InputError,
    Leaves,
    MapError,
    Problem,
    Results,
    Stats,
)

from ._capture import capture
from ._evaluation import unwritten, version
from ._frozen import Frozen
from ._programs import Captured, Compiled, Program, Roles
from ._split import halves
from ._staged_ops import Fixed, StagedOps

_HOWS: dict[str, type[Program]] = {"compiled": Compiled, "captured": Captured}
TOGETHER = {"compiled": 4, "captured": 1}
"""Steps in a program: to call one costs as much as a small step."""
_MOST = 64
"""Programs kept; the oldest goes first."""


class Staged:
    """f, whose solver steps are compiled, or captured in a CUDA graph.

    Called it is f. ``fixed_point`` makes one program of a whole step, evaluation, update and
    residual, and one of the adjoint's step. They are kept with this object, by the shapes of state
    and args and by the options of the solve, and freed with it: make it once, not in a loop.

    Args may change between calls; parameters and whatever else f reads may be changed in place or
    replaced. An f that has become another one, by a new closure or another mode of a module, is
    traced anew. Values and gradients are those of eager steps but for rounding.

    f must be one graph to ``torch.compile(fullgraph=True)``: no branch on values of tensors, no
    wait for the host. It may not draw random numbers or write to a tensor.

    Staged are the solve and the pull-back of its first derivative by `Implicit` and its
    approximations. Everything else evaluates f as it stands: other adjoints, torch.func, forward
    mode, derivatives of higher order.

    Attributes:
        f: the map.
        how: "compiled", by torch's inductor, on any device that it knows; "captured", replayed as
            a CUDA graph. A program of the latter keeps its step's memory.
    """

    def __init__(self, f: Callable[..., Any], how: str = "compiled") -> None:
        """Nothing is traced before the first solve.

        Raises:
            InputError: f is not callable, or ``how`` is unknown.
        """
        if not callable(f):
            raise InputError(f"expected f to be callable as f(z, *args), received {f!r}")
        if how not in _HOWS:
            raise InputError(f"expected how to be one of {tuple(_HOWS)}, received {how!r}")
        self.f, self.how = f, how
        self._made: dict[Any, Any] = {}
        self._traced = torch.compile(f, backend=_note, fullgraph=True, dynamic=False)

    def __call__(self, z: Any, *args: Any) -> Any:
        """f(z, *args), as it is."""
        return self.f(z, *args)

    def ops(self, ops: Any, device: torch.device) -> StagedOps:
        """Like these operations, but that their loop runs programs."""
        return StagedOps(self, ops.batch_ndim, ops.eps, device, TOGETHER[self.how])

    def read(self, problem: Problem, frozen: Frozen, z: Leaves) -> "Map":
        """f as it is now, as data.

        Raises:
            InputError: there is autocast around the solve.
            MapError: f is not one graph, or has effects.
        """
        if frozen.autocast:
            raise InputError(
                "expected no autocast around a solve with a staged f, received one; enter "
                "torch.autocast within f and return the dtype of z"
            )
        _noted.last = None
        try:
            out = self._traced(problem.rebuild(z), *problem.args)
        except torch._dynamo.exc.Unsupported as error:
            raise MapError(_GRAPH) from error
        if problem.has_aux:
            out = out[0]
        given = _tensors(problem.args)
        graph, inputs, outputs = _noted.last or (_nothing, (*z, *given), ())
        leaves = fpicore.flatten_like(out, problem.z0, lambda x: isinstance(x, Tensor))
        places = {id(x): i for i, x in enumerate((*outputs, *inputs))}
        if not all(id(leaf) in places for leaf in leaves):
            raise MapError(_OFF)
        order = tuple([places[id(leaf)] for leaf in leaves])
        sources, args, fixed = _sorted(inputs, z, given)

        def checked() -> Plan:
            unwritten(frozen)(z)
            if not frozen.plain or capture(frozen, z).written:
                raise MapError(_EFFECTS)
            return Plan(graph, sources, order)

        plan = self.kept((graph, sources, order), checked)
        return Map(plan, args, Fixed(fixed))

    def line(self, f: "Map", z: Leaves) -> "Line":
        """f at z, for the products of an adjoint solve."""
        return Line(self, f, z)

    def kept(self, key: Any, make: Callable[[], Any]) -> Any:
        """What is kept under a key."""
        if key not in self._made:
            made = make()  # may itself make something
            while len(self._made) >= _MOST:
                del self._made[next(iter(self._made))]
            self._made[key] = made
        return self._made[key]

    def program(
        self, key: Any, function: Callable[..., Any], inputs: Leaves, roles: Roles
    ) -> Program:
        """The program of a function of such tensors; it is traced if it is not known."""
        places = () if self.how == "compiled" else [x.data_ptr() for x in inputs[roles.own :]]
        full = (key, tuple([_kind(x) for x in inputs]), *places)
        make = _HOWS[self.how]
        return self.kept(full, lambda: make(_graph_of(function, inputs), inputs, roles))


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
        both = (*self._graph(*inputs), *inputs)
        return tuple([both[i] for i in self._order])


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

    def __init__(self, owner: Staged, f: Map, z: Leaves) -> None:
        """Look at what f reads, as a backward pass may come after a change."""
        self._owner, self._map, self._z = owner, f, z
        self._versions = self._now()
        self._product: Product | None = None

    def pull_back(
        self, ops: Any, adjoint: AbstractPullBack, v: Leaves, forward: Forward
    ) -> tuple[Leaves, Results, Stats]:
        """``adjoint.pull_back`` by programs."""
        ops = self._owner.ops(ops, v[0].device)
        return adjoint.pull_back(ops, self.product(), v, forward)

    def product(self) -> Product:
        """The product.

        Raises:
            DerivativeError: what f reads was written to since the solve.
        """
        if self._product is None:
            if self._now() != self._versions:
                raise DerivativeError(
                    "expected what f reads to be as it was in the solve, received a tensor that "
                    "was written to since; take the gradient first"
                )
            with torch.no_grad():
                self._product = self._make()
        return self._product

    def _now(self) -> list[int | None]:
        return [version(x) for x in (*self._map.args, *self._map.fixed.tensors)]

    def _make(self) -> Product:
        plan, args, fixed = self._map.plan, self._map.args, self._map.fixed.tensors
        size, count, z = len(self._z), len(args), self._z

        def pull(*tensors: Tensor) -> Leaves:
            held, g = tensors[: -size], tensors[-size:]
            with torch.enable_grad():
                at = tuple([x.detach().requires_grad_() for x in held[:size]])
                out = plan(at, held[size : size + count], held[size + count :])
                return _pulled(out, at, g)

        inputs = (*z, *args, *fixed)
        key = ("pull", plan, tuple([_kind(x) for x in inputs]))
        parts = self._owner.kept(key, lambda: halves(_graph_of(pull, (*inputs, *z)), size))
        roles = Roles(0, 0, size + count, len(fixed))
        values: Leaves = ()
        if any(node.op == "call_function" for node in parts.before.graph.nodes):
            before = self._owner.program(("before", parts.before), parts.before, inputs, roles)
            values = before(*inputs)
        own = [inputs[i] for i in parts.places if i < size + count]
        rest = [inputs[i] for i in parts.places if i >= size + count]
        return Product(parts.after, (*values, *own), Fixed(tuple(rest)))


_noted: Any = local()


def _note(graph: Any, examples: Any) -> Callable[..., Any]:
    """The backend of dynamo: run the graph of f, and say what it was run with."""

    outputs: Any = None

    def run(*inputs: Any) -> Any:
        nonlocal outputs
        if outputs is None:
            outputs = graph(*inputs)  # it is asked for what it reads: values are for once
        _noted.last = graph, inputs, outputs
        return outputs

    return run


def _nothing(*inputs: Tensor) -> Leaves:
    """The graph of an f that computes nothing."""
    return ()


def _sorted(inputs: Leaves, z: Leaves, given: Leaves) -> tuple[Any, Leaves, Leaves]:
    """Where each input comes from, (group, place); the args among them, and what is fixed."""
    groups: list[list[Tensor]] = [list(z), [], []]
    own, passed = {id(x): i for i, x in enumerate(z)}, set(map(id, given))
    sources = []
    for x in inputs:
        if not isinstance(x, Tensor):
            raise MapError(_GRAPH)
        if id(x) in own:
            sources.append((0, own[id(x)]))
            continue
        group = 1 if id(x) in passed else 2
        sources.append((group, len(groups[group])))
        groups[group].append(x.detach())
    return tuple(sources), tuple(groups[1]), tuple(groups[2])


def _tensors(tree: Any) -> Leaves:
    """The tensors in plain containers."""
    found: list[Tensor] = []
    fpicore.map_leaves(tree, lambda x: isinstance(x, Tensor), found.append)
    return tuple(found)


def _kind(x: Tensor) -> Any:
    return x.shape, x.stride(), x.dtype, x.device


def _graph_of(function: Callable[..., Any], inputs: Leaves) -> Any:
    """Its FX graph for such tensors, each of which is another one even where they are the same."""
    apart = [x.detach() for x in inputs]
    return make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)(*apart)


def _pulled(outputs: Leaves, inputs: Leaves, g: Leaves) -> Leaves:
    kept = [i for i, leaf in enumerate(outputs) if leaf.requires_grad]
    if not kept:
        return tuple([torch.zeros_like(leaf) for leaf in inputs])
    return torch.autograd.grad(
        [outputs[i] for i in kept],
        inputs,
        [g[i] for i in kept],
        allow_unused=True,
        materialize_grads=True,
    )


_GRAPH = (
    "expected a staged f to be one graph of tensors, received one that torch.compile breaks (above "
    "is why): no branch on values, no .item(), no numbers that change; or leave f unstaged"
)
_EFFECTS = (
    "expected a staged f to have no effects, received an f that draws random numbers or writes to a "
    "tensor; call eval() on its modules, draw before the solve, or leave f unstaged"
)
_OFF = (
    "expected torch.compile to trace a staged f, received what it has not seen; is it switched off "
    "(TORCH_COMPILE_DISABLE, set_stance, torch.compiler.disable)?"
)
