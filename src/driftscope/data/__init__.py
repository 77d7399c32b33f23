"""Image sets: one interface over the embedded world, folders, lists, tables and the hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from jaxtyping import Int64, UInt8
from torch import Tensor

from driftscope.data.address import choose_split, parse_address
from driftscope.data.encoded import EncodedSet
from driftscope.data.framing import Framing
from driftscope.data.layouts import look, place_of
from driftscope.data.procedural import PROCEDURAL_SETS
from driftscope.data.rows import PixelRows, PixelSource
from driftscope.errors import DataError


class ImageSet(Protocol):
    """Images by index, with labels where there are any.

    `fingerprint` changes when any image, label or class name does.
    """

    @property
    def name(self) -> str:
        """What the user named."""

    @property
    def split(self) -> str:
        """Which split it is; `all` where the images are not divided."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The classes in label order; None for unlabeled images."""

    @property
    def labels(self) -> Int64[Tensor, " image"] | None:
        """Class indices; None for unlabeled images."""

    @property
    def fingerprint(self) -> str:
        """A short hash of the content."""

    def __len__(self) -> int:
        """How many images."""

    def pixels(
        self, indices: Sequence[int] | Int64[Tensor, " image"], size: int | Framing
    ) -> UInt8[Tensor, "image 3 size size"]:
        """These images at a model's input size, or made as its `framing` says.

        Raises:
            DataError: an image cannot be read; the sentence names it.
        """


def open_dataset(source: str | Path, split: str = "test") -> ImageSet:
    """An image set by name or place.

    Args:
        source: an embedded set (`terrain`, `stars`, `concepts100`); a folder or file in one of the
            layouts of `driftscope.data.layouts`; a short name (`eurosat`, `pets`, `cifar100`,
            `cifar10`) or id of the Hugging Face hub. Columns and split may follow:
            `uoft-cs/cifar100?label=coarse_label`.
        split: such as `train` or `test`. A set without a test split gives its validation split,
            and a set with one split gives that one; the result's `split` says which it is.

    Raises:
        DataError: neither a known name nor a place with images.
    """
    return look(source).open(split)


def open_labelled(source: str | Path, split: str) -> ImageSet:
    """As `open_dataset`; a split that hides its labels gives way to the next that may stand for it.

    Raises:
        DataError: as there, or no such split has labels.
    """
    images = look(source).open_labelled(split)
    labelled(images)
    return images


def is_here(source: str | Path) -> bool:
    """Whether a dataset is on this disk or drawn; False where only the hub may have it.

    Nothing is opened.

    Raises:
        DataError: neither a known name nor a place with images.
    """
    address = parse_address(source)
    return address.place in PROCEDURAL_SETS or place_of(address) is not None


def available_splits(source: str | Path) -> tuple[str, ...]:
    """The names of a dataset's splits; only the one that the source names, where it does.

    Raises:
        DataError: neither a known name nor a place with images.
    """
    found = look(source)
    if "split" in found.address.options:
        return (choose_split("", found.splits, found.address),)
    return tuple(found.splits)


def labelled(images: ImageSet) -> tuple[Int64[Tensor, " image"], tuple[str, ...]]:
    """Labels and class names of a set that must have them.

    Raises:
        DataError: the images are unlabeled, or all of one class.
    """
    if images.labels is None or images.class_names is None:
        reason = images.unlabeled_because if isinstance(images, EncodedSet) else ""
        way_out = "put the images of each class into a folder of its own"
        raise DataError(
            f"{images.name} has no labels, so it can be read but neither trained nor scored on; "
            + (reason or way_out)
        )
    if len(images.class_names) < 2:
        raise DataError(
            f"{images.name} has one class, {images.class_names[0]!r}, and of one class every model "
            "is right; give a set of two or more"
        )
    return images.labels, images.class_names


def groups_of(images: ImageSet) -> tuple[str, ...] | None:
    """Which images belong together; None where nothing is known of it."""
    return images.groups if isinstance(images, EncodedSet) else None


def notes_of(images: ImageSet) -> tuple[str, ...]:
    """What was passed over, left out or read in another's place, and what is doubtful."""
    return (*images.notes, *images.doubts) if isinstance(images, EncodedSet) else ()


def rows_of(
    images: ImageSet, indices: Sequence[int] | Int64[Tensor, " image"], size: int | Framing
) -> PixelRows:
    """Images at a model's input size, left where they are stored until they are asked for.

    Raises:
        DataError: an image cannot be read; the sentence names it.
    """
    if isinstance(images, EncodedSet):
        return images.rows(indices, size)
    return PixelRows.of(images.pixels(indices, size))


__all__ = [
    "EncodedSet",
    "Framing",
    "ImageSet",
    "PixelRows",
    "PixelSource",
    "available_splits",
    "groups_of",
    "is_here",
    "labelled",
    "look",
    "notes_of",
    "open_dataset",
    "open_labelled",
    "rows_of",
]
