"""A stand-in for CUDA's streams and graphs, on the CPU: flags arrive late, graphs are replayed."""

from collections.abc import Callable
from typing import Any


class Stand:
    """What `fpicore_torch._programs.Accelerator` does, and what has been asked of it."""

    def __init__(self) -> None:
        self.posted = self.read = self.captured = self.replayed = 0
        self.behind: list[int] = []
        """Flags posted but not read, at each reading."""

    def post(self, flag: Any) -> Callable[[], bool]:
        """A copy, lest a later step write to it."""
        value = flag.clone()
        self.posted += 1

        def read() -> bool:
            self.behind.append(self.posted - self.read)
            self.read += 1
            return bool(value.numpy())  # by no operation of torch's, which a test may forbid

        return read

    def capture(self, function: Callable[[], None]) -> Callable[[], None]:
        """It runs once before, as CUDA's warm-up does; a replay runs it on the same buffers."""
        self.captured += 1
        function()

        def replay() -> None:
            self.replayed += 1
            function()

        return replay
