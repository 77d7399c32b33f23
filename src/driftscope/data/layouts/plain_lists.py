"""Lists without a header, in the forms that benchmarks publish: a line an image."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from driftscope.data.address import split_kind
from driftscope.data.layouts.tree import image_suffixes, is_image

Columns = dict[str, list[Any]]

_PETS = re.compile(r"((\S+)_\d+) \d+ [12] \d+")
"""Name, class, species and breed, of which the name alone tells the breed in words."""
_AIRCRAFT = re.compile(r"images_(variant|family|manufacturer)_\w+\.txt")
_OF_SPLITS = re.compile(r"(?i)partition|train_test_split")
"""Files whose numbers tell splits, as CelebA's `list_eval_partition.txt`."""
PARTS = re.compile(r"(?i)(.*[_-])?(part|chunk|shard|batch|image|img|photo|folder|dir)s?[_-]?\d+")
"""Folders that hold a share of the images, whatever their classes."""
_TOKEN = re.compile(r"(\S+\.\w+)#\d+\s+(\S.*)")
"""A caption, as in `Flickr8k.token.txt` and Flickr30k's `results_20130124.token`."""
_LABEL_FIRST = re.compile(r"(\d+)\s+(\S.*)")
_NUMBERED = re.compile(r"(?:\d+|[0-9a-f-]{32,36}) (\S.*)")
_PATH = re.compile(r"[^,;\t|]+/(?P<name>[^,;\t|/]+)")


def read_plain(name: str, text: str) -> Columns | None:
    """Paths, and labels where it tells any, of a list without a header; None for another form.

    Args:
        name: the file's.
        text: its text, or the beginning of it.
    """
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        return None
    if _OF_SPLITS.search(name):
        return None
    forms: tuple[Callable[[Sequence[str]], Columns | None], ...] = (
        _of_pets,
        _of_tokens,
        _of_numbers,
        _of_numbers_first,
        _of_words,
        of_folders,
    )
    if _AIRCRAFT.fullmatch(name):
        forms = (_of_aircraft,)
    return next(filter(None, (form(lines) for form in forms)), None)


def _of_pets(lines: Sequence[str]) -> Columns | None:
    """`Abyssinian_100 1 1 1`, as the Oxford pets' `annotations/test.txt`."""
    found = [match for line in lines if (match := _PETS.fullmatch(line))]
    if len(found) < len(lines):
        return None
    return {"path": [match[1] for match in found], "label": [match[2] for match in found]}


def _of_numbers(lines: Sequence[str]) -> Columns | None:
    """`val/ILSVRC2012_val_00000001.JPEG 65`, as of ImageNet, Places365 and DomainNet."""
    pairs = [line.rsplit(maxsplit=1) for line in lines]
    if not all(
        len(pair) == 2 and pair[1].isdecimal() and Path(pair[0]).suffix.lower() in image_suffixes()
        for pair in pairs
    ):
        return None
    return {"path": [path for path, _ in pairs], "label": [number for _, number in pairs]}


def _of_words(lines: Sequence[str]) -> Columns | None:
    """`1.jpg red fox`, where most lines share their words with others: no captions are so alike."""
    pairs = [line.split(maxsplit=1) for line in lines]
    if any(len(pair) < 2 or Path(pair[0]).suffix.lower() not in image_suffixes() for pair in pairs):
        return None
    words = [said for _, said in pairs]
    if 2 * len(set(words)) > len(words) or any(is_image(said) for said in words):
        return None
    return {"path": [path for path, _ in pairs], "label": words}


def _of_numbers_first(lines: Sequence[str]) -> Columns | None:
    """`65 val/1.jpg`, of which some lines have the same number: it is no number of the image."""
    found = [match for line in lines if (match := _LABEL_FIRST.fullmatch(line))]
    numbers = [match[1] for match in found]
    are_images = all(Path(match[2]).suffix.lower() in image_suffixes() for match in found)
    if len(found) < len(lines) or not are_images or len(set(numbers)) == len(numbers):
        return None
    return {"path": [match[2] for match in found], "label": numbers}


def _of_tokens(lines: Sequence[str]) -> Columns | None:
    """`1.jpg#0<tab>a cat on a mat`: a line for each caption of an image."""
    found = [match for line in lines if (match := _TOKEN.fullmatch(line))]
    if len(found) < len(lines):
        return None
    return {"path": [match[1] for match in found], "caption": [match[2] for match in found]}


def _of_aircraft(lines: Sequence[str]) -> Columns | None:
    """`0034309 A300-600`, as FGVC-Aircraft's `images_variant_test.txt`."""
    pairs = [line.split(maxsplit=1) for line in lines]
    if any(len(pair) < 2 for pair in pairs):
        return None
    return {"path": [path for path, _ in pairs], "label": [words for _, words in pairs]}


def of_folders(lines: Sequence[str]) -> Columns | None:
    """`apple_pie/1011328`, as Food-101's `meta/test.txt`: the last folder is the class.

    A number before each (`1 001.Albatross/1.jpg`, as CUB's `images.txt`) is none of the path.
    Where classes may lie at several depths the list says the paths alone.
    """
    parts = [_NUMBERED.fullmatch(line) for line in lines]
    if all(parts):
        lines = [part[1] for part in parts if part]
    found = [match["name"] for line in lines if (match := _PATH.fullmatch(line))]
    suffixes = {Path(name).suffix.lower() for name in found}
    if len(found) < len(lines) or not suffixes <= {"", *image_suffixes()}:
        return None
    folders = [line.split("/")[:-1] for line in lines]
    classes = [of_path[-1] for of_path in folders]
    are_classes = len(set(map(len, folders))) == 1 and len(set(classes)) > 1
    if not are_classes or any(split_kind(one) or PARTS.fullmatch(one) for one in set(classes)):
        return {"path": list(lines)}
    return {"path": list(lines), "label": classes}
