"""The target task under corruption: a test set's own corrupted splits, or made from its images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Int64
from torch import Tensor

from driftscope.data import (
    EncodedSet,
    Framing,
    PixelSource,
    available_splits,
    labelled,
    notes_of,
    open_dataset,
    rows_of,
)
from driftscope.data.corruptions import corrupt
from driftscope.data.splits import balanced_subset
from driftscope.errors import DataError


@dataclass(frozen=True, eq=False)
class CorruptedTest:
    """Test images under one corruption.

    `made` says whether the dataset ships them as a split or driftscope made them; a shipped
    split has its own severity, which is then None. `notes` are that split's.
    """

    corruption: str
    made: Literal["shipped", "generated"]
    severity: int | None
    pixels: PixelSource
    labels: Int64[Tensor, " image"]
    notes: tuple[str, ...] = ()


def corrupted_tests(
    dataset: str,
    corruptions: Sequence[str],
    pixels: PixelSource,
    labels: Int64[Tensor, " image"],
    *,
    class_names: Sequence[str],
    framing: Framing,
    severity: int = 3,
    skip_bad_images: bool = False,
) -> Iterator[CorruptedTest]:
    """One test set a corruption, one at a time in memory.

    Args:
        dataset: whose test images they are; EuroSAT's hub entry ships corrupted splits.
        corruptions: names, of `driftscope.data.corruptions.CORRUPTIONS`.
        pixels: the clean test images, from which what is not shipped is made.
        labels: their classes.
        class_names: the classes in label order; a shipped split must have the same.
        framing: how the model reads images; the clean ones are framed so.
        severity: 1 (mild) to 5, of what is made.
        skip_bad_images: whether unreadable images of a shipped split are left out or an error.

    Raises:
        DataError: an unknown corruption, or a shipped split of other classes.
    """
    shipped = available_splits(dataset) if corruptions else ()
    for name in corruptions:
        if name in shipped:
            images = open_dataset(dataset, name)
            if skip_bad_images and isinstance(images, EncodedSet):
                images = images.only_readable()
            own_labels, own_names = labelled(images)
            if own_names != tuple(class_names):
                raise DataError(
                    f"the split {name} of {dataset} names other classes than its test split, so "
                    "accuracy on it would mean nothing"
                )
            chosen = balanced_subset(own_labels, len(labels))
            shown = rows_of(images, chosen, framing)
            yield CorruptedTest(name, "shipped", None, shown, own_labels[chosen], notes_of(images))
        else:
            made = corrupt(pixels, name, severity)
            yield CorruptedTest(name, "generated", severity, made, labels)
