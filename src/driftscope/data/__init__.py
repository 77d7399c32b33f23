"""Image sets: one interface over the embedded world, folders, lists, tables and the hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from jaxtyping import Int64, UInt8
from torch import Tensor

from driftscope.data import folders, hub, parquet
from driftscope.data.address import Address, choose_split, parse_address
from driftscope.data.encoded import EncodedSet
from driftscope.data.procedural import PROCEDURAL_SETS, load_procedural
from driftscope.data.rows import PixelRows, PixelSource
from driftscope.errors import DataError, did_you_mean


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
        self, indices: Sequence[int] | Int64[Tensor, " image"], size: int
    ) -> UInt8[Tensor, "image 3 size size"]:
        """These images at a model's input size.

        Raises:
            DataError: an image cannot be read; the sentence names it.
        """


def open_dataset(source: str | Path, split: str = "test") -> ImageSet:
    """An image set by name or place.

    Args:
        source: an embedded set (`terrain`, `stars`, `concepts100`); a folder of images, of
            parquet files in hub layout, or written by `datasets`; a parquet file; a CSV or TSV
            list; a short name (`eurosat`, `pets`, `cifar100`, `cifar10`) or id of the Hugging
            Face hub. Columns and split may follow: `uoft-cs/cifar100?label=coarse_label`.
        split: such as `train` or `test`. A set without a test split gives its validation split,
            and a set with one split gives that one; the result's `split` says which it is.

    Raises:
        DataError: neither a known name nor a place with images.
    """
    address = parse_address(source)
    if address.place in PROCEDURAL_SETS:
        address.refuse_options("an embedded set")
        return load_procedural(address.place, split)
    place = _place_of(address)
    if place is None:
        return hub.open_hub(split, _with_preset_columns(address))
    if place.is_file():
        if place.suffix.lower() in folders.LIST_SUFFIXES:
            return folders.open_list(place, split, address)
        if place.suffix.lower() == ".parquet":
            return parquet.open_parquet(place, split, address)
        raise DataError(
            f"{place} is a file; give the folder that holds the images, a .csv or .tsv list of "
            "them, or a .parquet file"
        )
    if hub.is_arrow(place):
        return hub.open_arrow(place, split, address)
    if parquet.parquet_files(place):
        return parquet.open_parquet(place, split, address)
    return folders.open_folder(place, split, address)


def check_can_exist(source: str | Path) -> None:
    """Looks whether a dataset is here or can be on the hub, without opening it.

    Raises:
        DataError: neither a known name nor a place with images.
    """
    address = parse_address(source)
    if address.place not in PROCEDURAL_SETS:
        _place_of(address)


def available_splits(source: str | Path) -> tuple[str, ...]:
    """The names of a dataset's splits; only the one that the source names, where it does.

    Raises:
        DataError: neither a known name nor a place with images.
    """
    address = parse_address(source)
    splits = _splits_at(address)
    return (choose_split("", splits, address),) if "split" in address.options else splits


def labelled(images: ImageSet) -> tuple[Int64[Tensor, " image"], tuple[str, ...]]:
    """Labels and class names of a set that must have them.

    Raises:
        DataError: the images are unlabeled.
    """
    if images.labels is None or images.class_names is None:
        raise DataError(
            f"{images.name} has no labels, so it can be read but neither trained nor scored on; "
            "put the images of each class into a folder of its own"
        )
    return images.labels, images.class_names


def groups_of(images: ImageSet) -> tuple[str, ...] | None:
    """Which images belong together; None where nothing is known of it."""
    return images.groups if isinstance(images, EncodedSet) else None


def rows_of(
    images: ImageSet, indices: Sequence[int] | Int64[Tensor, " image"], size: int
) -> PixelRows:
    """Images at a model's input size, left where they are stored until they are asked for.

    Raises:
        DataError: an image cannot be read; the sentence names it.
    """
    if isinstance(images, EncodedSet):
        return images.rows(indices, size)
    return PixelRows.of(images.pixels(indices, size))


def _splits_at(address: Address) -> tuple[str, ...]:
    if address.place in PROCEDURAL_SETS:
        return tuple(PROCEDURAL_SETS[address.place].sizes)
    place = _place_of(address)
    if place is None:
        return hub.hub_splits(address)
    if place.is_file():
        if place.suffix.lower() in folders.LIST_SUFFIXES:
            return folders.list_splits(place)
        return tuple(parquet.parquet_splits(place, address))
    if hub.is_arrow(place):
        return hub.arrow_splits(place)
    if parquet.parquet_files(place):
        return tuple(parquet.parquet_splits(place, address))
    return folders.folder_splits(place)


def _place_of(address: Address) -> Path | None:
    """Where on this disk a set is; None for a hub dataset without a copy here.

    Raises:
        DataError: it is neither here nor can it be a hub dataset.
    """
    path = Path(address.place).expanduser()
    if path.exists():
        return path
    copy = hub.local_copy(address.place)
    if copy is not None:
        return copy
    if hub.preset_of(address.place) or hub.looks_like_hub_id(address.place):
        return None
    known = [*PROCEDURAL_SETS, *hub.PRESETS]
    raise DataError(
        f"no dataset {address.place!r}: there is no folder or file of that name here; "
        f"{did_you_mean(address.place, known)}"
    )


def _with_preset_columns(address: Address) -> Address:
    preset = hub.preset_of(address.place)
    return address.with_defaults(preset.columns) if preset else address


__all__ = [
    "EncodedSet",
    "ImageSet",
    "PixelRows",
    "PixelSource",
    "available_splits",
    "check_can_exist",
    "groups_of",
    "labelled",
    "open_dataset",
    "rows_of",
]
