"""STL-10's files: `train_X.bin`, `train_y.bin`, `test_X.bin`, …, `class_names.txt`."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np

from driftscope.data.address import Address
from driftscope.data.layouts.arrays import Arrays, files_by_split, folder_with, found_arrays
from driftscope.data.layouts.found import Found
from driftscope.data.layouts.tree import Folder
from driftscope.files import read_bytes, read_text
from driftscope.limits import LIST_MB

_IMAGES = re.compile(r"(?P<split>train|test|unlabeled)_X\.bin")
_SIZE = 96
_CLASSES = (
    "airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"
)  # fmt: skip


def recognise(tree: Folder, address: Address) -> Found | None:
    """A folder of them."""
    folder = folder_with(tree, _IMAGES, "STL-10's files")
    if folder is None:
        return None
    files = files_by_split(folder, _IMAGES)
    splits = {name: partial(_split, file) for name, file in files.items()}
    return found_arrays(address, "set of STL-10's files", splits, folder)


def _split(images: Path) -> Arrays:
    """Images are three bands, each column by column; classes are numbered from 1."""
    stored = np.memmap(images, np.uint8, "r")
    if stored.size % (3 * _SIZE * _SIZE):
        raise ValueError(f"{images.name} is cut off; fetch it again")
    pixels = stored.reshape(-1, 3, _SIZE, _SIZE).transpose(0, 3, 2, 1)
    labels = images.with_name(images.name.replace("_X", "_y"))
    if images.name.startswith("unlabeled"):
        return Arrays(pixels, None)
    numbers = np.frombuffer(read_bytes(labels, LIST_MB), np.uint8).astype(np.int64) - 1
    named = images.with_name("class_names.txt")
    names = tuple(read_text(named, LIST_MB).split()) if named.is_file() else _CLASSES
    return Arrays(pixels, numbers, names)
