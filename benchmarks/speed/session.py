"""The parent: looks for tolerances, and interleaves rounds over the workers, one at a time."""

import math
import multiprocessing
import time
from collections.abc import Callable, Iterator
from typing import Any

from . import reference
from .libraries import LIBRARIES
from .problems import Problem, problem
from .summary import CERTIFIED
from .worker import main

PATIENCE = 120.0
"""Wall seconds after which a worker is given up."""
CASE_SECONDS = 3.0
"""A case that takes long is measured in fewer rounds, two at least."""
LOOSER, TIGHTER = 8, 10
"""Powers of two that are tried around where a tolerance is expected."""


class CaseError(Exception):
    """What a worker answered instead of a result."""


class Remote:
    """A worker, started again if it dies."""

    def __init__(self, name: str, device: str, clock: str) -> None:
        self.name, self._options = name, (name, device, clock)
        self._problem: str | None = None
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._link, other = context.Pipe()
        self._process = context.Process(target=main, args=(other, *self._options), daemon=True)
        self._process.start()
        other.close()

    def __call__(self, method: str, *arguments: Any) -> Any:
        """The worker's answer.

        Raises:
            CaseError: it failed, died or did not answer.
        """
        try:
            self._link.send((method, arguments))
            if not self._answers():
                raise CaseError(f"no answer within {PATIENCE:.0f} s")
            good, answer = self._link.recv()
        except (EOFError, OSError):
            self.restart()
            raise CaseError("the process died") from None
        except CaseError:
            self.restart()
            raise
        if not good:
            raise CaseError(answer)
        return answer

    def _answers(self) -> bool:
        """Whether it does in time, which does not pass while the machine pauses both of us."""
        waited = 0.0
        while waited < PATIENCE:
            start = time.monotonic()
            if self._link.poll(1.0):
                return True
            waited += min(time.monotonic() - start, 2.0)
        return False

    def restart(self) -> None:
        """A fresh process on the same problem; what was prepared is lost."""
        self.close()
        self._start()
        if self._problem is not None:
            self._link.send(("open", (self._problem,)))
            self._link.recv()

    def open(self, problem: str) -> list[Any]:
        """The cases on a problem."""
        self._problem = None
        cases = self("open", problem)
        self._problem = problem
        return cases

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


class Entry:
    """A case on a problem: where it runs, and its line in the record."""

    def __init__(self, remote: Remote, index: int, found: Any, posed: Problem) -> None:
        label, settings, self.tuned, self.tight = found
        self.remote, self.index, self.problem = remote, index, posed
        self.tolerance, self.most, self.rounds = posed.rtol, posed.max_steps, 0
        self.line: dict[str, Any] = {
            "problem": posed.name,
            "framework": LIBRARIES[remote.name].framework,
            "library": remote.name,
            "case": label,
            "settings": settings,
        }

    def ask(self, method: str) -> Any:
        """An answer at the tolerance and budget of the case."""
        return self.remote(method, self.index, self.tolerance, self.most)

    def qualify(self, truth: reference.Reference, rounds: int) -> None:
        """Find the tolerance, check value and gradient, and prepare the clocked runs."""
        try:
            self._certify(truth)
            if self.tuned and self.line["status"] != CERTIFIED:
                return
            if self.tight:
                self.most = max(12, 2 * self.line["evaluations"])
            gradient = self.ask("gradient")
            if gradient is not None:
                self.line["products"] = gradient.count
                self.line["gradient_error"] = truth.gradient_error(gradient.arrays)
            self.line["first_s"], seconds = self.ask("prepare")
            self.line["memory"] = self.ask("memory")
            self.rounds = min(rounds, max(2, int(CASE_SECONDS / seconds)))
        except CaseError as error:
            self.line["status"] = str(error)

    def _certify(self, truth: reference.Reference) -> None:
        found = self._solve(truth)
        if self.tuned:
            size = math.sqrt(sum((leaf**2).sum() for leaf in truth.value))
            start = self.problem.rtol * (size if self.tuned == "absolute" else 1.0)
            found = self._loosest(truth, round(math.log2(start)))
        residual, answer = found
        good = math.isfinite(residual) and residual <= self.problem.rtol
        self.line |= {
            "status": CERTIFIED if good else "not certified",
            "tolerance": self.tolerance,
            "residual": residual,
            "evaluations": answer.count or answer.reported,
            "reported": answer.reported,
        }

    def _loosest(self, truth: reference.Reference, start: int) -> Any:
        """The loosest tolerance on the grid 2ᵏ, from ``start``, that certifies."""

        def at(exponent: int) -> tuple[bool, Any]:
            self.tolerance = 2.0**exponent
            found = self._solve(truth)
            return found[0] <= self.problem.rtol, found

        good, found = at(start)
        step = 1 if good else -1
        exponent = start
        for _ in range(LOOSER if good else TIGHTER):
            met, other = at(exponent + step)
            if met or not good:
                exponent, found = exponent + step, other
            if met != good:
                break
        self.tolerance = 2.0**exponent
        return found

    def _solve(self, truth: reference.Reference) -> Any:
        answer = self.ask("solve")
        return truth.residual(answer.arrays), answer

    def measure(self, number: int) -> None:
        """One round."""
        if number >= self.rounds:
            return
        try:
            seconds = self.remote("time", self.index)
        except CaseError as error:
            self.line["status"], self.rounds = str(error), 0
            return
        for name, value in zip(("forward_ms", "both_ms"), seconds, strict=False):
            self.line.setdefault(name, []).append(1e3 * value)


def measure(
    names: list[str],
    problems: list[str],
    rounds: int,
    device: str,
    clock: str,
    say: Callable[[str], None],
) -> Iterator[tuple[str, list[dict[str, Any]], dict[str, Any]]]:
    """A framework at a time: a problem, its lines of the record, and µs of f by library."""
    truths: dict[str, reference.Reference] = {}
    for framework in dict.fromkeys(LIBRARIES[name].framework for name in names):
        group = [name for name in names if LIBRARIES[name].framework == framework]
        remotes = [Remote(name, device, clock) for name in group]
        for name in problems:
            say(f"{framework}: {name}")
            if name not in truths:
                truths[name] = reference.solve(problem(name))
            yield name, *_problem(remotes, truths[name], rounds)
        for remote in remotes:
            remote.close()


def _problem(
    remotes: list[Remote], truth: reference.Reference, rounds: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    entries: list[Entry] = []
    seconds: dict[str, Any] = {}
    failed: list[dict[str, Any]] = []
    for remote in remotes:
        try:
            cases = remote.open(truth.problem.name)
        except CaseError as error:
            one = Entry(remote, 0, ("every case", "", "", False), truth.problem)
            failed.append(one.line | {"status": str(error)})
            continue
        entries += [Entry(remote, i, case, truth.problem) for i, case in enumerate(cases)]
    for entry in entries:
        entry.qualify(truth, rounds)
    for number in range(rounds):
        for remote in remotes:
            mine = [e for e in entries if e.remote is remote and e.rounds > number]
            try:
                if mine:
                    seconds.setdefault(remote.name, []).append(1e6 * remote("time_f"))
            except CaseError as error:
                for entry in mine:
                    entry.line["status"], entry.rounds = f"f: {error}", 0
                continue
            for entry in mine:
                entry.measure(number)
    return [entry.line for entry in entries] + failed, seconds
