"""From image files to the uint8 square a model reads, as CLIP's own processor does it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional

from driftscope.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image


def read_image(path: Path) -> Image:
    """An image file as RGB, upright (EXIF orientation applied).

    Raises:
        DataError: the file cannot be decoded; the sentence names it.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
            return upright.convert("RGB")
    except UnidentifiedImageError:
        raise DataError(f"cannot read the image {path}: it is not an image") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read the image {path}: {error}") from None


def to_model_size(image: Image, size: int) -> UInt8[Tensor, "3 size size"]:
    """Short side to `size` (bicubic, antialiased), then the centre square."""
    from PIL import Image as PILImage

    width, height = image.size
    scale = size / min(width, height)
    new_width, new_height = max(size, int(width * scale)), max(size, int(height * scale))
    if (new_width, new_height) != (width, height):
        image = image.resize((new_width, new_height), PILImage.Resampling.BICUBIC)
    left, top = (new_width - size) // 2, (new_height - size) // 2
    square = image.crop((left, top, left + size, top + size))
    flat = torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8)
    return flat.view(size, size, 3).permute(2, 0, 1).contiguous()


def resized(
    pixels: UInt8[Tensor, "image 3 height width"], size: int
) -> UInt8[Tensor, "image 3 size size"]:
    """Square images that are tensors already, at another size (bicubic, antialiased)."""
    if pixels.shape[-2:] == (size, size):
        return pixels
    return functional.interpolate(pixels, (size, size), mode="bicubic", antialias=True)
