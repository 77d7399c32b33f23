"""Which process of a distributed training this one is."""

from __future__ import annotations

import os

from torch import distributed


def is_main_process() -> bool:
    """Whether this is the only process of the training, or the first of several.

    `torch.distributed` knows once it is initialised. Monitors are often made before, and then the
    environment tells, as launchers set it: `RANK` counts all processes (torchrun, accelerate);
    Lightning numbers a node's processes and the nodes, and under SLURM takes SLURM's number.
    """
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank() == 0
    if rank := os.environ.get("RANK"):
        return rank == "0"
    numbers = (os.environ.get(name) for name in ("LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))
    return all(number in (None, "", "0") for number in numbers)
