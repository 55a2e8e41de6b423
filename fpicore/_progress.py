"""A progress bar for long solves: a ``callback`` like any other."""

import math
from types import TracebackType
from typing import Any, Self

from ._errors import InputError
from ._extras import require
from ._watch import Progress


class ProgressBar:
    """Shows a solve while it runs, on stderr: ``fixed_point(..., callback=ProgressBar())``.

    The bar shows how much of the way from the first residual to the tolerance lies behind, in
    digits, of the system that is farthest from it; beside it the step, that residual over its
    tolerance, and how many systems still iterate. It begins with each solve and goes when that has
    ended. ``with ProgressBar() as bar:`` sees to it that it goes where a solve is interrupted.

    Nothing is shown where stderr is no terminal. Built with rich, from the extra ``cli``.

    Args:
        console: a ``rich.console.Console`` to draw on; None is stderr.

    Raises:
        InputError: rich is not installed, or ``console`` is no console.
    """

    def __init__(self, console: Any = None) -> None:
        self._bars: Any = require("rich.progress", "the progress bar", "rich")
        consoles: Any = require("rich.console", "the progress bar", "rich")
        self._console = consoles.Console(stderr=True) if console is None else console
        if not isinstance(self._console, consoles.Console):  # a Progress, where () was forgotten
            raise InputError(
                f"expected console to be a rich.console.Console or None, received "
                f"{type(console).__name__}; as a callback pass ProgressBar(), not ProgressBar"
            )
        self._bar: Any = None
        self._first = 1.0

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, as of a layer that has it for a callback, draws on stderr: a console stays."""
        return type(self), ()

    def __call__(self, progress: Progress) -> None:
        """Draw what is known after an evaluation."""
        if not self._console.is_terminal:
            return
        ratios = _listed(progress.residual), _listed(progress.tolerance)
        active = _listed(progress.active)
        worst = max([_ratio(r, t) for r, t in zip(*ratios, strict=True)])
        if progress.step == 0 or self._bar is None:
            self._bar = self._begin(worst)
        shown = f"step {progress.step}  residual/tolerance {worst:.2g}"
        if len(active) > 1:
            shown += f"  {sum(active)} of {len(active)} systems"
        self._bar.update(self._task, completed=_share(worst, self._first), description=shown)
        if not any(active):
            self.close()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _begin(self, worst: float) -> Any:
        self.close()
        self._first = worst
        bars = self._bars
        columns = bars.BarColumn(), bars.TimeElapsedColumn(), bars.TextColumn("{task.description}")
        bar = bars.Progress(*columns, console=self._console, transient=True)
        self._task = bar.add_task("", total=1.0)
        bar.start()
        return bar


def _listed(numbers: Any) -> list[Any]:
    return numbers.reshape(-1).tolist() if hasattr(numbers, "reshape") else [numbers]


def _ratio(residual: float, tolerance: float) -> float:
    """The residual over its tolerance; infinite where either is not finite, or the latter 0."""
    known = math.isfinite(residual) and math.isfinite(tolerance) and tolerance > 0.0
    return residual / tolerance if known else (0.0 if residual == 0.0 else math.inf)


def _share(ratio: float, first: float) -> float:
    """The share of the digits from ``first`` down to 1 that are gained at ``ratio``."""
    if ratio <= 1.0:
        return 1.0
    if not math.isfinite(ratio) or not math.isfinite(first):
        return 0.0
    return min(max(1.0 - math.log(ratio) / math.log(max(first, ratio)), 0.0), 1.0)
