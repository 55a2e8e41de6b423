"""The tables of the experiments with pictures, made of their records."""

import statistics
from typing import Any

from .digits_plot import by_model
from .records import results


def denoising() -> str:
    """One row for each method, PSNR and SSIM at each σ."""
    lines: list[str] = []
    for record in results("denoising-*.json"):
        sigmas = [f"{sigma:g}" for sigma in record["options"]["sigmas"]]
        if not lines:
            heads = " | ".join(f"σ = {sigma}" for sigma in sigmas)
            lines = [
                f"| method | framework | {heads} | parameters | training, CPU s | not converged, "
                "forward / backward | steps, forward / backward | not converged in the test |",
                "|---" * (len(sigmas) + 7) + "|",
            ]
        for name, runs in by_model(record).items():
            trained = "parameters" in runs[0]
            cells = [name, record["framework"] if trained else ""]
            cells += [_score(runs, sigma) for sigma in sigmas]
            if trained:
                cells += [str(runs[0]["parameters"]), _mean(runs, "cpu_seconds", 0)]
                cells += [*_solves(runs), _tested(runs)]
            else:
                cells += [""] * 5
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def digits() -> str:
    """One row for each gradient strategy."""
    lines = [
        "| gradient | framework | seeds | epochs | test accuracy, % | CPU s an epoch | products | "
        "peak memory, MB | not converged, forward / backward | steps, forward / backward |",
        "|---" * 10 + "|",
    ]
    for record in results("digits-*.json"):
        for name, runs in by_model(record).items():
            scores = [run["test_accuracy"] for run in runs]
            deviation = f" ± {statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
            cells = [name, record["framework"], str(len(runs)), str(runs[0]["epochs"])]
            cells += [f"{statistics.mean(scores):.1f}{deviation}"]
            cells += [_mean(runs, "cpu_seconds_an_epoch", 2), _mean(runs, "products", 1)]
            cells += [_mean(runs, "peak_megabytes", 1), *_solves(runs)]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _score(runs: list[dict[str, Any]], sigma: str) -> str:
    tests = [run["test"][sigma] for run in runs]
    psnr, ssim = (statistics.mean(test[name] for test in tests) for name in ("psnr", "ssim"))
    return f"{psnr:.2f} / {ssim:.3f}"


def _tested(runs: list[dict[str, Any]]) -> str:
    told = [run["test_solves"] for run in runs if run["test_solves"]]
    if not told:
        return ""
    failed = sum(solves["unconverged_forward"] for solves in told)
    return f"{failed} of {sum(solves['systems'] for solves in told)}"


def _mean(runs: list[dict[str, Any]], name: str, places: int) -> str:
    if name not in runs[0]:
        return ""
    return f"{statistics.mean(run[name] for run in runs):.{places}f}"


def _solves(runs: list[dict[str, Any]]) -> list[str]:
    """Failures of all runs and mean steps; empty where nothing was solved, or not backward."""
    if "systems" not in runs[0]:
        return ["", ""]
    total, ahead, behind = (
        sum(run[name] for run in runs)
        for name in ("systems", "unconverged_forward", "unconverged_backward")
    )
    steps = [statistics.mean(run[f"mean_steps_{way}"] for run in runs) for way in WAYS]
    told = steps[1] > 0
    back = f" / {behind}" if told else ""
    return [
        f"{ahead}{back} of {total}",
        f"{steps[0]:.1f}" + (f" / {steps[1]:.1f}" if told else ""),
    ]


WAYS = ("forward", "backward")
