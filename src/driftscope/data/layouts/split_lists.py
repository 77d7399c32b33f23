"""Lists of the splits of class folders that are not divided, as benchmarks publish them.

`meta/train.txt` and `meta/test.txt` of Food-101, `labels/train1.txt`, `val1.txt` and `test1.txt` of
DTD, `resisc45-test.txt`, `Partitions/Testing_01.txt` of SUN397: a line an image; the same as
tables with a column of paths (`test.csv`), or as JSON that holds the paths. Or one JSON file with
the paths of every split. Or CUB's `train_test_split.txt`, which says of each number in `images.txt`
whether it is one to train on.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic_core import from_json

from driftscope.data.address import SplitKind, split_kind
from driftscope.data.encoded import printable
from driftscope.data.layouts.plain_lists import read_plain
from driftscope.data.layouts.tree import Folder, is_image
from driftscope.data.spellings import composed
from driftscope.files import read_text
from driftscope.limits import LIST_MB

_MOST_LISTS = 200
_MOST_BESIDE_IMAGES = 20
_MOST_BYTES_TO_SAY_SO = 20_000_000
_MOST_PARTS = 4
_FEWEST_FOUND = 0.5
"""Lists that name fewer of the images here than this are those of something else."""
_SUFFIXES = (".txt", ".csv", ".tsv", ".json")
_OF_TABLES = (".csv", ".tsv")
_NAMED_SPLIT = re.compile(r"(?i)(data[ _]?)?(split|subset|partition|set)")
_LONGEST_HEADING = 2_000
_LABEL_BEHIND = re.compile(r"[\s,]+\d+\s*$")
_SPLIT_WORD = re.compile(r"(?i)(train|test)(ing)?(list|val)?|val(id(ation)?)?")
_OF_ALL_SPLITS = re.compile(r"(?i).*(split|partition)\w*\.json")
_OF_NUMBERS = ("images.txt", "train_test_split.txt")
_OF_FLAG: Mapping[str, SplitKind] = {"0": "test", "1": "train"}


@dataclass(frozen=True)
class Listed:
    """The images of every split by path, and what is said of the lists."""

    splits: Mapping[str, frozenset[str]]
    notes: tuple[str, ...]


def listed_splits(tree: Folder) -> Listed | None:
    """What lists below a folder say of its images' splits; None where none says it plainly.

    There must be images to train on and others to score on, none of them both.
    """
    files = _few_files(tree)
    lists = [file for file in files if split_kind(file.stem)][:_MOST_LISTS]
    of_all = [file for file in files if _OF_ALL_SPLITS.fullmatch(file.name)]
    flags = next((one for one in tree.below() if {*_OF_NUMBERS} <= {*one.others}), None)
    tables = [file for file in files if file.suffix in _OF_TABLES and _split_column(file)]
    if not lists and not of_all and not flags and not tables:
        return None
    images = ImagesByPath(tuple(tree.image_files()))
    for family in _families(lists):
        lines = {kind: _lines(file) for kind, file in family.items()}
        if found := _splits_of(lines, images):
            return Listed(found, tuple(_said(tree, family.values(), lists, lines, found, images)))
    for file in (*of_all, *tables):
        by_split = _of_every_split(file) if file in of_all else _of_column(file)
        if by_split and (found := _splits_of(by_split, images)):
            return Listed(found, tuple(_said(tree, [file], lists, by_split, found, images)))
    if flags:
        named: dict[SplitKind, list[str]] = {"train": [], "test": []}
        for path, split in numbered_splits(Path(flags.path)).items():
            named[split].append(path)
        if found := _splits_of(named, images):
            file = Path(flags.path, _OF_NUMBERS[1])
            return Listed(found, tuple(_said(tree, [file], lists, named, found, images)))
    return None


def numbered_splits(folder: Path) -> dict[str, SplitKind]:
    """The split of each path, as CUB writes it: `1 a.jpg` in one file, `1 0` in another."""
    paths, flags = (
        dict(pair for line in _lines(folder / name) if len(pair := line.split(None, 1)) == 2)
        for name in _OF_NUMBERS
    )
    return {
        path: _OF_FLAG[flag]
        for number, path in paths.items()
        if (flag := flags.get(number, "")) in _OF_FLAG
    }


def unused_list(tree: Folder, beside: Sequence[Path]) -> str:
    """What is said of a list of test images that does not divide class folders; "" without one.

    Args:
        tree: what the user named.
        beside: files that lie above it.
    """
    lists = [file for file in (*_few_files(tree), *beside) if file.suffix in _SUFFIXES]
    of_test = [
        file
        for file in lists[:_MOST_LISTS]
        if split_kind(file.stem) == "test" and file.stat().st_size < _MOST_BYTES_TO_SAY_SO
    ]
    images = ImagesByPath(tuple(tree.image_files())) if of_test else None
    for file in sorted(of_test, key=lambda file: (file in beside, len(file.stem), file)):
        lines = _lines(file)
        if images and lines and len(images.named(lines)) >= _FEWEST_FOUND * len(lines):
            what_to_do = (
                "give that file as the dataset to read those alone"
                if file.suffix != ".txt"
                or "label" in (read_plain(file.name, "\n".join(lines)) or ())
                else "all images are read, and not those alone"
            )
            return f"{printable(str(file))} lists its test images: {what_to_do}"
    return ""


def _few_files(tree: Folder) -> list[Path]:
    """The files that may be lists; not those of folders that hold one for each image."""
    few = (
        folder
        for folder in tree.below()
        if len(folder.others) <= (_MOST_BESIDE_IMAGES if folder.images else _MOST_LISTS)
    )
    return sorted(
        Path(folder.path, name)
        for folder in few
        for name in folder.others
        if name.lower().endswith(_SUFFIXES)
    )


def _splits_of(
    lines: Mapping[SplitKind, Sequence[str]], images: ImagesByPath
) -> dict[str, frozenset[str]]:
    """The images that lists name, by split; {} where these are no splits of the images."""
    named = {kind: images.named(of_kind) for kind, of_kind in lines.items()}
    if any(len(named[kind]) < _FEWEST_FOUND * len(lines[kind]) for kind in lines):
        return {}
    splits: dict[str, frozenset[str]] = {kind: frozenset(of) for kind, of in named.items() if of}
    are_apart = sum(map(len, splits.values())) == len(frozenset().union(*splits.values()))
    return splits if are_apart and "train" in splits and len(splits) > 1 else {}


def _families(lists: Iterable[Path]) -> Iterator[Mapping[SplitKind, Path]]:
    """Lists whose names differ in the split alone; those of lower numbers first."""
    families: dict[tuple[str, str, int], dict[SplitKind, Path]] = {}
    for file in sorted(lists, key=lambda file: (len(file.stem), file)):  # train before trainval
        if kind := split_kind(file.stem):
            form = _SUFFIXES.index(file.suffix.lower())
            rest = (str(file.parent), _SPLIT_WORD.sub("", file.stem), form)
            families.setdefault(rest, {}).setdefault(kind, file)
    for rest in sorted(families, key=lambda one: (list(map(int, re.findall(r"\d+", one[1]))), one)):
        yield families[rest]


def _lines(file: Path) -> list[str]:
    """What a list names: its lines, its column of images, or all texts of its JSON."""
    try:
        text = read_text(file, LIST_MB, "utf-8-sig")
        if file.suffix.lower() == ".json":
            return list(_texts_in(from_json(text)))
    except (OSError, ValueError):
        return []
    lines = [line for line in map(str.strip, text.splitlines()) if line and line[0] != "#"]
    if file.suffix.lower() == ".txt":
        return lines
    try:
        rows = list(csv.reader(lines, delimiter="\t" if file.suffix.lower() == ".tsv" else ","))
    except csv.Error:
        return []
    if rows and not any(map(is_image, rows[0])):  # a heading
        rows = rows[1:]
    are_images = (place for place, text in enumerate(rows[0] if rows else ()) if is_image(text))
    place = next(are_images, None)
    return [] if place is None else [row[place] for row in rows if len(row) > place]


def _of_every_split(file: Path) -> dict[SplitKind, list[str]]:
    """The paths of the splits that are the keys of a JSON file; {} for another form."""
    try:
        held = from_json(read_text(file, LIST_MB))
    except (OSError, ValueError):
        return {}
    if not isinstance(held, dict) or not all(map(split_kind, held)):
        return {}
    kinds = {kind: key for key in held if (kind := split_kind(key))}
    named = {kind: list(_texts_in(held[key])) for kind, key in kinds.items()}
    return named if len(kinds) == len(held) and all(named.values()) else {}


def _split_column(file: Path) -> str | None:
    """The column of a table that says a split, by its heading; None for none."""
    try:
        with file.open(encoding="utf-8-sig") as opened:
            heading = opened.readline(_LONGEST_HEADING)
    except (OSError, UnicodeDecodeError):
        return None
    return next(
        (
            one
            for one in re.split(r"[,;\t]", heading.strip())
            if _NAMED_SPLIT.fullmatch(one.strip(' "'))
        ),
        None,
    )


def _of_column(file: Path) -> dict[SplitKind, list[str]]:
    """The paths of each split that a column of a table tells of; {} for another form."""
    try:
        text = read_text(file, LIST_MB, "utf-8-sig")
        marks = (mark for mark in ";\t" if mark in text.partition("\n")[0])
        rows = list(csv.DictReader(text.splitlines(), delimiter=next(marks, ",")))
    except (OSError, ValueError, csv.Error):
        return {}
    column = (_split_column(file) or "").strip(' "')
    named: dict[SplitKind, list[str]] = {}
    for row in rows:
        kind = split_kind(str(row.get(column)))
        path = next((str(one) for one in row.values() if one and is_image(str(one))), None)
        if kind is None or path is None:
            return {}
        named.setdefault(kind, []).append(path)
    return named


def _texts_in(held: object) -> Iterator[str]:
    """The texts of lists, of lists by key, and the paths of objects."""
    if isinstance(held, str):
        yield held
    elif isinstance(held, list):
        for one in held:
            yield from _texts_in(one)
    elif isinstance(held, dict):
        for one in held.values():
            yield from (_texts_in(one) if isinstance(one, list) else ())
        yield from (one for one in held.values() if isinstance(one, str) and is_image(one))


class ImagesByPath:
    """Images by the ends of their paths."""

    def __init__(self, files: Sequence[str]) -> None:
        self.files = files
        self._by_end: dict[int, dict[str, str | None]] = {}

    def named(self, lines: Sequence[str]) -> list[str]:
        """Those that the lines name, with or without an ending and a class number behind."""
        return [file for line in lines if (file := self._of(line)) is not None]

    def find(self, path: str) -> str | None:
        """The one that a path names, if need be by the file's name alone."""
        return self._of(path) or self._at(path.replace("\\", "/").rpartition("/")[2])

    def _of(self, line: str) -> str | None:
        return self._at(line) or self._at(_LABEL_BEHIND.sub("", line))

    def _at(self, line: str) -> str | None:
        path = composed(line.replace("\\", "/").lstrip("./"))
        parts = path.split("/")
        for count in range(min(_MOST_PARTS, len(parts)), min(2, len(parts)) - 1, -1):
            ends, end = self._with_ends_of(count), "/".join(parts[-count:])
            if found := ends.get(end) or ends.get(_without_ending(end)):
                return found
        return None

    def _with_ends_of(self, count: int) -> dict[str, str | None]:
        """Images by the last parts of their paths; None where two have the same."""
        if count not in self._by_end:
            ends: dict[str, str | None] = {}
            for file in self.files:
                end = composed("/".join(Path(file).parts[-count:]))
                for name in {end, _without_ending(end)}:
                    ends[name] = None if name in ends else file
            self._by_end[count] = ends
        return self._by_end[count]


def _without_ending(path: str) -> str:
    stem, dot, ending = path.rpartition(".")
    return stem if dot and "/" not in ending else path


def _said(
    tree: Folder,
    used: Iterable[Path],
    lists: Sequence[Path],
    lines: Mapping[SplitKind, Sequence[str]],
    splits: Mapping[str, frozenset[str]],
    images: ImagesByPath,
) -> Iterator[str]:
    read = sorted(used)
    names = ", ".join(printable(str(file.relative_to(tree.path))) for file in read)
    yield f"its splits are those of {names}"
    if more := [file.name for file in lists if file not in read]:
        yield f"{len(more)} further lists of splits are passed over, such as {printable(more[0])}"
    count = sum(map(len, splits.values()))
    if absent := sum(map(len, lines.values())) - count:
        yield f"{absent:,} images that these lists name are not here, or several have the name"
    if rest := len(images.files) - count:
        yield f"{rest:,} images that are on no list are passed over"
