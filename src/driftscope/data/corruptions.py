"""Seven corruptions of images, those that EuroSAT's hub entry ships as splits.

After Hendrycks & Dietterich 2019 (arXiv 1903.12261), written anew for uint8 tensors of any
size: strengths are theirs for ImageNet, lengths are scaled to the image. Not pixel-equal to
theirs. The noise of an image depends on its position in the set, the corruption and the
severity, not on the batch.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Generator, Tensor
from torch.nn import functional

from driftscope.data.rows import PixelSource
from driftscope.errors import DataError, did_you_mean

_REFERENCE_SIZE = 224
"""Lengths in pixels below are meant for images of this size."""

Image = Float[Tensor, "3 size size"]
"""One image, from 0 to 1."""


def corrupt(
    pixels: PixelSource, name: str, severity: int = 3
) -> UInt8[Tensor, "image 3 size size"]:
    """The images under one corruption.

    Args:
        pixels: square images.
        name: one of `CORRUPTIONS`.
        severity: 1 (mild) to 5 (hard to recognise).

    Raises:
        DataError: no such corruption or severity.
    """
    if name not in CORRUPTIONS:
        raise DataError(f"unknown corruption {name!r}: {did_you_mean(name, CORRUPTIONS)}")
    if severity not in range(1, 6):
        raise DataError(f"the severity of a corruption is 1 to 5, not {severity}")
    made = torch.empty(pixels.shape, dtype=torch.uint8)
    for position, image in enumerate(pixels):
        generator = Generator().manual_seed(_seed(name, severity, position))
        changed = CORRUPTIONS[name](image.float() / 255, severity - 1, generator)
        made[position] = (changed.clamp(0, 1) * 255).round().to(torch.uint8)
    return made


def contrast(image: Image, level: int, _generator: Generator) -> Image:
    """Draws every colour to the channel's mean."""
    kept = (0.4, 0.3, 0.2, 0.1, 0.05)[level]
    mean = image.mean(dim=(1, 2), keepdim=True)
    return (image - mean) * kept + mean


def gaussian_noise(image: Image, level: int, generator: Generator) -> Image:
    """Adds independent normal noise to every value."""
    deviation = (0.08, 0.12, 0.18, 0.26, 0.38)[level]
    return image + deviation * torch.randn(image.shape, generator=generator)


def impulse_noise(image: Image, level: int, generator: Generator) -> Image:
    """Sets a share of the values to black or white."""
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[level]
    draw = torch.rand(image.shape, generator=generator)
    white = torch.rand(image.shape, generator=generator) < 0.5
    return torch.where(draw < share, white.float(), image)


def jpeg_compression(image: Image, level: int, _generator: Generator) -> Image:
    """Passes through a JPEG of low quality."""
    from PIL import Image as PILImage

    quality = (25, 18, 15, 10, 7)[level]
    array = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    file = io.BytesIO()
    PILImage.fromarray(array).save(file, "JPEG", quality=quality)
    decoded = np.array(PILImage.open(file))
    return torch.from_numpy(decoded).permute(2, 0, 1).float() / 255


def motion_blur(image: Image, level: int, generator: Generator) -> Image:
    """Smears along a line of random direction, the middle weighing most."""
    radius, deviation = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[level]
    scale = image.shape[-1] / _REFERENCE_SIZE
    reach = max(1, round(radius * scale))
    angle = math.radians(90 * float(torch.rand((), generator=generator)) - 45)
    steps = torch.linspace(-reach, reach, 4 * reach + 1)
    weights = torch.exp(-0.5 * (steps / max(deviation * scale, 0.5)) ** 2)
    kernel = torch.zeros(2 * reach + 1, 2 * reach + 1)
    rows = (steps * math.sin(angle)).round().long() + reach
    columns = (steps * math.cos(angle)).round().long() + reach
    kernel.index_put_((rows, columns), weights, accumulate=True)
    return _filtered(image, kernel / kernel.sum())


def pixelate(image: Image, level: int, _generator: Generator) -> Image:
    """Averages over blocks, which stay visible."""
    size = image.shape[-1]
    small = max(1, int(size * (0.6, 0.5, 0.4, 0.3, 0.25)[level]))
    blocks = functional.interpolate(image[None], (small, small), mode="area")
    return functional.interpolate(blocks, (size, size), mode="nearest")[0]


def spatter(image: Image, level: int, generator: Generator) -> Image:
    """Splashes drops on the lens: pale water (severity 1 to 3), then brown mud."""
    share, opacity, is_mud = (
        (0.06, 0.6, False),
        (0.10, 0.7, False),
        (0.15, 0.8, False),
        (0.12, 0.9, True),
        (0.20, 1.0, True),
    )[level]
    size = image.shape[-1]
    grain = max(1.0, 3 * size / _REFERENCE_SIZE)
    noise = _filtered(torch.randn((1, size, size), generator=generator), _gaussian_kernel(grain))
    edge = noise.flatten().quantile(1 - share)
    depth = ((noise - edge) / (noise.max() - edge).clamp(min=1e-6)).clamp(0, 1)
    covering = opacity * (depth > 0) * (0.5 + 0.5 * depth)
    colour = torch.tensor((0.25, 0.16, 0.08) if is_mud else (0.69, 0.93, 0.93)).view(3, 1, 1)
    return image * (1 - covering) + colour * covering


CORRUPTIONS: dict[str, Callable[[Image, int, Generator], Image]] = {
    "contrast": contrast,
    "gaussian_noise": gaussian_noise,
    "impulse_noise": impulse_noise,
    "jpeg_compression": jpeg_compression,
    "motion_blur": motion_blur,
    "pixelate": pixelate,
    "spatter": spatter,
}


def _filtered(image: Float[Tensor, "channel size size"], kernel: Tensor) -> Tensor:
    """Each channel convolved with an odd kernel; the edge is repeated outwards."""
    pad_rows, pad_columns = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = functional.pad(
        image[:, None], (pad_columns, pad_columns, pad_rows, pad_rows), mode="replicate"
    )
    return functional.conv2d(padded, kernel[None, None])[:, 0]


def _gaussian_kernel(deviation: float) -> Float[Tensor, "side side"]:
    reach = math.ceil(3 * deviation)
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / deviation) ** 2)
    kernel = line[:, None] * line[None, :]
    return kernel / kernel.sum()


def _seed(*parts: object) -> int:
    digest = hashlib.sha256("|".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:7], "big")
