"""Tar shards as webdataset writes them, and as CLIP_benchmark publishes its sets.

`test/0.tar` holds files that belong together by name: `s1.jpg`, `s1.cls` (a number), `s1.txt`
(a caption), `s1.json`. Class names lie beside the splits, in `classnames.txt`.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from driftscope.data.address import WHOLE, Address, split_kind
from driftscope.data.encoded import EncodedSet, printable
from driftscope.data.layouts.found import Found
from driftscope.data.layouts.tables import TABLE_OPTIONS, Rows, open_table
from driftscope.data.layouts.tree import Folder, image_suffixes
from driftscope.data.names import NamesFile, is_wordnet_id
from driftscope.data.other_kinds import kind_of_file
from driftscope.errors import DataError, one_line
from driftscope.files import read_text
from driftscope.limits import LIST_MB

_IMAGE = "image"
_LABEL_KINDS = ("cls", "label", "class", "target", "index")
_TEXT_KINDS = (*_LABEL_KINDS, "txt", "text", "json", "caption")
_MOST_TEXT_BYTES = 1 << 20
_TAR_RECORD = 10_240


@dataclass(frozen=True)
class _Member:
    """A file within a tar, which holds it uncompressed."""

    tar: Path
    name: str
    offset: int
    size: int

    def read(self) -> bytes:
        with self.tar.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True)
class _TarImages:
    """Images within tars."""

    members: tuple[_Member, ...]

    def __len__(self) -> int:
        return len(self.members)

    def name_of(self, index: int) -> str:
        member = self.members[index]
        return f"{member.name} in {member.tar}"

    def read(self, indices: Sequence[int]) -> Iterator[bytes | DataError]:
        for index in indices:
            try:
                yield self.members[index].read()
            except OSError as error:
                yield DataError(f"cannot read the image {self.name_of(index)}: {one_line(error)}")


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
        named = tar.stem
        if not is_wordnet_id(named):
            named = re.sub(r"[-_.]?[\d{}.]+$", "", named)
        splits.setdefault(folders[-1] if folders else named or WHOLE, []).append(tar)
    if len(splits) > 1 and "split" not in address.options and not any(map(split_kind, splits)):
        names = ", ".join(printable(tar.name) for tar in sorted(tars)[:2])
        raise DataError(
            f"{address.place} holds tars whose names tell no splits ({names}); if each holds one "
            "class, unpack each into a folder of its name and give the folder of those, or say "
            f"which to read: ?split={printable(next(iter(splits)))}"
        )
    return _found(address, Path(tree.path), splits)


def _found(address: Address, root: Path, splits: Mapping[str, list[Path]]) -> Found:
    beside = root if NamesFile.beside(root) else root.parent
    names = NamesFile.beside(beside)
    in_order = _told_apart(names.in_order) if names else ()
    passed_over: dict[str, list[str]] = {}
    without_image: dict[str, int] = {}

    @cache
    def held(split: str) -> Mapping[str, list[Any]]:
        samples: list[dict[str, Any]] = []
        for tar in splits[split]:
            of_tar, beside_others, num_without = _samples_of(tar)
            samples += of_tar
            passed_over.setdefault(split, []).extend(beside_others)
            without_image[split] = without_image.get(split, 0) + num_without
        if not samples:
            raise DataError(f"the tar files of {address.place} ({split}) hold no images")
        kinds = dict.fromkeys(kind for sample in samples for kind in sample)
        return {kind: [sample.get(kind) for sample in samples] for kind in kinds}

    table = Rows(
        held,
        lambda _, members: _TarImages(tuple(members)),
        dict.fromkeys(_LABEL_KINDS, in_order) if in_order else {},
    )

    def opened(found: Found, split: str) -> EncodedSet:
        images = open_table(found, split)
        notes = list(images.notes)
        if more := passed_over[split]:
            said = f"{len(more)} further images of samples that have one are passed over: {more[0]}"
            notes.append(said)
        if count := without_image[split]:
            notes.append(f"{count:,} samples without an image are left out")
        return replace(images, notes=tuple(notes))

    doubts = []
    for split, tars in splits.items():
        noted = tars[0].parent / "nshards.txt"
        if noted.is_file() and (count := read_text(noted, LIST_MB).strip()).isdecimal():
            missing = int(count) - len(tars)
            if missing > 0:
                doubts.append(f"{missing} of the {count} tars of its split {split} are missing")
    return Found(
        address,
        "webdataset",
        dict.fromkeys(splits, table),
        opened,
        TABLE_OPTIONS,
        doubts=tuple(doubts),
        folder=beside if names else root,
    )


@dataclass
class _Samples:
    """The samples of a tar, by name, as far as it has been read.

    Attributes:
        held: the image and texts of each.
        dotted: images with a dot within their names (`s1.left.png`), by the sample's.
        told: names with such a dot of which a text tells (`s1.left` of `s1.left.cls`).
        more: further images of samples that have one.
    """

    held: dict[str, dict[str, Any]] = field(default_factory=dict)
    dotted: dict[str, list[str]] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    more: list[str] = field(default_factory=list)

    def add(self, member: _Member) -> None:
        folder, name = os.path.split(member.name)
        key, _, kind = name.lower().partition(".")
        key = name[: len(key)]
        place, inner, ending = f"{folder}/{key}", name.rpartition(".")[0], kind.rpartition(".")[2]
        sample = self.held.setdefault(place, {})
        if f".{ending}" in image_suffixes():
            if kind != ending:
                self.dotted.setdefault(place, []).append(member.name)
            elif sample.setdefault(_IMAGE, member) is not member:
                self.more.append(member.name)
            return
        if ending in _TEXT_KINDS and inner != key:
            self.told.add(f"{folder}/{inner}")
        if (first := kind.partition(".")[0]) in _TEXT_KINDS and member.size < _MOST_TEXT_BYTES:
            sample.update(_texts(first, kind, member.read().decode("utf-8", "replace")))

    def with_images(self, tar: Path) -> list[dict[str, Any]]:
        """Those that have an image, in their order.

        Raises:
            DataError: a dotted image is none of its sample's.
        """
        for place, names in self.dotted.items():
            for name in names:
                folder, own = os.path.split(name)
                stem, _, ending = own.rpartition(".")
                if _IMAGE not in self.held[place] or f"{folder}/{stem}" in self.told:
                    raise DataError(
                        f"the tar file {tar} holds {own}, whose sample would be "
                        f"{own.partition('.')[0]}: what stands behind the first dot is the kind of "
                        "file; name images, labels and texts without dots before the ending, such "
                        f"as {stem.replace('.', '_')}.{ending}"
                    )
                self.more.append(name)
        return [sample for sample in self.held.values() if _IMAGE in sample]


def _samples_of(tar: Path) -> tuple[list[dict[str, Any]], list[str], int]:
    """The samples that have an image; further images of those; how many have texts alone."""
    samples = _Samples()
    try:
        with tarfile.open(tar, "r:") as members:
            for one in members:
                if one.isfile() and not Path(one.name).name.startswith("."):
                    samples.add(_Member(tar, one.name, one.offset_data, one.size))
            _check_whole(tar, members.offset)
    except (OSError, tarfile.TarError) as error:
        kind = kind_of_file(tar)
        raise DataError(
            f"cannot read the tar file {tar}: {f'it is {kind}' if kind else one_line(error)}"
        ) from None
    whole = samples.with_images(tar)
    return whole, samples.more, sum(map(bool, samples.held.values())) - len(whole)


def _check_whole(tar: Path, end: int) -> None:
    """Raises DataError where a tar is cut off, or goes on behind its end."""
    with tar.open("rb") as file:
        file.seek(end)
        rest = file.read(_TAR_RECORD)
    if len(rest) < tarfile.BLOCKSIZE:
        raise DataError(f"the tar file {tar} is cut off: it has no end mark; fetch it again")
    if rest.strip(b"\0"):
        raise DataError(
            f"the tar file {tar} goes on behind its first end, as tars do that were joined; give "
            "each a file of its own"
        )


def _texts(column: str, kind: str, text: str) -> dict[str, Any]:
    """What a text file of a sample says, by column: a label, captions a line each, or JSON."""
    text = text.strip()
    if not kind.endswith("json"):
        return {column: text if column in _LABEL_KINDS else text.splitlines()}
    try:
        held = from_json(text)
    except ValueError:
        return {}
    if isinstance(held, dict):
        return {key: value for key, value in held.items() if key != _IMAGE}
    return {column: held}


def _by_number(tar: Path) -> tuple[str, int, str]:
    numbers = re.findall(r"\d+", tar.stem)
    return (str(tar.parent), int(numbers[-1]) if numbers else 0, tar.name)


def _told_apart(names: Sequence[str]) -> tuple[str, ...]:
    """Names that are two classes' (ImageNet's sunglasses) with their numbers."""
    return tuple(
        f"{name} ({number})" if names.count(name) > 1 else name for number, name in enumerate(names)
    )
