"""What flow is compared with: none, and two methods of scikit-image, tuned on training pairs."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from .pictures import Pairs
from .train import errors

TV_L1 = [
    {"attachment": a, "tightness": t, "num_warp": 10, "prefilter": p}
    for a, t, p in product((7, 15, 30, 60), (0.15, 0.3), (False, True))
]
ILK = [
    {"radius": r, "num_warp": 20, "gaussian": g, "prefilter": p}
    for r, g, p in product((3, 5, 7, 10), (False, True), (False, True))
]


def tuned(pairs: Pairs, quick: bool) -> dict[str, tuple[dict[str, Any], Callable[..., Any]]]:
    """Of each method the arguments of the least mean error on these pairs, and its function.

    Zack, Pock, Bischof, DAGM 2007 (TV-L1); Le Besnerais, Champagnat, ICIP 2005 (iterative
    Lucas–Kanade).
    """
    from skimage.registration import optical_flow_ilk, optical_flow_tvl1

    found = {}
    for name, method, grid in (
        ("TV-L1", optical_flow_tvl1, TV_L1),
        ("ILK", optical_flow_ilk, ILK),
    ):
        tried = grid[-1:] if quick else grid
        score = [float(np.mean(errors(flows(method, x, pairs), pairs))) for x in tried]
        found[name] = tried[int(np.argmin(score))], method
    return found


def flows(method: Callable[..., Any], options: dict[str, Any], pairs: Pairs) -> np.ndarray:
    """Of each pair, (n, 2, rows, columns)."""
    each = zip(pairs.first, pairs.second, strict=True)
    return np.stack([np.stack(method(a, b, **options))[::-1] for a, b in each])
