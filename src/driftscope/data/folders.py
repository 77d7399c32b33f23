"""Folders of image files: one folder a class, or flat and unlabeled; and CSV lists of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from driftscope.data.address import SPLIT_NAMES, WHOLE, Address, choose_split
from driftscope.data.columns import labels_from_values, needed_column, optional_column
from driftscope.data.encoded import EncodedSet, FilesOnDisk
from driftscope.errors import DataError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
LIST_SUFFIXES = {".csv": ",", ".tsv": "\t"}

_IGNORED_FOLDERS = frozenset({"__MACOSX", "@eaDir"})


def folder_splits(folder: Path) -> tuple[str, ...]:
    """The split folders in it; `("all",)` where the images are not divided.

    Folders named train and test are splits only if no other folder lies beside them: CIFAR-100
    has a class of trains.
    """
    names = [entry.name for entry in _visible(folder) if entry.is_dir()]
    return tuple(names) if names and SPLIT_NAMES.issuperset(names) else (WHOLE,)


def open_folder(folder: Path, split: str, address: Address) -> EncodedSet:
    """The images under a folder, or under that of its folders which is the split.

    A folder of folders is labeled: each is a class, with all images in it however deep. Classes
    are numbered by name over all splits, so that splits agree. Hidden files and folders are
    left out, links are followed.

    Raises:
        DataError: a folder cannot be opened, or there is no image in it.
    """
    splits = folder_splits(folder)
    chosen = choose_split(split, splits, address)
    roots = {name: folder if name == WHOLE else folder / name for name in splits}
    root = roots[chosen]
    flat = [entry for entry in _visible(root) if _is_image(entry)]
    by_class = {
        entry.name: files
        for entry in _visible(root)
        if entry.is_dir() and (files := list(_images_below(entry)))
    }
    if flat and by_class:
        raise DataError(
            f"{root} holds both loose images ({flat[0].name}) and folders of images "
            f"({next(iter(by_class))}); give a flat folder, or one folder a class"
        )
    if flat:
        return EncodedSet(address.place, chosen, FilesOnDisk(tuple(flat)))
    if not by_class:
        raise DataError(
            f"no images in {root}: looked for {', '.join(sorted(IMAGE_SUFFIXES))} in it and in "
            "its folders, one folder a class"
        )
    classes = tuple(sorted(by_class.keys() | _classes_of(roots.values())))
    labels = [classes.index(name) for name, files in by_class.items() for _ in files]
    return EncodedSet(
        name=address.place,
        split=chosen,
        encoded=FilesOnDisk(tuple(file for files in by_class.values() for file in files)),
        class_names=classes,
        labels=torch.tensor(labels),
    )


def open_list(file: Path, split: str, address: Address) -> EncodedSet:
    """A CSV (or TSV) with a header: a column of paths, and what else is known of each image.

    Paths are absolute or relative to the file's folder. Columns are found by their usual names
    (path, file_name; label, class; caption, text; split) or given: `list.csv?label=species`.

    Raises:
        DataError: unreadable, no such column, no rows of this split.
    """
    table = _read_table(file)
    columns = list(table)
    place = address.place
    paths = table[needed_column("image", columns, address)]
    label_column = optional_column("label", columns, address)
    caption_column = optional_column("caption", columns, address)
    splits = table.get("split") or [WHOLE] * len(paths)
    chosen = choose_split(split, sorted(set(splits)), address)
    rows = [row for row, name in enumerate(splits) if name == chosen]
    labels, class_names = None, None
    if label_column:
        # numbered over all splits, so that splits agree
        labels, class_names = labels_from_values(table[label_column], place, label_column)
        labels = labels[rows]
    group_column = optional_column("group", columns, address)
    return EncodedSet(
        name=place,
        split=chosen,
        encoded=FilesOnDisk(tuple(file.parent / Path(paths[row]).expanduser() for row in rows)),
        class_names=class_names,
        labels=labels,
        captions=tuple((table[caption_column][row],) for row in rows) if caption_column else None,
        groups=tuple(table[group_column][row] for row in rows) if group_column else None,
    )


def list_splits(file: Path) -> tuple[str, ...]:
    """The values of a list's `split` column; `("all",)` where it has none."""
    return tuple(sorted(set(_read_table(file).get("split", [WHOLE]))))


def _read_table(file: Path) -> dict[str, list[str]]:
    """A list's columns as text: 007 stays 007."""
    import csv

    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            rows = list(csv.reader(lines, delimiter=LIST_SUFFIXES[file.suffix.lower()]))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
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
    return {name: [row[place] for row in rows[1:]] for place, name in enumerate(header)}


def _classes_of(roots: Iterable[Path]) -> set[str]:
    return {
        entry.name
        for root in roots
        for entry in _visible(root)
        if entry.is_dir() and next(_images_below(entry), None) is not None
    }


def _images_below(folder: Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Images in it and in its folders, by name; a link to a folder above is not followed."""
    real = os.path.realpath(folder)
    if real in above:
        return
    for entry in _visible(folder):
        if entry.is_dir():
            yield from _images_below(entry, above | {real})
        elif _is_image(entry):
            yield entry


def _is_image(path: Path) -> bool:
    """By its name; a link that points nowhere counts, so that it is named and not left out."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir()


def _visible(folder: Path) -> list[Path]:
    """What is in a folder, by name, without hidden things and what archivers leave."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(
            f"cannot look into the folder {folder}: {error.strerror or error}"
        ) from None
    return [
        entry
        for entry in entries
        if not entry.name.startswith(".") and entry.name not in _IGNORED_FOLDERS
    ]
