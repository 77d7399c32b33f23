"""How many of an image's 16 bits are used: cameras and scanners store 8, 12 or 14 bits in them.

Nothing in a file says so, and read as 16 bits such images are nearly black. What the images of a
set have in common tells it: a set whose images all stay below 4,096 has 12 bits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

SIXTEEN_BIT_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
WHITE = 65_535
"""The greatest value of 16 bits."""
LOOKED_AT = 32
"""How many images of a set are looked at."""
_USUAL_BITS = (8, 12, 14)


def greatest_value(image: Image) -> int | None:
    """The greatest value of a greyscale image of 16 bits; None for any other image."""
    if image.mode not in SIXTEEN_BIT_MODES:
        return None
    return int(np.asarray(image).max(initial=0))


def white_of(greatest: Iterable[int]) -> int:
    """The value that is white, of the greatest values of a set's images."""
    most = max(greatest, default=0)
    fitting = (2**bits - 1 for bits in _USUAL_BITS if 0 < most < 2**bits)
    return next(fitting, WHITE)
