"""Programs: functions of tensors that are run again and again, and the loop that runs a step.

`Compiled` is made by inductor, `Captured` a CUDA graph. A step returns a flag as well: whether any
system still iterates. On the CPU it is read at once. On an accelerator the host runs ahead of it:
the flag is copied to the host behind the step, and the next step is queued before it is looked at.
Such a step finds that there is nothing left to do and changes nothing.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from fpicore import InputError, Leaves

AHEAD = 1
"""Steps that an accelerator is given beyond the one whose flag is looked at."""


class Accelerator:
    """What is asked of CUDA's streams, events and graphs: all in one place."""

    def __init__(self, device: torch.device) -> None:
        """For tensors of ``device``."""
        self._device = device

    def post(self, flag: Tensor) -> Callable[[], bool]:
        """Copy a flag to the host without waiting; what is returned waits and reads it."""
        place = torch.empty((), dtype=torch.bool, pin_memory=True)
        place.copy_(flag, non_blocking=True)
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._device))

        def read() -> bool:
            event.synchronize()
            return bool(place)

        return read

    def capture(self, function: Callable[[], None]) -> Callable[[], None]:
        """Its kernels as a graph, recorded after it has run on a stream of its own."""
        with torch.cuda.device(self._device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                function()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                function()
        return graph.replay


def accelerator(device: torch.device) -> Any:
    """The seam for a device; None where there is nothing to wait for."""
    return Accelerator(device) if device.type == "cuda" else None


def compiled(graph: Any, examples: Leaves) -> Callable[..., Any]:
    """An FX graph as inductor runs it, without the guards of torch.compile: nothing changes."""
    import torch._inductor

    make: Any = torch._inductor.compile
    if examples[0].device.type == "cpu":
        try:
            return make(graph, list(examples), options={**_OPTIONS, "cpp_wrapper": True})
        except Exception:
            pass  # there are operations that its C++ cannot call; Python can, or says what is wrong
    return make(graph, list(examples), options=_OPTIONS)


_OPTIONS: dict[str, Any] = {
    # What goes in is what came out, or what the key of the program describes.
    "size_asserts": False,
    "alignment_asserts": False,
    # Roots of norms would be taken anew for every entry that a mask chooses.
    "realize_opcount_threshold": 6,
    "max_pointwise_cat_inputs": 64,
}


def run_ahead(step: Callable[[], Tensor], seam: Any) -> None:
    """Take steps until one says that nothing iterates, and AHEAD more where there is a seam."""
    if seam is None:
        while step():
            pass
        return
    posted: deque[Callable[[], bool]] = deque()
    while True:
        posted.append(seam.post(step()))
        if len(posted) > AHEAD and not posted.popleft()():
            return


@dataclass(frozen=True)
class Roles:
    """How many of the inputs of a step are of each kind, in this order."""

    moving: int
    """Given back by the step, one after the other; the flag is the output after them."""
    written: int
    """Written to in place."""
    given: int
    """The same in every step, another in every solve."""
    fixed: int
    """Read where they lie, now and at every later run."""

    @property
    def own(self) -> int:
        """Inputs that a captured program has buffers for."""
        return self.moving + self.written + self.given


class Program(ABC):
    """A function of tensors as a program."""

    @abstractmethod
    def __init__(self, graph: Any, examples: Leaves, roles: Roles) -> None:
        """Of an FX graph, for tensors like the examples."""

    @abstractmethod
    def __call__(self, *inputs: Tensor) -> Leaves:
        """One run; what it gives is the caller's own."""

    @abstractmethod
    def iterate(self, inputs: Leaves) -> Leaves:
        """The moving and the written tensors after the last step; the caller gives them away."""


class Compiled(Program):
    """By inductor."""

    def __init__(self, graph: Any, examples: Leaves, roles: Roles) -> None:
        """Compile."""
        self._roles = roles
        self._run, self._seam = compiled(graph, examples), accelerator(examples[0].device)

    def __call__(self, *inputs: Tensor) -> Leaves:
        """One run."""
        return tuple(self._run(*inputs))

    def iterate(self, inputs: Leaves) -> Leaves:
        """Outputs are the next inputs."""
        run, moving = self._run, self._roles.moving
        now, rest = inputs[:moving], inputs[moving:]

        def step() -> Tensor:
            nonlocal now
            *now, flag = run(*now, *rest)
            return flag

        run_ahead(step, self._seam)
        return (*now, *rest[: self._roles.written])


class Captured(Program):
    """A CUDA graph, on buffers of its own but for what is fixed."""

    def __init__(self, graph: Any, examples: Leaves, roles: Roles) -> None:
        """Capture."""
        seam = accelerator(examples[0].device)
        if seam is None:
            raise InputError(
                'expected a state on a CUDA device with how="captured", received one on '
                f'"{examples[0].device}"; use how="compiled"'
            )
        self._seam, self._roles = seam, roles
        self._lock = Lock()  # two threads would write to the same buffers
        self._inputs = [torch.empty_like(leaf) for leaf in examples[: roles.own]]
        self._fixed = examples[roles.own :]
        self._fill(examples)
        self._outputs: Leaves = ()

        def once() -> None:
            *moved, last = graph(*self._inputs, *self._fixed)
            if roles.moving:  # a step; else a function, whose outputs are for the caller
                for place, leaf in zip(self._inputs, moved, strict=False):
                    place.copy_(leaf)
            self._outputs = (*moved, last)

        try:
            self._replay = seam.capture(once)
        except RuntimeError as error:
            raise InputError(_CAPTURE) from error

    def __call__(self, *inputs: Tensor) -> Leaves:
        """One replay."""
        with self._lock:
            self._fill(inputs)
            self._replay()
            return tuple([leaf.clone() for leaf in self._outputs])

    def iterate(self, inputs: Leaves) -> Leaves:
        """A replay a step."""

        def step() -> Tensor:
            self._replay()
            return self._outputs[-1]

        with self._lock:
            self._fill(inputs)
            run_ahead(step, self._seam)
            kept = self._inputs[: self._roles.moving + self._roles.written]
            return tuple([leaf.clone() for leaf in kept])

    def _fill(self, inputs: Leaves) -> None:
        for place, leaf in zip(self._inputs, inputs, strict=False):
            place.copy_(leaf)


_CAPTURE = (
    "expected a step that a CUDA graph can capture, received one that waits for the host, draws "
    "random numbers or allocates what the graph cannot (above is what CUDA says): no .item(), no "
    'branch on values and no dropout in f; or use how="compiled"'
)
