"""From image files to the uint8 square a model reads, as its own processor does it.

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
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional

from driftscope.data.depth import SIXTEEN_BIT_MODES, WHITE, greatest_value
from driftscope.data.framing import Framing
from driftscope.data.gif_comments import comment_bytes
from driftscope.data.jpeg_scans import num_scans
from driftscope.data.other_kinds import no_image
from driftscope.errors import DataError, one_line
from driftscope.limits import IMAGE_PIXELS

if TYPE_CHECKING:
    from PIL.Image import Image, Resampling

TRANSFORM_VERSION = 2
"""Raised whenever any pixel of any image changes; part of every cache key."""

_LONGEST_WHOLE_RESIZE = 8
"""Of images longer than so many times their short side only the middle is resized."""

_FILTERS_OF_TENSORS = ("bicubic", "bilinear")
"""Those that torch has with antialiasing."""
_SUPPORT_OF_BICUBIC, _SUPPORT_OF_LANCZOS = 2, 3

_NO_PICTURES = frozenset({"EPS", "PDF", "WMF", "MPEG", "BUFR", "GRIB", "HDF5", "IPTC", "PALM"})
"""What Pillow lists but does not decode to a picture by itself."""
_NO_DEFINED_WHITE = frozenset({"I", "F"})
_DARKEST_COLOURS = 16
"""Of 8 bits: what 12 bits fill of 16."""
_WITH_SCANS = ("JPEG", "MPO")
_MOST_SCANS = 100
"""Ten times what encoders make; so many of an image of the most pixels take some seconds."""
_MOST_COMMENT_BYTES = 1_000_000
_CHANGING_FILTERS = threading.Lock()


def decode(data: bytes, name: str, white: int = WHITE) -> Image:
    """An encoded image as RGB, upright (EXIF orientation applied), transparent parts on white.

    Args:
        data: the file's bytes, of any format Pillow reads; of several frames the first.
        name: how the user knows the image, for the error sentence.
        white: the value that is white in 16-bit greyscale.

    Raises:
        DataError: it cannot be decoded or would not mean what it shows; the sentence names it.
    """
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise DataError(f"cannot read the image {name}: it is empty (0 bytes)")
    try:
        with _opened(data) as image:
            _refuse_too_large(image.size, name)
            if image.format in _WITH_SCANS:
                _refuse_many_scans(data, image.size, name)
            is_deep = ";16" in str(getattr(image, "tile", ""))
            image.load()
            if is_deep:
                _refuse_dark_colours(image, name)
            return as_rgb(upright(image), name, white)
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"cannot read the image {name}: it is {no_image(data)}") from None
    except Image.DecompressionBombError:
        raise DataError(
            f"cannot read the image {name}: it unpacks to far more pixels than are taken "
            f"({IMAGE_PIXELS.sentence}); crop it or make it smaller"
        ) from None
    except Exception as error:  # what Pillow's decoders raise on broken files has no common base
        raise DataError(f"cannot read the image {name}: {one_line(error)}") from None


def _opened(data: bytes) -> Image:
    from PIL import Image

    if (told := comment_bytes(data)) > _MOST_COMMENT_BYTES:
        raise ValueError(f"it has {told / 1e6:,.1f} MB of comments; save it anew without them")
    with _without_pillows_warnings():
        return Image.open(io.BytesIO(data), formats=_formats())


@cache
def _formats() -> tuple[str, ...]:
    """The formats that Pillow decodes by itself; for EPS it would start another program."""
    from PIL import Image

    Image.init()
    return tuple(sorted(set(Image.OPEN) - _NO_PICTURES))


def greatest_value_of(data: bytes) -> int | None:
    """The greatest value of an encoded image, if it is 16-bit greyscale that can be read."""
    try:
        with _opened(data) as image:
            is_read = (
                image.mode in SIXTEEN_BIT_MODES and math.prod(image.size) <= IMAGE_PIXELS.value
            )
            return greatest_value(image) if is_read else None
    except Exception:  # as `decode`, which says what is wrong when the image is asked for
        return None


def upright(image: Image) -> Image:
    """The image as its EXIF orientation shows it; itself where it says none."""
    from PIL import ImageOps
    from PIL.ExifTags import Base

    with _without_pillows_warnings():
        is_upright = image.getexif().get(Base.Orientation, 1) == 1
        return image if is_upright else ImageOps.exif_transpose(image)


def as_rgb(image: Image, name: str, white: int = WHITE) -> Image:
    """An image as RGB, transparent parts on white, 16 bits scaled to 8.

    Raises:
        DataError: its pixels have no defined white, or are brighter than it; the sentence names it.
    """
    from PIL import Image as PILImage

    if image.mode in _NO_DEFINED_WHITE:
        raise DataError(
            f"cannot read the image {name}: its pixels are 32-bit numbers (mode {image.mode}), "
            "of which none is defined as white; convert it to 8 or 16 bits"
        )
    if (greatest := greatest_value(image)) is not None:
        if greatest > white:
            raise DataError(
                f"cannot read the image {name}: it has 16-bit values up to {greatest:,}, but the "
                f"images of its set that were looked at have none above {white:,}, which is taken "
                "for white; convert the images to 8 bits"
            )
        eighth_bits = np.rint(np.asarray(image).astype(np.float32) / (white / 255)).astype(np.uint8)
        return PILImage.fromarray(eighth_bits).convert("RGB")
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        on_white = PILImage.new("RGBA", image.size, "white")
        return PILImage.alpha_composite(on_white, with_alpha).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _refuse_dark_colours(image: Image, name: str) -> None:
    """Raises DataError where colours of 16 bits use 12: Pillow keeps the upper 8 alone."""
    if image.mode == "RGB" and 0 < int(np.asarray(image).max(initial=0)) < _DARKEST_COLOURS:
        raise DataError(
            f"cannot read the image {name}: its colours have 16 bits, of which 12 or fewer are "
            "used, so it would be read as nearly black; convert it to 8 bits"
        )


def to_model_size(image: Image, size: int | Framing) -> UInt8[Tensor, "3 size size"]:
    """The square that a model reads; of a size CLIP's: short side to it, then the centre square."""
    framing = Framing.of(size)
    width, height = framing.resized(*image.size)
    if not framing.squashes and max(image.size) > _LONGEST_WHOLE_RESIZE * min(image.size):
        return _as_tensor(_middle_resized(image, framing, (width, height)))
    if (width, height) != image.size:
        image = image.resize((width, height), _filter(framing))
    left, top = (width - framing.size) // 2, (height - framing.size) // 2
    return _as_tensor(image.crop((left, top, left + framing.size, top + framing.size)))


def _filter(framing: Framing) -> Resampling:
    from PIL.Image import Resampling

    return Resampling[framing.resample.upper()]


def _as_tensor(square: Image) -> UInt8[Tensor, "3 size size"]:
    # numpy's copy, not torch's: it starts no threads of its own beside those that decode
    return torch.from_numpy(np.array(square).transpose(2, 0, 1).copy())


def resized(
    pixels: UInt8[Tensor, "image 3 height width"], size: int | Framing
) -> UInt8[Tensor, "image 3 size size"]:
    """Square images that are tensors already, at another size (antialiased)."""
    framing = Framing.of(size)
    if framing.resample not in _FILTERS_OF_TENSORS:
        return torch.stack([to_model_size(picture(one), framing) for one in pixels])
    side, start = framing.size + framing.margin, framing.margin // 2
    if pixels.shape[-1] != side:
        mode = framing.resample
        pixels = functional.interpolate(pixels, (side, side), mode=mode, antialias=True)
    if not framing.margin:
        return pixels
    return pixels[..., start : start + framing.size, start : start + framing.size]


def picture(pixels: UInt8[Tensor, "3 height width"]) -> Image:
    """A tensor as a Pillow image."""
    from PIL import Image as PILImage

    return PILImage.fromarray(pixels.permute(1, 2, 0).numpy())


@contextmanager
def _without_pillows_warnings() -> Iterator[None]:
    """Keeps to ourselves what Pillow says of a file: what matters is refused by name.

    Python's filters are global, so one thread at a time changes them; what is costly (decoding)
    stays outside.
    """
    with _CHANGING_FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _middle_resized(image: Image, framing: Framing, whole: tuple[int, int]) -> Image:
    """Of a very long image the centre square of what resizing it to `whole` would give.

    A 10,000×1 strip would pass through size × 10,000·size pixels on the way to the square.
    """
    size = framing.size
    starts = [
        (long - size) // 2 * side / long for side, long in zip(image.size, whole, strict=True)
    ]
    ends = [start + size * side / long for start, side, long in
            zip(starts, image.size, whole, strict=True)]  # fmt: skip
    # all that the weights reach, and no more: Pillow turns its passes round on long images
    support = _SUPPORT_OF_LANCZOS if framing.resample == "lanczos" else _SUPPORT_OF_BICUBIC
    reach = support * math.ceil(max(1.0, min(image.size) / min(whole))) + 1
    left, top = (max(0, math.floor(start) - reach) for start in starts)
    right, bottom = (
        min(side, math.ceil(end) + reach) for end, side in zip(ends, image.size, strict=True)
    )
    box = (starts[0] - left, starts[1] - top, ends[0] - left, ends[1] - top)
    part = image.crop((left, top, right, bottom))
    return part.resize((size, size), _filter(framing), box=box)


def _refuse_many_scans(data: bytes, size: tuple[int, int], name: str) -> None:
    """Raises DataError where a JPEG of few bytes takes minutes: each scan is a pass over it."""
    scans, passed_over = num_scans(data), math.prod(size)
    if scans * passed_over > _MOST_SCANS * IMAGE_PIXELS.value:
        raise DataError(
            f"cannot read the image {name}: it has {scans:,} scans of {passed_over:,} pixels, and "
            f"no more than {_MOST_SCANS} of the most pixels are read ({IMAGE_PIXELS.sentence}); "
            "save it anew"
        )


def _refuse_too_large(size: tuple[int, int], name: str) -> None:
    width, height = size
    if width * height > IMAGE_PIXELS.value:
        raise DataError(
            f"cannot read the image {name}: {width:,}×{height:,} pixels are too many "
            f"({IMAGE_PIXELS.sentence}); crop it or make it smaller"
        )
