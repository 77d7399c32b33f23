"""Files that list images: CSV, TSV and JSON lines, `metadata.*` beside images, CoOp's splits."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product, takewhile
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from driftscope.data.address import WHOLE, Address, split_kind
from driftscope.data.encoded import FilesOnDisk, printable
from driftscope.data.layouts.card import noted_names
from driftscope.data.layouts.files_beside import OF_LISTS, no_images
from driftscope.data.layouts.found import Found
from driftscope.data.layouts.labels import holds_caption, is_hidden, without_point
from driftscope.data.layouts.plain_lists import read_plain
from driftscope.data.layouts.split_lists import numbered_splits
from driftscope.data.layouts.tables import (
    TABLE_OPTIONS,
    Rows,
    divided,
    divided_by_folder,
    open_table,
    optional_column,
)
from driftscope.data.layouts.tree import NO_CLASSES, Folder, is_image, walk
from driftscope.data.other_kinds import kind_of_file
from driftscope.data.spellings import composed, file_at
from driftscope.errors import DataError, one_line
from driftscope.files import is_file, read_text, read_values
from driftscope.limits import LIST_MB

LIST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".txt", ".token")
_DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": ",", ".token": "\t"}
_WITHOUT_HEADER = (".txt", ".token")
_METADATA = ("metadata.csv", "metadata.jsonl")
_LONGEST_PATH = 1000
_IMAGE_FOLDERS = ("", "images", "Images", "imgs", "img", "jpg")
_LOOKED_AT = 8
_ENDINGS = ("", ".jpg", ".jpeg", ".png", ".JPEG", ".JPG")


def recognise_file(file: Path, address: Address) -> Found:
    """A list given by name.

    Paths are absolute or relative to the file's folder. Columns are found by their usual names
    (path, file_name; label, class; caption, text; split) or given: `list.csv?label=species`.

    Raises:
        DataError: unreadable, or no rows.
    """
    if told := no_images(file):
        raise DataError(f"{file} lists no images: {told}")
    table = read_list(file)
    if (splits := numbered_splits(file.parent)) and {*table.get("path", ())} == {*splits}:
        table["split"] = [splits[path] for path in table["path"]]
    starts = {WHOLE: image_starts(file.parent, file.stem)}
    return found_lists(
        address, "list", {WHOLE: table}, starts, file.parent, told={WHOLE: file.stem}
    )


def recognise(tree: Folder, address: Address) -> Found | None:
    """A folder whose images a `metadata.csv` or `.jsonl`, or CoOp's split file, tells of."""
    return _of_coop(tree, address) or _of_metadata(tree, address)


def _of_metadata(tree: Folder, address: Address) -> Found | None:
    files = [file for file in tree.files(*_METADATA) if file.name in _METADATA]
    if not tree.num_images or not files:
        return None
    tables = {file: read_list(file) for file in files}
    for table in tables.values():
        roles = (optional_column(role, list(table), address) for role in ("label", "caption"))
        if not any(roles):
            return None  # it says nothing that a number is made of
    root = Path(tree.path)
    named = {file: WHOLE if file.parent == root else file.relative_to(root).parts[0]
             for file in files}  # fmt: skip
    if len(set(named.values())) < len(files) or (WHOLE in named.values() and len(files) > 1):
        raise DataError(
            f"{address.place} holds several metadata files ({files[0]}, {files[1]}); give the list "
            "of one as the dataset"
        )
    for file, table in tables.items():
        tables[file] = _with_class_folders(table, address)
    num_rows = sum(len(next(iter(table.values()))) for table in tables.values())
    notes = []
    if num_rows < tree.num_images:
        notes.append(f"{tree.num_images - num_rows:,} images that no row names are passed over")
    found = found_lists(
        address,
        "image folder with metadata",
        {named[file]: table for file, table in tables.items()},
        {named[file]: image_starts(file.parent) for file in files},
        root,
        notes,
        names=_names_of_numbers(root, list(tables.values())),
    )
    return replace(found, doubts=tuple(_of_other_folders(tables, address)))


def _names_of_numbers(
    root: Path, tables: Sequence[Mapping[str, list[Any]]]
) -> dict[str, Sequence[str]]:
    """The classes that a card notes of columns of class numbers, which a table may hide."""
    return {
        column: names
        for column, names in noted_names(root).items()
        if all(_are_numbers_or_hidden(of.get(column, ()), names) for of in tables)
    }


def _are_numbers_or_hidden(values: Sequence[Any], names: Sequence[str]) -> bool:
    return all(map(is_hidden, values)) or all(
        (text if text in names else without_point(text)).isdecimal()
        for text in (str(value).strip() for value in values)
    )


def _of_other_folders(
    tables: Mapping[Path, Mapping[str, list[Any]]], address: Address
) -> Iterator[str]:
    """What is doubtful where rows say other classes than the class folders that they name."""
    for file, table in tables.items():
        path, label = (optional_column(role, list(table), address) for role in ("image", "label"))
        if path is None or label is None:
            continue
        folders = [composed(Path(_with_slashes(str(one))).parent.name) for one in table[path]]
        labels = [composed(str(one)) for one in table[label]]
        others = sum(map(str.__ne__, folders, labels))
        if others and set(folders) == set(labels):
            yield (
                f"{file.name} says another class than the folder for {others:,} of its "
                f"{len(labels):,} images"
            )


def _with_class_folders(table: dict[str, list[Any]], address: Address) -> dict[str, list[Any]]:
    """A table that says nothing of labels, with those of the class folders of its paths."""
    path = optional_column("image", list(table), address)
    if path is None or optional_column("label", list(table), address):
        return table
    folders = [_with_slashes(str(name)).split("/")[:-1] for name in table[path]]
    names = {of[0] for of in folders if of}
    if {len(of) for of in folders} != {1} or len(names) < 2 or any(map(split_kind, names)):
        return table
    return {**table, "label": [of[0] for of in folders]}


def _of_coop(tree: Folder, address: Address) -> Found | None:
    """`split_zhou_NAME.json`: rows of path, class number and class name for train, val and test."""
    splits = [name for name in tree.others if name.startswith("split_zhou_")]
    if not splits or not tree.num_images:
        return None
    try:
        held = from_json(read_values(Path(tree.path, splits[0]), LIST_MB))
        rows = {
            name: {
                "path": [str(path) for path, _, _ in of_split],
                "label": [str(words) for _, _, words in of_split],
            }
            for name, of_split in held.items()
            if of_split
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    if not rows:
        return None
    starts = tuple(Path(folder.path) for folder in tree.below() if folder.num_images)
    return found_lists(address, "CoOp split", rows, dict.fromkeys(rows, starts), None)


def found_lists(
    address: Address,
    layout: str,
    rows: Mapping[str, Mapping[str, list[Any]]],
    folders: Mapping[str, Sequence[Path]],
    folder: Path | None,
    passed_over: Sequence[str] = (),
    *,
    told: Mapping[str, str] | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
) -> Found:
    """Columns of every split, whose images lie below the first of its folders that holds some.

    `told` is what the list of each split is called, which may tell of what split its images are.
    `names` are the classes of columns of class numbers.
    """
    place, called = address.place, told or {}

    def files(split: str, values: Sequence[Any]) -> FilesOnDisk:
        return files_of(values, folders[split], place, called.get(split, ""))

    table = Rows(rows.__getitem__, files, names or {})
    splits = divided(dict.fromkeys(rows, table))
    if len(splits) == 1:
        splits = divided_by_folder(splits, address)
    return Found(
        address,
        layout,
        splits,
        open_table,
        options=TABLE_OPTIONS,
        folder=folder,
        passed_over=tuple(passed_over),
    )


def files_of(
    values: Sequence[Any], folders: Sequence[Path], place: str, told: str = ""
) -> FilesOnDisk:
    """The files that a column of paths names, of a list that is called `told`.

    They are looked for below the first folder as they are written, then below the one other that
    holds some of them, then by their names alone, with or without an ending, anywhere below the
    first folder; then in the same ways from the folder above, whose other folders count for the
    last way only where the first is one of lists (`annotations/`).

    Raises:
        DataError: they are addresses of the web, or images written out as text; two files have
            the name of one row.
    """
    texts = ["" if value is None else str(value).strip() for value in values]
    texts = [text.removeprefix("file://") for text in texts]
    first = next((text for text in texts if text), "")
    if "://" in first[:12]:
        raise DataError(
            f"the image column of {place} holds addresses such as {first[:60]!r}; fetch the images "
            "first (img2dataset writes shards that can be read), and list their paths"
        )
    if first.startswith("data:image") or len(first) > _LONGEST_PATH:
        raise DataError(
            f"the image column of {place} holds images written out as text ({first[:20]}…); write "
            "their bytes, or list paths of files"
        )
    named = [text for text in texts if text]
    texts = [text or f"(no path in row {row})" for row, text in enumerate(texts, 1)]
    some = named[:: max(1, len(named) // _LOOKED_AT)]
    root, above = folders[0], folders[0].parent
    is_of_lists = OF_LISTS.fullmatch(root.name) is not None
    ways: tuple[Callable[[], tuple[str, ...] | None], ...] = (
        lambda: _as_written(texts, some, folders),
        lambda: _by_name(texts, some, root, place),
        lambda: _as_written(texts, some, image_starts(above, told)),
        lambda: _by_name(texts, some, above, place) if is_of_lists else None,
        lambda: _by_name(texts, some, root, place, are_drawn_over=True),
    )
    found = next(filter(None, (way() for way in ways)), None)
    return FilesOnDisk(found or tuple(str(root / text) for text in texts))


def _as_written(
    texts: Sequence[str], some: Sequence[str], starts: Sequence[Path]
) -> tuple[str, ...] | None:
    """The paths from the first of the starts, or from the one other that holds some of them."""
    for are_slashes, ending in product((False, True), _ENDINGS):
        paths = [_with_slashes(text) for text in texts] if are_slashes else texts
        looked_at = [_with_slashes(text) for text in some] if are_slashes else some
        holding = [start for start in starts if _holds(start, looked_at, ending)]
        if holding and (holding[0] == starts[0] or len(holding) == 1):
            return tuple(str(file_at(holding[0], path + ending)) for path in paths)
    return None


def _holds(start: Path, paths: Sequence[str], ending: str) -> bool:
    """Whether one of the paths is a file below a folder; with an ending added, whether all are."""
    are_files = (is_file(file_at(start, path + ending)) for path in paths)
    return bool(paths) and (all(are_files) if ending else any(are_files))


def _by_name(
    texts: Sequence[str],
    some: Sequence[str],
    folder: Path,
    place: str,
    *,
    are_drawn_over: bool = False,
) -> tuple[str, ...] | None:
    """The images below a folder that have the names, with or without an ending.

    Masks and other pictures that were drawn over images are meant where it is said, alone.
    """
    below: dict[str, list[str]] = {}
    for path in walk(folder).image_files():
        folders = Path(path[len(str(folder)) :]).parts[:-1]
        if any(map(NO_CLASSES.fullmatch, folders)) == are_drawn_over:
            name = _file_name(path)
            for key in {name, name.rpartition(".")[0] or name}:
                below.setdefault(key, []).append(path)
    if not any(_file_name(text) in below for text in some):
        return None
    return tuple(_known_by_name(text, below, folder, place) for text in texts)


def _known_by_name(text: str, below: Mapping[str, list[str]], folder: Path, place: str) -> str:
    found = below.get(_file_name(text), [str(folder / text)])
    if len(found) > 1:  # those of the most folders that the path names
        shared = {path: _num_shared_parts(path, text) for path in found}
        if max(shared.values()) > 1:
            found = [path for path in found if shared[path] == max(shared.values())]
    if len(found) > 1:
        raise DataError(
            f"{place} names the image {text}, and there are {len(found)} of that name: "
            f"{printable(found[0])} and {printable(found[1])}; write paths from the list's folder"
        )
    return found[0]


def _num_shared_parts(path: str, text: str) -> int:
    """How many parts two paths have in common, from the end, whatever the endings of files."""
    folders = [Path(composed(_with_slashes(one))).parent.parts[::-1] for one in (path, text)]
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(*folders, strict=False))
    return 1 + sum(1 for _ in alike)


def _file_name(path: str) -> str:
    return composed(_with_slashes(path).rpartition("/")[2])


def _with_slashes(path: str) -> str:
    """A path of Windows as others write it."""
    return path.replace("\\", "/")


def image_starts(folder: Path, told: str = "") -> tuple[Path, ...]:
    """Where the paths of a list may start: its folder, or one of images or of a split in it.

    Of a list whose name tells its split (`instances_val2017`) only the folders of that split count,
    and of those the one that the name ends in.
    """
    kinds = set(map(split_kind, re.split(r"[\W_]+", told))) - {None}
    splits = [
        one
        for above in (folder, folder / "images")
        for one in _folders_in(above)
        if (kind := split_kind(one.name)) and (len(kinds) != 1 or kind in kinds)
    ]
    if len(kinds) == 1:
        splits = [one for one in splits if told.endswith(one.name)] or splits
    return (*(folder / name for name in _IMAGE_FOLDERS), *splits)


def _folders_in(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(one.path) for one in entries if one.is_dir())
    except OSError:  # there is none, or it may not be looked into
        return []


def read_list(file: Path) -> dict[str, list[Any]]:
    """A list's columns as text (007 stays 007), or as JSON holds them.

    Raises:
        DataError: unreadable, rows of other lengths than the header, or none.
    """
    try:
        text = read_text(file, LIST_MB, "utf-8-sig")
        if file.suffix.lower() in _WITHOUT_HEADER and (plain := read_plain(file.name, text)):
            return plain
        with io.StringIO(text, newline="") as lines:
            if file.suffix.lower() == ".jsonl":
                return columns_of([from_json(line) for line in lines if line.strip()])
            header_line = lines.readline()
            lines.seek(0)
            rows = list(csv.reader(lines, delimiter=_delimiter(file, header_line)))
    except UnicodeDecodeError:
        raise DataError(
            f"cannot read the list {file}: it is no UTF-8 text; save it as UTF-8"
            + (f" (it is {kind})" if (kind := kind_of_file(file)) else "")
        ) from None
    except (OSError, ValueError, csv.Error, AttributeError) as error:
        raise DataError(f"cannot read the list {file}: {one_line(error)}") from None
    rows = [row for row in rows if row]
    if len(rows) < 2:
        raise DataError(f"{file} lists no images: give a header such as path,label and a row each")
    header = [name.strip() for name in rows[0]]
    _check_header(file, header, rows[1])
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise DataError(
                f"{file} has {len(row)} values in row {number}, but {len(header)} columns"
                + ("; put quotes around values with a comma" if len(row) > len(header) else "")
            )
    return {name: [row[place] for row in rows[1:]] for place, name in enumerate(header)}


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Objects by their keys, those within them as `label.name`; None where one lacks a key."""
    flat = [_unfolded(one) for one in rows]
    keys = list(dict.fromkeys(key for one in flat for key in one))
    return {key: [one.get(key) for one in flat] for key in keys}


def _unfolded(row: Mapping[str, Any]) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict) and not holds_caption(value):
            parts |= {f"{key}.{inner}": held for inner, held in value.items()}
        else:
            parts[key] = value
    return parts


def _check_header(file: Path, header: Sequence[str], first: Sequence[str]) -> None:
    words = [word for name in header for word in name.split()]
    are_values = any(is_image(word.partition("#")[0]) or "/" in word for word in words)
    if are_values or all(map(str.isdecimal, header)):
        numbered = any("#" in word for word in words)
        raise DataError(
            f"{file} has no header; give one above its rows, such as "
            f"{'path,caption' if numbered else 'path,label'}, and a comma or tab between the values"
            + (", and cut what stands from the # on behind each image's name" if numbered else "")
            + ("; or give the folder of the images, which lists of splits in it divide"
               if split_kind(file.stem) and len(header) == 1 else "")
        )  # fmt: skip
    if len(header) == 1 and len(words) > 1 and not is_image(first[0]):
        raise DataError(
            f"{file} has spaces between its values (its first line is {header[0][:60]!r}); write a "
            "list with a header such as path,label and commas between, in the folder of the images"
        )
    if twice := [name for name, count in Counter(header).items() if name and count > 1]:
        raise DataError(f"{file} has two columns {twice[0]!r}; name each once")


def _delimiter(file: Path, header: str) -> str:
    """The usual one of such files, or `;`, `|` or a tab where the header is full of it."""
    usual = _DELIMITERS[file.suffix.lower()]
    others = [one for one in ("\t", ";", "|", ",") if one in header]
    return usual if usual in header or not others else others[0]
