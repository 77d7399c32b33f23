"""Files that list images: CSV, TSV and JSON lines, `metadata.*` beside images, CoOp's splits."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from driftscope.data.address import WHOLE, Address
from driftscope.data.encoded import FilesOnDisk
from driftscope.data.layouts.found import Found
from driftscope.data.layouts.tables import TABLE_OPTIONS, Rows, open_table, optional_column
from driftscope.data.layouts.tree import Folder, image_suffixes
from driftscope.errors import DataError

LIST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".txt")
_DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": ","}
_METADATA = ("metadata.csv", "metadata.jsonl")
_IMAGE_FOLDERS = ("", "images", "Images", "imgs", "img", "jpg", "train", "test")


def recognise_file(file: Path, address: Address) -> Found:
    """A list given by name.

    Paths are absolute or relative to the file's folder. Columns are found by their usual names
    (path, file_name; label, class; caption, text; split) or given: `list.csv?label=species`.

    Raises:
        DataError: unreadable, or no rows.
    """
    table = read_list(file)
    splits = table.get("split")
    rows: dict[str, dict[str, list[Any]]] = {}
    if splits is None:
        rows[WHOLE] = table
    for name in sorted(set(map(str, splits or ()))):
        chosen = [row for row, split in enumerate(splits or ()) if str(split) == name]
        rows[name] = {key: [values[row] for row in chosen] for key, values in table.items()}
    return _found(address, "list", rows, dict.fromkeys(rows, _starts(file.parent)), file.parent)


def recognise(tree: Folder, address: Address) -> Found | None:
    """A folder whose images a `metadata.csv` or `.jsonl`, or CoOp's split file, tells of."""
    return _of_coop(tree, address) or _of_metadata(tree, address)


def _of_metadata(tree: Folder, address: Address) -> Found | None:
    files = [file for file in tree.files(*_METADATA) if file.name in _METADATA]
    if not tree.num_images or not files:
        return None
    rows: dict[str, dict[str, list[Any]]] = {}
    folders = {}
    layout = "image folder with metadata"
    for file in files:
        table = read_list(file)
        if optional_column("label", list(table), address) is None and (
            optional_column("caption", list(table), address) is None
        ):
            return None  # it says nothing that a number is made of
        if file.parent == Path(tree.path):
            return replace(recognise_file(file, address), layout=layout)
        name = file.relative_to(tree.path).parts[0]
        if name in rows:
            raise DataError(
                f"{address.place} holds several metadata files below {name}; give the list of one "
                f"as the dataset, such as {file}"
            )
        rows[name], folders[name] = table, _starts(file.parent)
    return _found(address, layout, rows, folders, Path(tree.path))


def _of_coop(tree: Folder, address: Address) -> Found | None:
    """`split_zhou_NAME.json`: rows of path, class number and class name for train, val and test."""
    splits = [name for name in tree.others if name.startswith("split_zhou_")]
    if not splits or not tree.num_images:
        return None
    try:
        held = json.loads(Path(tree.path, splits[0]).read_text(encoding="utf-8"))
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
    return _found(address, "CoOp split", rows, dict.fromkeys(rows, starts), None)


def _found(
    address: Address,
    layout: str,
    rows: Mapping[str, Mapping[str, list[Any]]],
    folders: Mapping[str, Sequence[Path]],
    folder: Path | None,
) -> Found:
    table = Rows(rows.__getitem__, lambda split, values: files_of(values, folders[split]))
    splits = dict.fromkeys(rows, table)
    return Found(address, layout, splits, open_table, options=TABLE_OPTIONS, folder=folder)


def files_of(values: Sequence[Any], folders: Sequence[Path]) -> FilesOnDisk:
    """The files that a column of paths names, below the first of the folders that holds one.

    Raises:
        DataError: they are addresses of the web, or images written out as text.
    """
    texts = ["" if value is None else str(value).strip() for value in values]
    first = next((text for text in texts if text), "")
    if "://" in first[:12]:
        raise DataError(
            f"its column of images holds addresses such as {first[:60]!r}; fetch the images first "
            "(img2dataset writes shards that can be read), and list their paths"
        )
    if first.startswith("data:image") or len(first) > 1000:
        raise DataError(
            f"its column of images holds images written out as text ({first[:20]}…); write their "
            "bytes, or list paths of files"
        )
    known = [text for text in texts if text][:5]
    start = next(
        (one for one in folders if any((one / text).is_file() for text in known)), folders[0]
    )
    return FilesOnDisk(tuple(str(start / Path(text).expanduser()) for text in texts))


def _starts(folder: Path) -> tuple[Path, ...]:
    return tuple(folder / name for name in _IMAGE_FOLDERS)


def read_list(file: Path) -> dict[str, list[Any]]:
    """A list's columns as text (007 stays 007), or as JSON lines hold them.

    Raises:
        DataError: unreadable, rows of other lengths than the header, or none.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            if file.suffix.lower() == ".jsonl":
                objects = [json.loads(line) for line in lines if line.strip()]
                keys = list(dict.fromkeys(key for one in objects for key in one))
                return {key: [one.get(key) for one in objects] for key in keys}
            header_line = lines.readline()
            lines.seek(0)
            rows = list(csv.reader(lines, delimiter=_delimiter(file, header_line)))
    except (OSError, ValueError, csv.Error, AttributeError) as error:
        raise DataError(f"cannot read the list {file}: {error}") from None
    rows = [row for row in rows if row]
    if len(rows) < 2:
        raise DataError(f"{file} lists no images: give a header such as path,label and a row each")
    header = [name.strip() for name in rows[0]]
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise DataError(
                f"{file} has {len(row)} values in row {number}, but {len(header)} columns"
            )
    if any(Path(name).suffix.lower() in image_suffixes() for name in header):
        raise DataError(f"{file} has no header; give one above its rows, such as path,label")
    return {name: [row[place] for row in rows[1:]] for place, name in enumerate(header)}


def _delimiter(file: Path, header: str) -> str:
    """The usual one of such files, or `;`, `|` or a tab where the header is full of it."""
    usual = _DELIMITERS[file.suffix.lower()]
    others = [one for one in ("\t", ";", "|", ",") if one in header]
    return usual if usual in header or not others else others[0]
