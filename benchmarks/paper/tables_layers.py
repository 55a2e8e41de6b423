"""Tables of the constrained programs and of the optical flow."""

import statistics
from typing import Any

from .records import results

WAYS = ("forward", "backward")


def constrained() -> str:
    """A row for each framework and problem, and one for each constraint that was learned."""
    lines = [
        "| problem | framework | error of x | error of the gradient | steps, forward / backward | "
        "evaluations, forward / backward |",
        "|---|---|---|---|---|---|",
    ]
    records = results("constrained-*.json")
    for problem in ("box", "equality", "polytope", "simplex"):
        for record in records:
            runs = [run for run in record["exactness"] if run["problem"] == problem]
            worst = {
                key: max(run[key] for run in runs) for key in runs[0] if key != "gradient_errors"
            }
            lines.append(
                f"| {problem} | {record['framework']} | {worst['value_error']:.0e} | "
                f"{worst['gradient_error']:.0e} | {worst['steps_forward']} / "
                f"{worst['steps_backward']} | {worst['evaluations_forward']} / "
                f"{worst['evaluations_backward']} |"
            )
    lines += ["", *_learned(records)]
    return "\n".join(lines)


def _learned(records: list[dict[str, Any]]) -> list[str]:
    shown = (0, 12, 24, 36, 48, 60)
    lines = [
        "| learned | framework | seeds | error of the constraint after "
        + ", ".join(map(str, shown))
        + " epochs | of held-out solutions | not converged, forward / backward | "
        "steps, forward / backward |",
        "|---|---|---|---|---|---|---|",
    ]
    for task in ("bounds", "polygon"):
        for record in records:
            runs = [run for run in record["learned"] if run["task"] == task]
            errors = [max(run["curve"][n]["constraint"] for run in runs) for n in shown]
            parts = [sum(run[f"unconverged_{way}"] for run in runs) for way in WAYS]
            steps = [statistics.mean(run[f"mean_steps_{way}"] for run in runs) for way in WAYS]
            lines.append(
                f"| {task} | {record['framework']} | {len(runs)} | "
                f"{', '.join(f'{error:.1e}' for error in errors)} | "
                f"{max(run['curve'][-1]['solution'] for run in runs):.0e} | "
                f"{parts[0]} / {parts[1]} of {sum(run['systems'] for run in runs)} | "
                f"{steps[0]:.1f} / {steps[1]:.1f} |"
            )
    return lines


def flow() -> str:
    """End-point errors of every method."""
    lines = [
        "| method | framework | held-out warps | test warps | stereo pair | "
        "not converged, forward / backward | steps, forward / backward |",
        "|---|---|---|---|---|---|---|",
    ]
    records = results("flow-*.json")
    for record in records:
        for run in record["runs"]:
            lines.append(
                f"| learned, {run['parameters']} parameters | {record['framework']} | "
                f"{run['best_held_out']:.3f} | {run['warps']:.3f} | {run['stereo']:.3f} | "
                f"{run['unconverged_forward']} / {run['unconverged_backward']} of "
                f"{run['systems']} | {run['mean_steps_forward']:.1f} / "
                f"{run['mean_steps_backward']:.1f} |"
            )
    others = records[0]["others"] if records else {}
    for method, told in others.items():
        options = ", ".join(f"{key} {value}" for key, value in told["options"].items())
        name = f"{method} ({options})" if options else method
        lines.append(f"| {name} | | | {told['warps']:.3f} | {told['stereo']:.3f} | | |")
    return "\n".join(lines)
