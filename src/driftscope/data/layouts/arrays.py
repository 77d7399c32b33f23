"""Files that hold many images as one array of bytes: MNIST's, CIFAR's, SVHN's, STL-10's, NumPy's.

Each form is a file of its own, which says where the arrays of every split lie and how they are
read; here they become an image set.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from driftscope.data.address import Address
from driftscope.data.encoded import EncodedSet, printable
from driftscope.data.layouts.found import Found
from driftscope.data.layouts.tree import Folder
from driftscope.data.other_kinds import FROM_ARRAYS
from driftscope.errors import DataError, one_line

Bytes = NDArray[np.uint8]
"""Pixels [image, row, column] or [image, row, column, 3]."""


@dataclass(frozen=True, eq=False)
class ArrayImages:
    """The images of an array, as files that hold the same values."""

    pixels: Bytes
    place: str

    def __len__(self) -> int:
        """How many images."""
        return len(self.pixels)

    def name_of(self, index: int) -> str:
        """Its number, from 1, and the file."""
        return f"{index + 1} of {self.place}"

    def read(self, indices: Sequence[int]) -> Iterator[bytes | DataError]:
        """Each as the plainest file that Pillow reads (PPM, or PGM where it is grey)."""
        height, width = self.pixels.shape[1:3]
        kind = "P6" if self.pixels.ndim == 4 else "P5"
        header = f"{kind} {width} {height} 255\n".encode()
        for index in indices:
            yield header + np.ascontiguousarray(self.pixels[index]).tobytes()


@dataclass(frozen=True, eq=False)
class Arrays:
    """What files say of a split: pixels, a class number an image, and the classes in their order.

    `labels` is None where they say none. `words` are those of classes whose names are numbers.
    """

    pixels: Bytes
    labels: NDArray[Any] | None
    class_names: Sequence[str] = ()
    words: Mapping[str, str] = field(default_factory=dict)


def folder_with(tree: Folder, needed: re.Pattern[str], what: str) -> Folder | None:
    """The folder below a tree without images that holds files of such a name; None for none.

    Raises:
        DataError: there are several.
    """
    if tree.num_images:
        return None
    found = [one for one in tree.below() if any(map(needed.fullmatch, one.others))]
    if len(found) > 1:
        raise DataError(
            f"{printable(tree.path)} holds {what} in several folders ({printable(found[0].path)}, "
            f"{printable(found[1].path)}); give one of them"
        )
    return found[0] if found else None


def files_by_split(folder: Folder, name: re.Pattern[str]) -> dict[str, Path]:
    """The files of such a name, by the split that it says; of two the one that is unpacked."""
    return {
        match["split"]: Path(folder.path, match[0])
        for match in filter(None, map(name.fullmatch, sorted(folder.others, reverse=True)))
    }


def found_arrays(
    address: Address,
    layout: str,
    splits: Mapping[str, Callable[[], Arrays]],
    folder: Folder,
    options: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
) -> Found:
    """A set of arrays; those of a split are read when it is opened."""

    @cache
    def held(name: str) -> Arrays:
        return splits[name]()

    def opened(_: Found, name: str) -> EncodedSet:
        place = f"{folder.path} ({name})"
        try:
            arrays = held(name)
        except (OSError, ValueError, KeyError, TypeError, EOFError, NotImplementedError) as error:
            raise DataError(f"cannot read the arrays of {place}: {one_line(error)}") from None
        _check(arrays, place)
        images = ArrayImages(arrays.pixels, place)
        if arrays.labels is None:
            return EncodedSet(
                address.place, name, images, unlabeled_because="this split has no labels"
            )
        labels = torch.from_numpy(arrays.labels.astype(np.int64))
        class_names = tuple(arrays.class_names)
        return EncodedSet(
            address.place, name, images, class_names, labels, words=dict(arrays.words)
        )

    return Found(
        address, layout, splits, opened, options, passed_over=notes, folder=Path(folder.path)
    )


def _check(arrays: Arrays, place: str) -> None:
    """Raises DataError where the arrays are no images, or the labels are not theirs."""
    shape, kind = arrays.pixels.shape, arrays.pixels.dtype
    if kind != np.uint8 or len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] != 3):
        raise DataError(
            f"the arrays of {place} are {kind} {list(shape)}, and images are uint8 [image, row, "
            f"column] or [image, row, column, 3]; {FROM_ARRAYS}"
        )
    if arrays.labels is None:
        return
    if arrays.labels.shape != shape[:1]:
        raise DataError(
            f"the arrays of {place} hold {shape[0]:,} images and labels of the shape "
            f"{list(arrays.labels.shape)}; each image has one class"
        )
    outside = (arrays.labels < 0) | (arrays.labels >= len(arrays.class_names))
    if outside.any():
        raise DataError(
            f"the arrays of {place} have {int(outside.sum()):,} labels outside their "
            f"{len(arrays.class_names)} classes, such as {arrays.labels[outside][0]}"
        )


def of_numbers(labels: NDArray[Any]) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Labels as places among the numbers that they are, and those numbers."""
    numbers = np.unique(labels)
    return np.searchsorted(numbers, labels), tuple(map(str, numbers.tolist()))
