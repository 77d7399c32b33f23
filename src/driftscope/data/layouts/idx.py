"""MNIST's files, and those of the sets that took its form: `train-images-idx3-ubyte`, …."""

from __future__ import annotations

import gzip
import re
from functools import partial
from pathlib import Path

import numpy as np

from driftscope.data.address import Address
from driftscope.data.layouts.arrays import Arrays, Bytes, files_by_split, folder_with, found_arrays
from driftscope.data.layouts.found import Found
from driftscope.data.layouts.tree import Folder
from driftscope.data.names import benchmark_words
from driftscope.errors import DataError
from driftscope.files import read_bytes
from driftscope.limits import IMAGE_ARRAYS_MB

_IMAGES = re.compile(r"(?P<split>train|t10k|test|val)-images[-.]idx3-ubyte(\.gz)?")
_OF_EMNIST = re.compile(r"emnist-\w+-(train|test)-images-idx3-ubyte(\.gz)?")
_OF_A_SET = re.compile(r"(?i)mnist|kuzushiji")
_SPLITS = {"t10k": "test"}
_MAGIC = 2051, 2049
"""Of images and of labels: bytes in three dimensions and in one."""


def recognise(tree: Folder, address: Address) -> Found | None:
    """A folder of them. What the numbers stand for is told by the name of a folder above.

    Raises:
        DataError: it is EMNIST's, whose images lie on their sides.
    """
    if folder_with(tree, _OF_EMNIST, "EMNIST's files"):
        raise DataError(
            f"{tree.path} holds EMNIST's files, whose images are mirrored and lie on their sides: "
            "turn each (ARRAY.T), and write it to a file in a folder of its class"
        )
    folder = folder_with(tree, _IMAGES, "MNIST's files")
    if folder is None:
        return None
    files = files_by_split(folder, _IMAGES)
    splits = {_SPLITS.get(name, name): partial(_split, file) for name, file in files.items()}
    return found_arrays(address, "set of MNIST's files", splits, folder)


def _split(images: Path) -> Arrays:
    numbers = _read(images.with_name(re.sub(r"images([-.])idx3", r"labels\1idx1", images.name)), 1)
    names = tuple(map(str, range(10 if numbers.max(initial=0) < 10 else 1 + int(numbers.max()))))
    folders = (part for part in reversed(images.resolve().parts[:-1]) if _OF_A_SET.search(part))
    words = benchmark_words(next(folders, ""), names)
    return Arrays(_read(images, 3), numbers, names, words)


def _read(file: Path, num_dimensions: int) -> Bytes:
    """The array of a file, packed by gzip or not.

    Raises:
        OSError, EOFError: it cannot be read.
        ValueError: it is of another form or cut off.
    """
    data = read_bytes(file, IMAGE_ARRAYS_MB)
    if file.suffix == ".gz":
        most = IMAGE_ARRAYS_MB.num_bytes
        with gzip.open(file) as unpacked:
            data = unpacked.read(most + 1)
        if len(data) > most:
            raise ValueError(f"{file.name} unpacks to more; {IMAGE_ARRAYS_MB.sentence}")
    header = np.frombuffer(data[: 4 * (1 + num_dimensions)], ">i4")
    if len(header) <= num_dimensions or header[0] not in _MAGIC:
        raise ValueError(f"{file.name} does not begin as MNIST's files do; fetch it again")
    shape = tuple(map(int, header[1:]))
    pixels = np.frombuffer(data, np.uint8, offset=header.nbytes)
    if header[0] != _MAGIC[0 if num_dimensions == 3 else 1] or pixels.size != np.prod(shape):
        raise ValueError(f"{file.name} holds {pixels.size:,} bytes of {shape}; fetch it again")
    return pixels.reshape(shape)
