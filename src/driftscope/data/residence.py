"""Where a set of pixels lives while it is trained on."""

from __future__ import annotations

import torch
from jaxtyping import UInt8
from torch import Tensor

GPU_SHARE = 0.5
"""How much of a GPU's free memory pixels may take; the model and its activations need theirs."""


def resident(
    pixels: UInt8[Tensor, "image 3 size size"], device: torch.device
) -> UInt8[Tensor, "image 3 size size"]:
    """The pixels on the GPU as a whole if they fit, else where they are.

    Resident, an epoch copies nothing from host to device: batches are gathered on the device.
    Pixels that stay behind are copied batch by batch by whoever uses them.
    """
    if device.type != "cuda":
        return pixels
    free, _total = torch.cuda.mem_get_info(device)
    return pixels.to(device) if pixels.nbytes <= GPU_SHARE * free else pixels
