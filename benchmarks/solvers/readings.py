"""What a set of outcomes says of libraries: each by its best method, and by its default one."""

import math
from collections.abc import Callable, Mapping, Sequence

from .contest import OWN, Outcome
from .peers import PEERS
from .profiles import FACTORS, share

NEAR = 1.1
"""At most so many times the fewest evaluations counts as few."""
DEFAULTS = {
    'fpicore, `Broyden(8, kind="bad", scaled=True)`': "Broyden(8, bad, scaled)",
    "SciPy, `root`": "scipy hybr",
    "jaxopt, `AndersonAcceleration`": "jaxopt anderson",
    "torchdeq, optimistix: plain iteration": "optimistix iteration",
}
"""What a user gets who chooses no method; torchdeq's is the iteration itself, and optimistix, which
has none, calls it `FixedPointIteration`."""


def library(method: str) -> str:
    """That a method is of."""
    return next((name for name in PEERS if method.startswith(f"{name} ")), "fpicore")


def fewest(outcomes: Sequence[Outcome], entered: Callable[[str], bool]) -> dict[object, float]:
    """Of each solve the fewest evaluations of the methods that are entered; inf if all fail."""
    found: dict[object, float] = {}
    for o in outcomes:
        if entered(o.method):
            key = (o.case, o.start, o.rtol)
            found[key] = min(found.get(key, math.inf), o.evaluations or math.inf)
    return found


def ratios(mine: Mapping[object, float], others: Mapping[object, float]) -> list[float]:
    """Mine over the fewest of all, solve by solve; a solve that nobody finishes counts for none."""
    least = {key: min(mine[key], others.get(key, math.inf)) for key in mine}
    return [mine[key] / least[key] for key in mine if least[key] < math.inf]


def libraries(outcomes: Sequence[Outcome]) -> str:
    """Library against library, in Markdown."""
    lines = [
        "| library | methods | solved by none of them | best | within 1.1× |",
        "|---|---|---|---|---|",
    ]
    methods = dict.fromkeys(o.method for o in outcomes)
    for name in dict.fromkeys(map(library, methods)):
        mine = fewest(outcomes, lambda method, name=name: library(method) == name)
        found = ratios(mine, fewest(outcomes, lambda method, name=name: library(method) != name))
        failed = sum(count == math.inf for count in mine.values())
        count = sum(library(method) == name for method in methods)
        lines.append(
            f"| {name} | {count} | {failed} of {len(mine)} | "
            f"{100 * share(found, 1.0):.0f} % | {100 * share(found, NEAR):.0f} % |"
        )
    return "\n".join(lines)


def alone(outcomes: Sequence[Outcome]) -> str:
    """Every method of ours by itself, against all peers, in Markdown."""
    lines = ["| method, against all peers | best | within 1.1× | profile below a peer's at |"]
    lines.append("|---|---|---|---|")
    entered = dict.fromkeys(o.method for o in outcomes)
    peers = [method for method in entered if library(method) != "fpicore"]
    for name in (method for method in OWN if method in entered):
        mine = fewest(outcomes, lambda method, name=name: method == name)
        others = fewest(outcomes, lambda method: library(method) != "fpicore")
        found = ratios(mine, others)
        rivals = [_against(outcomes, peer, name, peers) for peer in peers]
        under = [f for f in FACTORS if any(share(found, f) < share(r, f) for r in rivals)]
        where = ", ".join(f"{f:g}×" for f in under) or "no factor"
        lines.append(
            f"| {name} | {100 * share(found, 1.0):.0f} % | {100 * share(found, NEAR):.0f} % "
            f"| {where} |"
        )
    return "\n".join(lines)


def _against(outcomes: Sequence[Outcome], peer: str, ours: str, peers: list[str]) -> list[float]:
    """The ratios of a peer where one method of ours competes."""
    mine = fewest(outcomes, lambda method: method == peer)
    return ratios(mine, fewest(outcomes, lambda method: method == ours or method in peers))


def defaults(outcomes: Sequence[Outcome]) -> str:
    """The default methods among themselves, in Markdown."""
    lines = [
        "| default method | failures | best | "
        + " | ".join(f"within {factor:g}×" for factor in FACTORS[1:])
        + " |",
        "|---|" + "---|" * (len(FACTORS) + 1),
    ]
    entered = {o.method for o in outcomes}
    shown = {text: name for text, name in DEFAULTS.items() if name in entered}
    for text, name in shown.items():
        mine = fewest(outcomes, lambda method, name=name: method == name)
        found = ratios(mine, fewest(outcomes, lambda method: method in shown.values()))
        failed = sum(count == math.inf for count in mine.values())
        cells = " | ".join(f"{100 * share(found, factor):.0f} %" for factor in FACTORS)
        lines.append(f"| {text} | {failed} of {len(mine)} | {cells} |")
    return "\n".join(lines)


def readings(outcomes: Sequence[Outcome]) -> str:
    """The three tables, each with a line that says what it counts."""
    parts = [
        "Library against library: the fewest evaluations of any of its methods, over the fewest of "
        "all the others'.",
        libraries(outcomes),
        "Each method of ours by itself: its evaluations over the fewest of it and of all peers'.",
        alone(outcomes),
        "Default methods, among themselves:",
        defaults(outcomes),
    ]
    return "\n\n".join(parts)
