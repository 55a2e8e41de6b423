"""`Staged`: the whole step, f and update and residual, as one program that is run over and over.

What f is at a solve is told by dynamo: it gives the graph of f, with every tensor that f reads as
an input, and its guards say at each solve whether that graph still holds. The solver's step is
traced around that graph by operations whose counters are tensors, so that one program serves every
step. The adjoint's step is traced likewise, around the product with Jᵀ.
"""

from collections.abc import Callable
from threading import RLock, local
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.exc import FailOnRecompileLimitHit, Unsupported

import fpicore
from fpicore import InputError, Leaves, MapError, Problem

from ._capture import capture
from ._evaluation import unwritten
from ._frozen import Frozen
from ._levels import eagerly
from ._packing import Fixed
from ._programs import Captured, Compiled, Program, Roles, accelerator
from ._staged_host import StagedHostOps
from ._staged_map import Map, Plan, graph_of, kind_of
from ._staged_ops import StagedOps

_HOWS: dict[str, type[Program]] = {"compiled": Compiled, "captured": Captured}
TOGETHER = {"compiled": 4, "captured": 1}
"""Steps in a program of a small state, where to call one costs as much as a step."""
SMALL = 2**15
"""Entries of a state that is not small: the steps after the last one would cost more."""
_MOST = 64
"""Programs kept; the oldest goes first."""
_DYNAMO = {"cache_size_limit": _MOST, "skip_nnmodule_hook_guards": False}
"""By itself it stops at 8 kinds of f, and does not see hooks that come or go."""
_PATCH = torch._dynamo.config.patch(_DYNAMO)
_LOOKING = RLock()


class Staged:
    """f, whose solver steps are compiled, or captured in a CUDA graph.

    Called it is f. ``fixed_point`` makes one program of a whole step, evaluation, update and
    residual, and one of the adjoint's step. They are kept with this object, by the shapes of state
    and args and by the options of the solve, and freed with it: make it once, not in a loop.

    Args may change between calls; parameters and whatever else f reads may be changed in place or
    replaced. An f that has become another one, by a new closure or another mode of a module, is
    traced anew. Values and gradients are those of eager steps but for rounding.

    f must be one graph to ``torch.compile(fullgraph=True)``: no branch on values of tensors, no
    wait for the host. It may not draw random numbers or write to a tensor, and tensors that it
    keeps outside of itself (``self.last = h``) are not those of the solve.

    Staged are the solve and the pull-back of its first derivative by `Implicit` and its
    approximations. Everything else evaluates f as it stands: other adjoints, compact, torch.func,
    forward mode, derivatives of higher order, a solve within a map that is not staged.

    Attributes:
        f: the map.
        how: "compiled", by torch's inductor, on any device that it knows; "captured", replayed as
            a CUDA graph. A program of the latter keeps its step's memory.
    """

    # Not in the object's dictionary: who looks there for the modules of f would search programs.
    __slots__ = ("__dict__", "__weakref__", "_made", "_traced")

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

    def __reduce__(self) -> Any:
        """A copy has f and makes programs of its own."""
        return type(self), (self.f, self.how)

    def ops(self, ops: Any, leaves: Leaves) -> StagedOps | StagedHostOps:
        """Like these operations, but that their loop runs programs."""
        small = sum([leaf.numel() for leaf in leaves]) < SMALL
        together, device = TOGETHER[self.how] if small else 1, leaves[0].device
        within = StagedOps(self, ops.batch_ndim, ops.eps, device, together)
        return within if accelerator(device) else StagedHostOps(within)

    def read(self, problem: Problem, frozen: Frozen, start: Leaves, followed: bool) -> Map | None:
        """f as it is now, as data; None within what runs eagerly, as the capture of a map does.

        Raises:
            InputError: there is autocast around the solve.
            MapError: f is not one graph, or has effects.
        """
        if frozen.autocast:
            raise InputError(
                "expected no autocast around a solve with a staged f, received one; enter "
                "torch.autocast within f and return the dtype of z"
            )
        # Dynamo leaves out no_grad and the rule of an autograd.Function where nothing is followed.
        z = tuple([_own(leaf).requires_grad_(followed) for leaf in start])
        _noted.last, turn = None, eagerly.turn
        try:
            with torch.set_grad_enabled(followed):
                out = self._look(problem.rebuild(z), problem.args)
        except Unsupported as error:
            raise MapError(_GRAPH) from error
        except FailOnRecompileLimitHit as error:
            raise MapError(_KINDS) from error
        if problem.has_aux:
            out = out[0]
        given = _tensors(problem.args)
        graph, inputs, outputs = _noted.last or (_nothing, (*z, *given), ())
        leaves = fpicore.flatten_like(out, problem.z0, lambda x: isinstance(x, Tensor))
        places = {id(x): i for i, x in enumerate((*outputs, *inputs))}
        if not all(id(leaf) in places for leaf in leaves):
            if eagerly.on or eagerly.turn != turn:  # here, or in another thread: it is for all
                return None
            raise MapError(_OFF)
        order = tuple([places[id(leaf)] for leaf in leaves])
        sources, args, fixed = _sorted(inputs, z, given)

        def checked() -> Plan:
            expected = unwritten(frozen)(z)
            if not frozen.plain or capture(frozen, z).written:
                raise MapError(_EFFECTS)
            plan = Plan(graph, sources, order)
            plan.confirm(z, args, fixed, expected)
            return plan

        plan = self.kept((graph, sources, order), checked)
        return Map(plan, args, Fixed(fixed))

    def _look(self, z: Any, args: tuple[Any, ...]) -> Any:
        """f, traced anew if it is not what it was."""
        # The options are one for all threads; restored out of turn, they would stay for good.
        with _LOOKING, _PATCH:
            return self._traced(z, *args)

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
        full = (key, tuple([kind_of(x) for x in inputs]), *places)
        make = _HOWS[self.how]
        return self.kept(full, lambda: make(graph_of(function, inputs), inputs, roles))


_noted: Any = local()


def _note(graph: Any, examples: Any) -> Callable[..., Any]:
    """The backend of dynamo: run the graph of f, and say what it was run with."""
    outputs: Any = None

    def run(*inputs: Any) -> Any:
        nonlocal outputs
        if outputs is None:  # it is asked for what it reads: values are for once
            with torch.no_grad():
                outputs = tuple([x.detach() for x in graph(*inputs)])
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


def _own(leaf: Tensor) -> Tensor:
    """Another tensor; a copy of one of inference mode, which cannot require a gradient."""
    return leaf.clone() if leaf.is_inference() else leaf.detach()


def _tensors(tree: Any) -> Leaves:
    """The tensors in plain containers."""
    found: list[Tensor] = []
    fpicore.map_leaves(tree, lambda x: isinstance(x, Tensor), found.append)
    return tuple(found)


_GRAPH = (
    "expected a staged f to be one graph of tensors, received one that torch.compile breaks (above "
    "is why): no branch on values, no .item(), no numbers that change; or leave f unstaged"
)
_KINDS = (
    f"expected a staged f to be of at most {_MOST} kinds, by shapes, numbers and what it closes "
    "over, received another one; pass numbers that change as tensors, pad to fewer shapes, or "
    "leave f unstaged"
)
_EFFECTS = (
    "expected a staged f to have no effects, received an f that draws random numbers or writes to "
    "a tensor; call eval() on its modules, draw before the solve, or leave f unstaged"
)
_OFF = (
    "expected torch.compile to trace a staged f, received what it has not seen; is it switched off "
    "(TORCH_COMPILE_DISABLE, set_stance, torch.compiler.disable)?"
)
