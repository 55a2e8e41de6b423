"""AdamW with a moving average of its iterates, on NumPy arrays: the same in every framework."""

import numpy as np

from .frameworks import Arrays


class AdamW:
    """Adam (Kingma, Ba, arXiv 1412.6980) with decoupled weight decay (arXiv 1711.05101).

    ``average`` holds the exponential moving average of the parameters, which is what is evaluated
    (Polyak averaging): a_n = k a_{n−1} + (1 − k) p_n with k = min(decay, (n + 1) / (n + 10)).
    """

    def __init__(
        self, parameters: Arrays, rate: float, weight_decay: float, decay: float = 0.999
    ) -> None:
        """Start from a copy of the parameters; names that end in "bias" are not decayed."""
        self.parameters = {name: x.copy() for name, x in parameters.items()}
        self.average = {name: x.copy() for name, x in parameters.items()}
        self._first = {name: np.zeros_like(x) for name, x in parameters.items()}
        self._second = {name: np.zeros_like(x) for name, x in parameters.items()}
        self.rate, self._weight_decay, self._decay = rate, weight_decay, decay
        self._steps = 0

    def update(self, gradients: Arrays) -> None:
        """One step, in place."""
        self._steps += 1
        n = self._steps
        keep = min(self._decay, (n + 1) / (n + 10))
        scale = self.rate / (1.0 - 0.9**n)
        root = (1.0 - 0.999**n) ** -0.5
        for name, x in self.parameters.items():
            g, first, second = gradients[name], self._first[name], self._second[name]
            first += 0.1 * (g - first)
            second += 0.001 * (g * g - second)
            if not name.endswith("bias"):
                x *= 1.0 - self.rate * self._weight_decay
            x -= scale * first / (root * np.sqrt(second) + 1e-8)
            average = self.average[name]
            average += (1.0 - keep) * (x - average)


def cosine(rate: float, share: float) -> float:
    """The rate after that share of the training: half a cosine from all of it down to 2 %."""
    return rate * (0.02 + 0.49 * (1.0 + float(np.cos(np.pi * min(share, 1.0)))))


def clipped(gradients: Arrays, largest: float) -> Arrays:
    """The gradients, all scaled alike to that norm where they exceed it."""
    norm = float(np.sqrt(sum(float(np.sum(g * g)) for g in gradients.values())))
    scale = np.float32(min(1.0, largest / max(norm, 1e-12)))
    return {name: scale * g for name, g in gradients.items()}
