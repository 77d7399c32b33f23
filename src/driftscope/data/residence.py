"""Where a set of pixels lives while it is trained on."""

from __future__ import annotations

import torch

from driftscope.data.rows import PixelRows

GPU_SHARE = 0.5
"""How much of a GPU's free memory pixels may take; the model and its activations need theirs."""


def resident(pixels: PixelRows, device: torch.device) -> PixelRows:
    """The images on the GPU as a whole if they fit, else where they are.

    Resident, an epoch copies nothing from host to device: batches are gathered on the device.
    Images that stay behind are gathered and copied batch by batch by whoever uses them.
    """
    if device.type != "cuda":
        return pixels
    free, _total = torch.cuda.mem_get_info(device)
    if pixels.nbytes > GPU_SHARE * free:
        return pixels
    try:
        return PixelRows.of(pixels.gathered().to(device))
    except torch.OutOfMemoryError:  # another process took the memory since it was counted
        return pixels
