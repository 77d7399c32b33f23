"""Image sets: one interface over the embedded world and folders of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from jaxtyping import Int64, UInt8
from torch import Tensor

from driftscope.data.folders import open_folder
from driftscope.data.procedural import PROCEDURAL_SETS, load_procedural
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
        """train, test, or all."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The classes in label order; None for unlabeled images."""

    @property
    def labels(self) -> Int64[Tensor, "image"] | None:
        """Class indices; None for unlabeled images."""

    @property
    def fingerprint(self) -> str:
        """A short hash of the content."""

    def __len__(self) -> int:
        """How many images."""

    def pixels(
        self, indices: Sequence[int] | Tensor, size: int
    ) -> UInt8[Tensor, "image 3 size size"]:
        """These images at a model's input size.

        Raises:
            DataError: an image cannot be read; the sentence names it.
        """


def open_dataset(source: str | Path, split: str) -> ImageSet:
    """An image set by name (`terrain`, `stars`, `concepts100`) or by folder.

    Raises:
        DataError: neither a known name nor a folder with images.
    """
    name = str(source)
    if name in PROCEDURAL_SETS:
        return load_procedural(name, split)
    folder = Path(name).expanduser()
    if folder.exists():
        return open_folder(folder, split)
    raise DataError(
        f"no dataset {name!r}: it is no folder here, and among the known names "
        f"{did_you_mean(name, PROCEDURAL_SETS)}"
    )


def labelled(images: ImageSet) -> tuple[Int64[Tensor, "image"], tuple[str, ...]]:
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


__all__ = ["ImageSet", "labelled", "open_dataset"]
