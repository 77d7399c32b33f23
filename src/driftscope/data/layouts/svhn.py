"""SVHN's cropped digits: `train_32x32.mat`, `test_32x32.mat`, `extra_32x32.mat`."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np

from driftscope.data.address import Address
from driftscope.data.layouts.arrays import Arrays, files_by_split, folder_with, found_arrays
from driftscope.data.layouts.found import Found
from driftscope.data.layouts.mat_files import read_mat
from driftscope.data.layouts.tree import Folder
from driftscope.data.names import benchmark_words

_IMAGES = re.compile(r"(?P<split>train|test|extra)_32x32\.mat")
_DIGITS = tuple(map(str, range(10)))


def recognise(tree: Folder, address: Address) -> Found | None:
    """A folder of them."""
    folder = folder_with(tree, _IMAGES, "SVHN's files")
    if folder is None:
        return None
    files = files_by_split(folder, _IMAGES)
    splits = {name: partial(_split, file) for name, file in files.items()}
    return found_arrays(address, "set of SVHN's files", splits, folder)


def _split(file: Path) -> Arrays:
    """`X` is [row, column, band, image], `y` the digit, of which 10 is 0."""
    held = read_mat(file)
    pixels = np.moveaxis(np.asarray(held["X"]), -1, 0)
    numbers = np.atleast_1d(held["y"]).astype(np.int64)
    return Arrays(
        pixels, np.where(numbers == 10, 0, numbers), _DIGITS, benchmark_words("svhn", _DIGITS)
    )
