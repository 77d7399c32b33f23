"""From image files to the uint8 square a model reads, as CLIP's own processor does it.

For opaque images the result is CLIPImageProcessor's to the bit (tests/test_pixels.py); of those
longer than eight times their short side to two grey levels. It differs where that one would
mislead: transparent pixels lie on white instead of showing whatever colour the file keeps under
them, 16-bit greyscale is scaled to 8 bits instead of clipped to white, and EXIF orientation is
applied.
"""

from __future__ import annotations

import io
import math
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional

from driftscope.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

TRANSFORM_VERSION = 2
"""Raised whenever any pixel of any image changes; part of every cache key."""

MAX_IMAGE_PIXELS = 80_000_000
"""Larger images are refused: a small file can unpack to more memory than there is."""

_LONGEST_WHOLE_RESIZE = 8
"""Of images longer than so many times their short side only the middle is resized."""

_SIXTEEN_BIT_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
_NO_DEFINED_WHITE = frozenset({"I", "F"})
_CHANGING_FILTERS = threading.Lock()


def decode(data: bytes, name: str) -> Image:
    """An encoded image as RGB, upright (EXIF orientation applied), transparent parts on white.

    Args:
        data: the file's bytes, of any format Pillow reads; of several frames the first.
        name: how the user knows the image, for the error sentence.

    Raises:
        DataError: it cannot be decoded or would not mean what it shows; the sentence names it.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not data:
        raise DataError(f"cannot read the image {name}: it is empty (0 bytes)")
    try:
        with _without_pillows_warnings():
            image: Image.Image = Image.open(io.BytesIO(data))
        with image:
            _refuse_too_large(image.size, name)
            image.load()
            with _without_pillows_warnings():
                ImageOps.exif_transpose(image, in_place=True)
            return as_rgb(image, name)
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"cannot read the image {name}: {_what_it_is(data)}") from None
    except Image.DecompressionBombError:
        raise DataError(
            f"cannot read the image {name}: it unpacks to far more than "
            f"{MAX_IMAGE_PIXELS:,} pixels; crop it or make it smaller"
        ) from None
    except Exception as error:  # what Pillow's decoders raise on broken files has no common base
        raise DataError(f"cannot read the image {name}: {_one_line(error)}") from None


def as_rgb(image: Image, name: str) -> Image:
    """An image as RGB, transparent parts on white, 16 bits scaled to 8.

    Raises:
        DataError: its pixels have no defined white; the sentence names it.
    """
    from PIL import Image as PILImage

    if image.mode in _NO_DEFINED_WHITE:
        raise DataError(
            f"cannot read the image {name}: its pixels are 32-bit numbers (mode {image.mode}), "
            "of which none is defined as white; convert it to 8 or 16 bits"
        )
    if image.mode in _SIXTEEN_BIT_MODES:
        eighth_bits = np.rint(np.asarray(image).astype(np.float32) / 257).astype(np.uint8)
        return PILImage.fromarray(eighth_bits).convert("RGB")
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        on_white = PILImage.new("RGBA", image.size, "white")
        return PILImage.alpha_composite(on_white, with_alpha).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def to_model_size(image: Image, size: int) -> UInt8[Tensor, "3 size size"]:
    """Short side to `size` (bicubic, antialiased), then the centre square."""
    from PIL import Image as PILImage

    width, height = image.size
    new_long = size * max(width, height) // min(width, height)
    new_width, new_height = (size, new_long) if width <= height else (new_long, size)
    if max(width, height) > _LONGEST_WHOLE_RESIZE * min(width, height):
        return _as_tensor(_middle_resized(image, size, (new_width, new_height)))
    if (new_width, new_height) != (width, height):
        image = image.resize((new_width, new_height), PILImage.Resampling.BICUBIC)
    left, top = (new_width - size) // 2, (new_height - size) // 2
    return _as_tensor(image.crop((left, top, left + size, top + size)))


def _as_tensor(square: Image) -> UInt8[Tensor, "3 size size"]:
    # numpy's copy, not torch's: it starts no threads of its own beside those that decode
    return torch.from_numpy(np.array(square).transpose(2, 0, 1).copy())


def resized(
    pixels: UInt8[Tensor, "image 3 height width"], size: int
) -> UInt8[Tensor, "image 3 size size"]:
    """Square images that are tensors already, at another size (bicubic, antialiased)."""
    if pixels.shape[-2:] == (size, size):
        return pixels
    return functional.interpolate(pixels, (size, size), mode="bicubic", antialias=True)


@contextmanager
def _without_pillows_warnings() -> Iterator[None]:
    """Keeps to ourselves what Pillow says of a file: what matters is refused by name.

    Python's filters are global, so one thread at a time changes them; what is costly (decoding)
    stays outside.
    """
    with _CHANGING_FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _middle_resized(image: Image, size: int, whole: tuple[int, int]) -> Image:
    """Of a very long image the centre square of what resizing it to `whole` would give.

    A 10,000×1 strip would pass through size × 10,000·size pixels on the way to the square.
    """
    from PIL import Image as PILImage

    starts = [
        (long - size) // 2 * side / long for side, long in zip(image.size, whole, strict=True)
    ]
    ends = [start + size * side / long for start, side, long in
            zip(starts, image.size, whole, strict=True)]  # fmt: skip
    # all that bicubic weights reach, and no more: Pillow turns its two passes round on long images
    reach = 2 * math.ceil(max(1.0, min(image.size) / size)) + 1
    left, top = (max(0, math.floor(start) - reach) for start in starts)
    right, bottom = (
        min(side, math.ceil(end) + reach) for end, side in zip(ends, image.size, strict=True)
    )
    box = (starts[0] - left, starts[1] - top, ends[0] - left, ends[1] - top)
    part = image.crop((left, top, right, bottom))
    return part.resize((size, size), PILImage.Resampling.BICUBIC, box=box)


_OTHER_KINDS = (
    (b"version https://git-lfs", "a Git LFS pointer and not the image: run `git lfs pull`"),
    (b"<!doctype html", "a web page: its download failed, fetch it again"),
    (b"<html", "a web page: its download failed, fetch it again"),
    (b"<svg", "an SVG drawing: convert it to PNG"),
    (b"<?xml", "XML: if it is an SVG drawing, convert it to PNG"),
    (b"%pdf", "a PDF: convert its pages to PNG"),
    (b"pk\x03\x04", "a zip archive: unpack it"),
    (b"\x1f\x8b", "packed by gzip: unpack it"),
    (b"\x93numpy", "a NumPy array: save it as an image of three 8-bit bands"),
    (b"\x89hdf", "an HDF5 file: save its images as PNG"),
    (b"\xff\x0a", "JPEG XL: convert it to JPEG or PNG"),
    (b"\x00\x00\x00\x0cjxl ", "JPEG XL: convert it to JPEG or PNG"),
)
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis")


def _what_it_is(data: bytes) -> str:
    """What bytes are that Pillow does not know, and what to do."""
    head = data[:512].lstrip().lower()
    for start, what in _OTHER_KINDS:
        if head.startswith(start) or data[:32].lower().startswith(start):
            return f"it is {what}"
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS:
        kind = "an AVIF" if data[8:10] == b"av" else "a HEIC"
        return f"it is {kind} image, which this Pillow does not read: convert it to JPEG or PNG"
    bands = _tiff_bands(data)
    if bands:
        return (
            f"it is a TIFF of {len(bands)} bands of {'/'.join(map(str, sorted(set(bands))))} bits, "
            "of which none is plainly red, green or blue: pick three and save them as an RGB image "
            "of 8 bits a band"
        )
    return "it is not an image"


def _tiff_bands(data: bytes) -> tuple[int, ...]:
    """The bits of each band of a TIFF; () for anything else."""
    from PIL.TiffImagePlugin import BITSPERSAMPLE, SAMPLESPERPIXEL, ImageFileDirectory_v2

    try:
        directory = ImageFileDirectory_v2(data[: 16 if data[2:3] == b"+" else 8])
        file = io.BytesIO(data)
        file.seek(directory.next)
        directory.load(file)
        bits = directory.get(BITSPERSAMPLE, (1,))
        return tuple(bits) * (directory.get(SAMPLESPERPIXEL, 1) if len(bits) == 1 else 1)
    except Exception:  # no TIFF, or a broken one
        return ()


def _refuse_too_large(size: tuple[int, int], name: str) -> None:
    width, height = size
    if width * height > MAX_IMAGE_PIXELS:
        raise DataError(
            f"cannot read the image {name}: {width:,}×{height:,} pixels are more than "
            f"{MAX_IMAGE_PIXELS:,}; crop it or make it smaller"
        )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
