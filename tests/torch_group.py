"""One process of a group that trains a layer: ``python -m tests.torch_group FILE RANK``.

A process of its own, as PyTorch may wait for ever when a group is taken down in one that goes on.
"""

import os
import sys

import torch
from torch.nn.parallel import DistributedDataParallel

from .torch_layers import check, loaded

SIZE = 2


def main(file: str, rank: int) -> None:
    """Every process sees the same rows, so that the mean of their gradients is known."""
    layer, expected = loaded("Equilibrium", warm_start=True)
    layer.eval()
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{file}", rank=rank, world_size=SIZE
    )
    model = DistributedDataParallel(layer)
    for _ in range(2):
        check(layer, expected, model)
    torch.distributed.barrier()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
    os._exit(0)
