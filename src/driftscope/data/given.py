"""Images as people have them (a dataset's name, a tensor, PIL images) at a model's input size."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from driftscope.data import EncodedSet, ImageSet, available_splits, notes_of, open_dataset
from driftscope.data.address import split_kind
from driftscope.data.copies import told_of_copies
from driftscope.data.depth import WHITE, greatest_value, white_of
from driftscope.data.duplicates import found_among
from driftscope.data.encoded import repeats_left_out
from driftscope.data.framing import Framing
from driftscope.data.pixels import as_rgb, picture, resized, to_model_size, upright
from driftscope.errors import DataError, NoteWarning
from driftscope.files import named_path

if TYPE_CHECKING:
    from PIL.Image import Image

Images = str | Path | Tensor | Sequence["Image"]
"""A dataset's name, folder or address; uint8 pixels [image, 3, height, width]; PIL images."""
_PORTION = 256
_FIRST_ROWS = 32


class SomePixels(NamedTuple):
    """Images at a model's input size, with their name and what is to be said of them.

    `num_given` counts the images there are; of a set with several rows an image, of which some
    were read, it counts rows, and a note says so.
    """

    name: str
    pixels: UInt8[Tensor, "image 3 size size"]
    notes: tuple[str, ...]
    num_given: int
    are_labeled: bool = False
    split_of: str | None = None


def some_pixels(
    images: Images,
    size: int | Framing,
    max_images: int | None,
    what: str,
    *,
    skip_bad_images: bool = False,
) -> SomePixels:
    """The images' pixels; of more than `max_images` evenly spaced ones. Their notes are warned of.

    Args:
        images: a dataset (its test split), a tensor, or PIL images.
        size: the model's input size.
        max_images: how many at most; None for all.
        what: the argument's name, for the error sentence.
        skip_bad_images: whether unreadable images of a dataset are left out or an error.

    Raises:
        DataError: they are none of these, too few, or one cannot be read.
    """
    if max_images is not None and max_images < 4:
        option = "max_images" if what == "images" else f"{what}_images"
        raise DataError(f"{option} is {max_images}, but at least 4 images are read")
    source = _Source(images, "test", what, skip_bad_images=skip_bad_images)
    _refuse_few(len(source), what)
    count = min(max_images or len(source), len(source))
    drawn = torch.linspace(0, len(source) - 1, count).long()
    chosen = source.each_once(drawn)
    _refuse_few(len(chosen), what)
    pixels = source.pixels(chosen.tolist(), size)
    notes = source.notes_of(chosen)
    if repeated := len(drawn) - len(chosen):
        notes = (*notes, f"{source.name}: {repeats_left_out(repeated)}")
    if count < len(source) and source.begins_with_repeats():
        said = f"it has several rows an image, and its count of {len(source):,} is that of rows"
        notes = (*notes, f"{source.name}: {said}")
    warn_of(notes)
    num_given = len(chosen) if count == len(source) else len(source)
    return SomePixels(source.name, pixels, notes, num_given, source.are_labeled, source.split_of)


def _refuse_few(num_images: int, what: str) -> None:
    if num_images < 4:
        raise DataError(f"{what} holds {num_images} image(s), but at least 4 are read")


def are_labeled(images: ImageSet) -> bool:
    """Whether images surely have labels: those of two or more classes."""
    return images.labels is not None and len(images.class_names or ()) > 1


def split_of(images: ImageSet) -> str | None:
    """The labeled folder with splits of which the images' folder is one; None where it is none.

    Such as `pets` of `pets/test` beside `pets/train`. Only a folder that holds nothing but splits
    is looked through.
    """
    place = named_path(images.name)
    if not are_labeled(images) or split_kind(place.name) is None or not place.is_dir():
        return None
    whole = str(Path(images.name).parent)
    try:
        folders = [one for one in place.resolve().parent.iterdir() if one.is_dir()]
        kinds = {split_kind(one.name) for one in folders if not one.name.startswith(".")}
        if None in kinds or "train" not in kinds or len(kinds) < 2:
            return None
        return whole if place.name in available_splits(whole) else None
    except (DataError, OSError):  # it is advice: what cannot be read is not named
        return None


def each_once(
    images: ImageSet, chosen: Int64[Tensor, " row"] | Sequence[int]
) -> Int64[Tensor, " image"]:
    """Of some rows the first of each image, in a set that may have a row a caption."""
    rows = torch.as_tensor(chosen)
    if not isinstance(images, EncodedSet) or images.captions is None:
        return rows
    digests = images.select(rows).image_digests
    first = {digest: at for at, digest in reversed(list(enumerate(digests)))}
    return rows[sorted(first.values())]


def read_notes(
    images: ImageSet, chosen: Sequence[int] | Int64[Tensor, " image"]
) -> tuple[str, ...]:
    """What is to be said of some of a set's images, read without their labels."""
    if not isinstance(images, EncodedSet):
        return ()
    of_chosen = replace(images.select(torch.as_tensor(chosen)), labels=None)
    said = [*notes_of(images), *(one for told in told_of_copies(of_chosen) for one in told)]
    return tuple(f"{images.name}: {one}" for one in said)


def warn_of(notes: Iterable[str]) -> None:
    """Says what is to be said of images, where no page has a place for it."""
    for note in notes:
        warnings.warn(note, NoteWarning, stacklevel=3)


def num_among(
    images: Images | None,
    pixels: UInt8[Tensor, "probe 3 size size"],
    framing: Framing,
    what: str,
) -> int:
    """How many of the pixels are among these images (of a dataset its training split), too.

    Raises:
        DataError: the images are no images, or one cannot be read.
    """
    if images is None:
        return 0
    return len(found_among(pixels, _portions(_Source(images, "train", what), framing)))


def _portions(source: _Source, size: int | Framing) -> Iterator[UInt8[Tensor, "image 3 size size"]]:
    """All images, some hundred at a time."""
    for start in range(0, len(source), _PORTION):
        yield source.pixels(range(start, min(start + _PORTION, len(source))), size)


class _Source:
    """One face for the three kinds."""

    def __init__(
        self, images: Images, split: str, what: str, *, skip_bad_images: bool = False
    ) -> None:
        self._dataset = open_dataset(images, split) if isinstance(images, str | Path) else None
        if isinstance(self._dataset, EncodedSet):
            once = self._dataset.by_file()
            self._dataset = once.only_readable() if skip_bad_images else once
        self._tensor = images if isinstance(images, Tensor) else None
        self._pictures: Sequence[Image] = []
        self._what = what
        if self._dataset is None and self._tensor is None:
            self._pictures = _as_pictures(images, what)
        self._white = _white_of(self._pictures, what)
        if self._tensor is not None:
            _check_pixels(self._tensor, what)
        self.name = self._dataset.name if self._dataset is not None else f"{len(self)} given images"

    @property
    def are_labeled(self) -> bool:
        return self._dataset is not None and are_labeled(self._dataset)

    @property
    def split_of(self) -> str | None:
        return None if self._dataset is None else split_of(self._dataset)

    def each_once(self, chosen: Int64[Tensor, " row"]) -> Int64[Tensor, " image"]:
        return chosen if self._dataset is None else each_once(self._dataset, chosen)

    def begins_with_repeats(self) -> bool:
        """Whether some of the first rows are of one image; to look at all takes reading all."""
        first = torch.arange(min(_FIRST_ROWS, len(self)))
        return len(self.each_once(first)) < len(first)

    def notes_of(self, chosen: Int64[Tensor, " image"]) -> tuple[str, ...]:
        return () if self._dataset is None else read_notes(self._dataset, chosen)

    def __len__(self) -> int:
        for held in (self._dataset, self._tensor):
            if held is not None:
                return len(held)
        return len(self._pictures)

    def pixels(
        self, indices: Sequence[int], size: int | Framing
    ) -> UInt8[Tensor, "image 3 size size"]:
        if self._dataset is not None:
            return self._dataset.pixels(list(indices), size)
        if self._tensor is None:
            return torch.stack([self._sized_picture(one, size) for one in indices])
        chosen = self._tensor[list(indices)].cpu()
        if chosen.shape[-1] == chosen.shape[-2]:
            return resized(chosen, size)
        return torch.stack([to_model_size(picture(one), size) for one in chosen])

    def _sized_picture(self, index: int, size: int | Framing) -> UInt8[Tensor, "3 size size"]:
        image = upright(_as_picture(self._pictures[index], self._what))
        return to_model_size(as_rgb(image, "that was given", self._white), size)


def _white_of(pictures: Sequence[Image], what: str) -> int:
    """What is white in pictures of 16 bits, of which the first is one; it is said."""
    if not len(pictures) or greatest_value(pictures[0]) is None:
        return WHITE
    values = [greatest_value(_as_picture(one, what)) for one in pictures]
    white = white_of(value for value in values if value is not None)
    if white != WHITE:
        said = f"the 16-bit images given as {what} have no value above {white:,}: that is white"
        warnings.warn(said, NoteWarning, stacklevel=2)
    return white


def _as_pictures(images: object, what: str) -> Sequence[Image]:
    is_sequence = hasattr(images, "__len__") and hasattr(images, "__getitem__")
    if not is_sequence or isinstance(images, Mapping):
        raise DataError(_not_images(what, type(images).__name__))
    pictures: Sequence[Image] = images  # type: ignore[assignment]
    if len(pictures):
        _as_picture(pictures[0], what)
    return pictures


def _as_picture(picture: object, what: str) -> Image:
    from PIL import Image as PILImage

    if not isinstance(picture, PILImage.Image):
        raise DataError(_not_images(what, f"a sequence of {type(picture).__name__}"))
    return picture


def _not_images(what: str, received: str) -> str:
    return (
        f"{what} must be a dataset's name or folder, a uint8 tensor [image, 3, height, width] or a "
        f"list of PIL images, got {received}"
    )


def _check_pixels(pixels: Tensor, what: str) -> None:
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3:
        raise DataError(
            f"{what} as a tensor holds pixels as they are in the files, uint8 [image, 3, height, "
            f"width] and not normalised; got {str(pixels.dtype).removeprefix('torch.')} "
            f"{list(pixels.shape)}"
        )


def as_typed(given: object, otherwise: str) -> str | None:
    """What names it in a command; of what has no name, what stands for one."""
    if given is None:
        return None
    return str(given) if isinstance(given, str | Path) else otherwise
