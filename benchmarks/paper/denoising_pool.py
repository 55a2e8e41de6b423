"""What models are trained on: patches of noisy windows, whose guesses are made once."""

from collections.abc import Iterator
from functools import lru_cache, partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from .denoising_guide import Guess, guess
from .pictures import TRAINING, UNIT, load, patches

AT_ONCE = 8


class Pool(NamedTuple):
    """Windows (n, side, side), clean and noisy, their σ in units, and their guess."""

    clean: np.ndarray
    noisy: np.ndarray
    sigma: np.ndarray
    guess: Guess


@lru_cache(maxsize=1)
def pool(number: int, side: int, sigmas: tuple[float, ...], seed: int) -> Pool:
    """Windows of the training pictures; a guess needs more of a picture than a patch shows."""
    parts = []
    stream = patches(load(TRAINING), side, AT_ONCE, sigmas, seed)
    for clean, noisy, levels in islice(stream, -(-number // AT_ONCE)):
        sigma = levels / np.float32(UNIT)
        parts.append((clean, noisy, sigma, *guess(noisy, sigma)))
    clean, noisy, sigma, *rest = (np.concatenate(x)[:number] for x in zip(*parts, strict=True))
    return Pool(clean, noisy, sigma, Guess(*rest))


def cuts(
    windows: Pool, size: int, batch: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, Guess]]:
    """Clean and noisy patches (batch, size, size), their σ and their guess, without an end."""
    random = np.random.default_rng(seed)
    number, side = windows.clean.shape[:2]
    while True:
        which = random.integers(number, size=batch)
        corners = random.integers(side - size + 1, size=(batch, 2))
        moves = random.integers((4, 2), size=(batch, 2))
        taken = partial(_taken, size, list(zip(which, corners, moves, strict=True)))
        guesses = Guess(*map(taken, windows.guess))
        yield taken(windows.clean), taken(windows.noisy), windows.sigma[which], guesses


def _taken(size: int, places: list[Any], x: np.ndarray) -> np.ndarray:
    """Patches of windows x, each (which, corner, (quarter turns, whether mirrored))."""
    found = []
    for which, (top, left), (turns, mirrored) in places:
        patch = np.rot90(x[which, top : top + size, left : left + size], turns)
        found.append(patch[:, ::-1] if mirrored else patch)
    return np.stack(found)
