"""Views of images, drawn at random: mirrored and mixed, or shifted."""

from __future__ import annotations

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor
from torch.nn import functional

_MIXED_SHARE = 2 / 3
_SHIFT = 1 / 8


def mirrored(
    pixels: UInt8[Tensor, "image 3 size size"], which: Bool[Tensor, " image"]
) -> UInt8[Tensor, "image 3 size size"]:
    """These images left to right, the others as they are."""
    return torch.where(_along_images(which, pixels), pixels.flip(-1), pixels)


def mixed(
    pixels: UInt8[Tensor, "image 3 size size"], generator: torch.Generator
) -> UInt8[Tensor, "image 3 size size"]:
    """Each image mirrored or not, and two thirds of them mixed with one of these.

    A mixture is the weighted mean of both, of a weight between 0 and 1. No label fits it; ask a
    model for its answer.
    """
    count = len(pixels)
    to_mirror, is_mixed, weight = torch.rand(3, count, generator=generator)
    other = torch.randperm(count, generator=generator).to(pixels.device)
    weight = torch.where(is_mixed < _MIXED_SHARE, weight, 1.0)
    own = _along_images(weight, pixels)
    seen = mirrored(pixels, to_mirror < 0.5).float()
    return (own * seen + (1 - own) * seen[other]).round().to(pixels.dtype)


def shifted(
    pixels: UInt8[Tensor, "image 3 size size"], generator: torch.Generator
) -> UInt8[Tensor, "image 3 size size"]:
    """Each image moved by up to an eighth of its side either way; its border is repeated."""
    size = pixels.shape[-1]
    most = int(_SHIFT * size)
    wide = functional.pad(pixels.float(), [most] * 4, mode="replicate").to(pixels.dtype)
    corners = torch.randint(2 * most + 1, (len(pixels), 2), generator=generator).tolist()
    return torch.stack(
        [one[:, y : y + size, x : x + size] for one, (y, x) in zip(wide, corners, strict=True)]
    )


def _along_images(values: Tensor, pixels: Tensor) -> Tensor:
    return values.to(pixels.device)[:, None, None, None]
