"""Tar shards as webdataset writes them, and as CLIP_benchmark publishes its sets.

`test/0.tar` holds files that belong together by name: `s1.jpg`, `s1.cls` (a number), `s1.txt`
(a caption), `s1.json`. Class names lie beside the splits, in `classnames.txt`.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from driftscope.data.address import WHOLE, Address
from driftscope.data.encoded import EncodedImages
from driftscope.data.layouts.found import Found
from driftscope.data.layouts.tables import TABLE_OPTIONS, open_table
from driftscope.data.layouts.tree import Folder, image_suffixes
from driftscope.data.names import NamesFile
from driftscope.errors import DataError

_IMAGE = "image"
_TEXT_KINDS = ("cls", "txt", "text", "json", "caption")
_MOST_TEXT_BYTES = 1 << 20


@dataclass(frozen=True)
class Member:
    """A file within a tar, which holds it uncompressed."""

    tar: Path
    name: str
    offset: int
    size: int

    def read(self) -> bytes:
        """Its bytes."""
        with self.tar.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True)
class TarImages:
    """Images within tars."""

    members: tuple[Member, ...]

    def __len__(self) -> int:
        """How many images."""
        return len(self.members)

    def name_of(self, index: int) -> str:
        """Its name and its tar's."""
        member = self.members[index]
        return f"{member.name} in {member.tar}"

    def read(self, indices: Sequence[int]) -> Iterator[bytes | DataError]:
        """The images' files."""
        for index in indices:
            try:
                yield self.members[index].read()
            except OSError as error:
                yield DataError(f"cannot read the image {self.name_of(index)}: {error}")


@dataclass(frozen=True)
class TarTable:
    """The samples of every split as a `Table`."""

    place: str
    tars: Mapping[str, Sequence[Path]]
    class_names: tuple[str, ...]

    def columns(self, split: str) -> Sequence[str]:
        """The image, and the kinds of text that samples have."""
        return list(dict.fromkeys(key for sample in self._samples[split] for key in sample))

    def image_columns(self, split: str) -> Sequence[str]:  # noqa: ARG002
        """The only one."""
        return [_IMAGE]

    def label_names(self, split: str) -> Mapping[str, Sequence[str]]:  # noqa: ARG002
        """`cls`, where class names lie beside the splits."""
        return {"cls": self.class_names} if self.class_names else {}

    def values(self, split: str, column: str) -> list[Any]:
        """The texts of a kind; of class numbers the numbers.

        Raises:
            DataError: a sample lacks it.
        """
        missing = sum(column not in sample for sample in self._samples[split])
        if missing:
            raise DataError(f"{missing} samples of {self.place} ({split}) have no {column}")
        values = [sample[column] for sample in self._samples[split]]
        is_numbered = column == "cls" and all(str(one).lstrip("-").isdecimal() for one in values)
        return [int(one) for one in values] if is_numbered else values

    def images(self, split: str, column: str) -> EncodedImages:  # noqa: ARG002
        """The images."""
        return TarImages(tuple(sample[_IMAGE] for sample in self._samples[split]))

    @cached_property
    def _samples(self) -> dict[str, list[dict[str, Any]]]:
        found = {split: [one for tar in tars for one in _samples_of(tar)] for split, tars in
                 self.tars.items()}  # fmt: skip
        empty = next((split for split, samples in found.items() if not samples), None)
        if empty is not None:
            raise DataError(f"the tar files of {self.place} ({empty}) hold no images")
        return found


def recognise_file(file: Path, address: Address) -> Found:
    """One tar: one split."""
    return _found(address, file.parent, {WHOLE: [file]})


def recognise(tree: Folder, address: Address) -> Found | None:
    """A folder with tars and no loose images: a folder a split, or the split in a tar's name."""
    packed = tree.files(".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".tar.zst")
    tars = tree.files(".tar")
    if tree.num_images or not (tars or packed):
        return None
    if not tars:
        raise DataError(f"{packed[0]} is packed: unpack it, and give the folder that comes out")
    splits: dict[str, list[Path]] = {}
    for tar in sorted(tars, key=_by_number):
        folders = tar.relative_to(tree.path).parts[:-1]
        named = re.sub(r"[-_.]?[\d{}.]+$", "", tar.stem)
        splits.setdefault(folders[-1] if folders else named or WHOLE, []).append(tar)
    return _found(address, Path(tree.path), splits)


def _found(address: Address, root: Path, splits: Mapping[str, list[Path]]) -> Found:
    names = NamesFile.beside(root)
    table = TarTable(address.place, splits, _told_apart(names.in_order) if names else ())
    doubts = []
    for split, tars in splits.items():
        noted = tars[0].parent / "nshards.txt"
        if noted.is_file() and (count := noted.read_text().strip()).isdecimal():
            missing = int(count) - len(tars)
            if missing > 0:
                doubts.append(f"{missing} of the {count} tars of its split {split} are missing")
    return Found(
        address,
        "webdataset",
        dict.fromkeys(splits, table),
        open_table,
        TABLE_OPTIONS,
        doubts=tuple(doubts),
        folder=root,
    )


def _samples_of(tar: Path) -> list[dict[str, Any]]:
    """The samples that have an image, in their order."""
    samples: dict[str, dict[str, Any]] = {}
    try:
        with tarfile.open(tar, "r:") as members:
            for one in members:
                folder, name = os.path.split(one.name)
                key, _, kind = name.partition(".")
                if not one.isfile() or not key:
                    continue
                member = Member(tar, one.name, one.offset_data, one.size)
                sample = samples.setdefault(f"{folder}/{key}", {})
                kind = kind.lower()
                if f".{kind}" in image_suffixes():
                    sample.setdefault(_IMAGE, member)
                elif kind in _TEXT_KINDS and one.size < _MOST_TEXT_BYTES:
                    sample.update(_texts(kind, member.read().decode("utf-8", "replace")))
    except (OSError, tarfile.TarError) as error:
        raise DataError(f"cannot read the tar file {tar}: {error}") from None
    return [sample for sample in samples.values() if _IMAGE in sample]


def _texts(kind: str, text: str) -> dict[str, Any]:
    if kind != "json":
        return {kind: text.strip()}
    try:
        held = json.loads(text)
    except ValueError:
        return {}
    return {k: v for k, v in held.items() if k != _IMAGE} if isinstance(held, dict) else {}


def _by_number(tar: Path) -> tuple[str, int, str]:
    numbers = re.findall(r"\d+", tar.stem)
    return (str(tar.parent), int(numbers[-1]) if numbers else 0, tar.name)


def _told_apart(names: Sequence[str]) -> tuple[str, ...]:
    """Names that are two classes' (ImageNet's sunglasses) with their numbers."""
    return tuple(
        f"{name} ({number})" if names.count(name) > 1 else name for number, name in enumerate(names)
    )
