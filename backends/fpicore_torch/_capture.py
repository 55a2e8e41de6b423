"""f as an explicit function of the tensors that it captures.

f reaches tensors through arguments, closures, modules and globals. One evaluation under a
`TorchFunctionMode` shows every tensor that a torch function is given and that f did not make;
a later evaluation is given others in their place.

A tensor is recognised by identity and, where the object is a new one, by its turn: the k-th
tensor that f fetches is the k-th that it fetched before. So parameters that
``torch.func.functional_call`` has put back in the meantime are replaced all the same.

What it cannot see: the arguments of a custom ``torch.autograd.Function`` and of operations
written in C++ that bypass ``__torch_function__``. `check` finds out.
"""

import threading
from collections.abc import Callable, Container, Iterable
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fpicore import DerivativeError, Leaves, MapError

from ._evaluation import version, watch
from ._levels import eagerly, is_wrapped, moves

Map = Callable[[Leaves], Leaves]


class Explicit:
    """f as a function of the tensors that it captures."""

    def __init__(
        self, f: Map, fetched: list[Tensor], places: list[int], written: list[Tensor]
    ) -> None:
        """``fetched`` are all tensors that f fetches, ``places`` those that are given anew.

        The others must keep their values, but for those that f writes to itself and counters.
        """
        self._f, self._fetched, self._places = f, fetched, places
        given, own = set(places), set(map(id, written))
        self._constants = [
            watch(tensor)
            for i, tensor in enumerate(fetched)
            if i not in given and id(tensor) not in own and is_inexact(tensor)
        ]
        self._made: dict[int, Any] = {}
        # An f that was captured within another's evaluation is evaluated in its surroundings.
        self._around = tuple(_replacing.stack)

    def __call__(self, tensors: Leaves, z: Leaves) -> Leaves:
        """f(z), with the tensors in place of the captured ones."""
        if [1 for written in self._constants if written()]:
            raise DerivativeError(_CHANGED)
        given = dict(zip(self._places, tensors, strict=True))
        replacer = _Replacer(z, self._fetched, given)
        # A compiled f would have to be compiled again for the mode.
        with eagerly, ExitStack() as stack:
            for around in self._around:
                if around not in _replacing.stack:
                    stack.enter_context(around)
            stack.enter_context(replacer)
            outputs = self._f(z)
        self._made = replacer.made
        return outputs

    def hides(self, outputs: Leaves, inputs: Leaves) -> bool:
        """Whether the outputs of the latest call depend on more than the inputs.

        Leaves that f made itself do not count.
        """
        return depends_on_others(outputs, {*map(id, inputs), *self._made})


class Captured(NamedTuple):
    """f(z), the captured tensors that matter, and f with them as an argument."""

    outputs: Leaves
    tensors: Leaves
    explicit: Explicit
    written: list[Tensor]
    """Captured tensors that f writes to."""
    fetched: list[Tensor]
    """All tensors that f captures."""
    made: dict[int, Tensor]
    """Those that f made by torch functions, by identity."""


def capture(f: Map, z: Leaves) -> Captured:
    """f(z), the tensors that f captures and that matter to derivatives, and explicit(tensors, z).

    One evaluation of f. The tensors are those that require a gradient, carry a tangent or are
    wrapped by a torch.func transform. ``explicit`` can be called at any later time, with tensors
    like the captured ones, under any transform.
    """
    recorder = _Recorder(z)
    with eagerly, recorder:  # a compiled f would trace the mode
        outputs = f(z)
    fetched = recorder.fetched
    places = [i for i, tensor in enumerate(fetched) if moves(tensor)]
    versions = zip(fetched, recorder.versions, strict=True)
    written = [tensor for tensor, before in versions if version(tensor) != before]
    tensors = tuple([fetched[i] for i in places])
    made = {k: x for k, x in recorder.known.items() if not any(x is y for y in fetched)}
    return Captured(outputs, tensors, Explicit(f, fetched, places, written), written, fetched, made)


def check(
    explicit: Callable[[Leaves, Leaves], Leaves], root: Explicit, tensors: Leaves, z: Leaves
) -> Leaves:
    """f(z); raises unless f depends on nothing but the tensors and z, as far as autograd sees.

    ``explicit`` is ``root``, or made of it by vmap. Costs one evaluation.

    Raises:
        DerivativeError: a tensor that requires a gradient reaches f by a way of its own.
    """
    with torch.enable_grad():
        own = [leaf.detach().clone() for leaf in (*z, *tensors)]
        own = tuple(leaf.requires_grad_() if is_inexact(leaf) else leaf for leaf in own)
        outputs = explicit(own[len(z) :], own[: len(z)])
    if root.hides(outputs, own):
        raise DerivativeError(
            "expected f to depend on the tensors that it captured when it was solved, by way of "
            "torch functions; received an f that depends on another one, or hands one to a custom "
            "autograd.Function or to C++ code, where it cannot be replaced. Keep what f closes "
            "over, or take higher derivatives by plain autograd with adjoint=Implicit(order=2) or "
            "higher, which replaces nothing"
        )
    return tuple([leaf.detach() for leaf in outputs])


class _Recorder(TorchFunctionMode):
    """Notes the tensors that torch functions are given and that f did not make."""

    def __init__(self, z: Leaves) -> None:
        super().__init__()
        self.known = {id(leaf): leaf for leaf in z}  # kept, lest an identity be used again
        self.fetched: list[Tensor] = []
        self.versions: list[int | None] = []

    def look(self, values: Iterable[Any]) -> None:
        for value in values:
            if isinstance(value, Tensor):
                if id(value) not in self.known:
                    self.known[id(value)] = value
                    self.fetched.append(value)
                    self.versions.append(version(value))
            elif isinstance(value, (tuple, list)):
                self.look(value)

    def made(self, value: Any) -> None:
        if isinstance(value, Tensor):
            self.known[id(value)] = value
        elif isinstance(value, (tuple, list)):
            for part in value:
                self.made(part)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.look(args)
        if kwargs:
            self.look(kwargs.values())
            out = func(*args, **kwargs)
        else:
            out = func(*args)
        self.made(out)
        return out


class _Stack(threading.local):
    """The replacements under way, outermost first."""

    def __init__(self) -> None:
        self.stack: list[_Replacer] = []


_replacing = _Stack()


class _Replacer(TorchFunctionMode):
    """Gives torch functions other tensors than those that f captures."""

    def __enter__(self) -> Any:
        for around in _replacing.stack:  # which shall leave alone what this one puts in
            around.keep((*self.known.values(), *self.given.values()))
        _replacing.stack.append(self)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        _replacing.stack.pop()

    def __init__(self, z: Leaves, fetched: list[Tensor], given: dict[int, Tensor]) -> None:
        super().__init__()
        self.known: dict[int, Any] = {id(leaf): leaf for leaf in z}
        self.made: dict[int, Any] = {}
        self.turns = {id(tensor): turn for turn, tensor in enumerate(fetched)}
        self.fetched, self.given, self.turn = fetched, given, 0
        self.new: dict[int, Tensor] = {}

    def replace(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            key = id(value)
            if key not in self.known and key not in self.made:
                self.known[key] = value
                self.meet(key, value)
            return self.new.get(key, value)
        if isinstance(value, (tuple, list)):
            parts = [self.replace(part) for part in value]
            named: Any = type(value)
            return named(*parts) if hasattr(value, "_fields") else named(parts)
        return value

    def meet(self, key: int, value: Tensor) -> None:
        """Decide what a tensor that f fetches for the first time stands for."""
        turn = self.turns.get(key)
        if turn is None:
            if not (value.is_leaf and value.requires_grad) or is_wrapped(value):
                return  # made within f, by something that bypasses torch functions
            turn = self.next_like(value)
        self.turn = max(self.turn, turn + 1)
        if turn in self.given:
            self.new[key] = self.given[turn]

    def next_like(self, value: Tensor) -> int:
        """The turn of the tensor in whose place f fetches this one."""
        for turn in range(self.turn, len(self.fetched)):
            if turn in self.given and _alike(value, self.fetched[turn]):
                return turn
        raise DerivativeError(_CHANGED)

    def keep(self, value: Any) -> None:
        if isinstance(value, Tensor):
            if id(value) not in self.known:
                self.made[id(value)] = value
        elif isinstance(value, (tuple, list)):
            for part in value:
                self.keep(part)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args = [self.replace(value) for value in args]
        kwargs = {name: self.replace(value) for name, value in (kwargs or {}).items()}
        out = func(*args, **kwargs)
        self.keep(out)
        return out


_CHANGED = (
    "expected f to use the tensors that it used when the fixed point was solved, received an f "
    "that uses another one, or one that was written to since; keep what f closes over until the "
    "backward pass, pass it in args, or use adjoint=Implicit(order=2), or higher"
)


def depends_on_others(outputs: Iterable[Tensor], own: Container[int]) -> bool:
    """Whether the graph of the outputs ends in a tensor whose id is not among ``own``.

    Raises:
        MapError: it goes through a reentrant checkpoint, which hides what it ends in.
    """
    stack, seen, others = [], set(), False
    for leaf in outputs:
        if leaf.grad_fn is not None:
            stack.append(leaf.grad_fn)
        elif leaf.requires_grad and id(leaf) not in own:
            others = True
    while stack:
        node = stack.pop()
        if node.name() == "CheckpointFunctionBackward":
            raise MapError(_REENTRANT)
        variable = getattr(node, "variable", None)
        others = others or (variable is not None and id(variable) not in own)
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                stack.append(following)
    return others


_REENTRANT = (
    "expected f to checkpoint with use_reentrant=False, received use_reentrant=True, which hides "
    "the parameters within it from the gradient; pass use_reentrant=False"
)


def is_inexact(tensor: Tensor) -> bool:
    """Of a floating-point or complex dtype."""
    return tensor.is_floating_point() or tensor.is_complex()


def alias(tensor: Tensor) -> Tensor:
    """The same under another identity; autograd follows no view of an inference tensor."""
    return tensor.clone() if tensor.is_inference() else tensor.view_as(tensor)


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device
