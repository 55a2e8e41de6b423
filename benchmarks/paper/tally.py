"""What became of all the solves of a training."""

from typing import Any

import numpy as np


class Tally:
    """Systems that did not converge, forward and backward, and the steps they took."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.solved = self.pulled = 0
        self.unsolved = self.unpulled = 0
        self.steps = self.adjoint_steps = 0.0

    def forward(self, figures: dict[str, Any]) -> None:
        """Count a batch."""
        if figures:
            codes = np.asarray(figures["codes"])
            self.solved += codes.size
            self.unsolved += int(np.count_nonzero(codes))
            self.steps += float(np.sum(np.asarray(figures["steps"])))

    def backward(self, results: Any, stats: Any) -> None:
        """Count a batch's adjoint solve."""
        codes = np.asarray(results.codes)
        self.pulled += codes.size
        self.unpulled += int(np.count_nonzero(codes))
        self.adjoint_steps += float(np.sum(np.asarray(stats.steps)))

    def figures(self) -> dict[str, float]:
        """For the record."""
        if not self.solved:
            return {}
        return {
            "systems": self.solved,
            "unconverged_forward": self.unsolved,
            "unconverged_backward": self.unpulled,
            "mean_steps_forward": round(self.steps / self.solved, 2),
            "mean_steps_backward": round(self.adjoint_steps / max(self.pulled, 1), 2),
        }
