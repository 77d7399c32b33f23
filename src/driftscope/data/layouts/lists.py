"""Files that list images: CSV, TSV and JSON lines, `metadata.*` beside images, CoOp's splits."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from driftscope.data.address import WHOLE, Address
from driftscope.data.encoded import FilesOnDisk, printable
from driftscope.data.layouts.found import Found
from driftscope.data.layouts.tables import (
    TABLE_OPTIONS,
    Rows,
    divided,
    divided_by_folder,
    open_table,
    optional_column,
)
from driftscope.data.layouts.tree import Folder, image_suffixes, walk
from driftscope.data.other_kinds import kind_of_file
from driftscope.errors import DataError
from driftscope.files import named_path, read_bytes, read_text
from driftscope.limits import LIST_MB

LIST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".txt")
_DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": ","}
_METADATA = ("metadata.csv", "metadata.jsonl")
_LONGEST_PATH = 1000
_IMAGE_FOLDERS = ("", "images", "Images", "imgs", "img", "jpg", "train", "test")


def recognise_file(file: Path, address: Address) -> Found:
    """A list given by name.

    Paths are absolute or relative to the file's folder. Columns are found by their usual names
    (path, file_name; label, class; caption, text; split) or given: `list.csv?label=species`.

    Raises:
        DataError: unreadable, or no rows.
    """
    rows = {WHOLE: read_list(file)}
    return found_lists(address, "list", rows, {WHOLE: image_starts(file.parent)}, file.parent)


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
    num_rows = sum(len(next(iter(table.values()))) for table in tables.values())
    notes = []
    if num_rows < tree.num_images:
        notes.append(f"{tree.num_images - num_rows:,} images that no row names are passed over")
    return found_lists(
        address,
        "image folder with metadata",
        {named[file]: table for file, table in tables.items()},
        {named[file]: image_starts(file.parent) for file in files},
        root,
        notes,
    )


def _of_coop(tree: Folder, address: Address) -> Found | None:
    """`split_zhou_NAME.json`: rows of path, class number and class name for train, val and test."""
    splits = [name for name in tree.others if name.startswith("split_zhou_")]
    if not splits or not tree.num_images:
        return None
    try:
        held = from_json(read_bytes(Path(tree.path, splits[0]), LIST_MB))
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
) -> Found:
    """Columns of every split, whose images lie below the first of its folders that holds some."""
    place = address.place
    table = Rows(rows.__getitem__, lambda split, values: files_of(values, folders[split], place))
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


def files_of(values: Sequence[Any], folders: Sequence[Path], place: str) -> FilesOnDisk:
    """The files that a column of paths names.

    They are looked for below the first of the folders that holds one of them as it is written.
    Where none does, they are known by their names alone, with or without an ending, anywhere below
    the first folder.

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
    known = [text for text in texts if text][:5]
    for written in (str, _with_slashes):
        for start in folders:
            if any(_at(start, written(text)).is_file() for text in known):
                return FilesOnDisk(tuple(str(_at(start, written(text))) for text in texts))
    below = _by_name(folders[0])
    if any(_file_name(text) in below for text in known):
        return FilesOnDisk(tuple(_known_by_name(text, below, folders[0], place) for text in texts))
    return FilesOnDisk(tuple(str(folders[0] / text) for text in texts))


def _by_name(folder: Path) -> dict[str, list[str]]:
    """The images below a folder by their names, and by their names without the ending."""
    below: dict[str, list[str]] = {}
    for path in walk(folder).image_files():
        name = _file_name(path)
        below.setdefault(name, []).append(path)
        if (stem := name.rpartition(".")[0]) != name:
            below.setdefault(stem, []).append(path)
    return below


def _known_by_name(text: str, below: Mapping[str, list[str]], folder: Path, place: str) -> str:
    found = below.get(_file_name(text), [str(folder / text)])
    if len(found) > 1:
        raise DataError(
            f"{place} names the image {text}, and there are {len(found)} of that name: "
            f"{printable(found[0])} and {printable(found[1])}; write paths from the list's folder"
        )
    return found[0]


def _file_name(path: str) -> str:
    return _with_slashes(path).rpartition("/")[2]


def _with_slashes(path: str) -> str:
    """A path of Windows as others write it."""
    return path.replace("\\", "/")


def _at(start: Path, path: str) -> Path:
    return start / named_path(path)


def image_starts(folder: Path) -> tuple[Path, ...]:
    """Where the paths of a list may start: its folder, or one of images in it."""
    return tuple(folder / name for name in _IMAGE_FOLDERS)


def read_list(file: Path) -> dict[str, list[Any]]:
    """A list's columns as text (007 stays 007), or as JSON holds them.

    Raises:
        DataError: unreadable, rows of other lengths than the header, or none.
    """
    try:
        with io.StringIO(read_text(file, LIST_MB, "utf-8-sig"), newline="") as lines:
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
        raise DataError(f"cannot read the list {file}: {error}") from None
    rows = [row for row in rows if row]
    if len(rows) < 2:
        raise DataError(f"{file} lists no images: give a header such as path,label and a row each")
    header = [name.strip() for name in rows[0]]
    _check_header(file, header, rows[1])
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise DataError(
                f"{file} has {len(row)} values in row {number}, but {len(header)} columns"
            )
    return {name: [row[place] for row in rows[1:]] for place, name in enumerate(header)}


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Objects by their keys; None where one lacks a key."""
    keys = list(dict.fromkeys(key for one in rows for key in one))
    return {key: [one.get(key) for one in rows] for key in keys}


def _check_header(file: Path, header: Sequence[str], first: Sequence[str]) -> None:
    words = [word for name in header for word in name.split()]
    if any(_is_image_name(word.partition("#")[0]) for word in words):
        numbered = any("#" in word for word in words)
        raise DataError(
            f"{file} has no header; give one above its rows, such as "
            f"{'path,caption' if numbered else 'path,label'}, and a comma or tab between the values"
            + (", and cut what stands from the # on behind each image's name" if numbered else "")
        )
    if len(header) == 1 and len(words) > 1 and not _is_image_name(first[0]):
        raise DataError(
            f"{file} has spaces between its values (its first line is {header[0][:60]!r}); write a "
            "list with a header such as path,label and commas between, in the folder of the images"
        )
    if twice := [name for name in header if name and header.count(name) > 1]:
        raise DataError(f"{file} has two columns {twice[0]!r}; name each once")


def _is_image_name(text: str) -> bool:
    return Path(text).suffix.lower() in image_suffixes()


def _delimiter(file: Path, header: str) -> str:
    """The usual one of such files, or `;`, `|` or a tab where the header is full of it."""
    usual = _DELIMITERS[file.suffix.lower()]
    others = [one for one in ("\t", ";", "|", ",") if one in header]
    return usual if usual in header or not others else others[0]
