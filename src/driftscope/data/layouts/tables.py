"""Rows of columns, however they are stored: which column is what, and labels from its values."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Protocol

import torch

from driftscope.data.address import COLUMN_KEYS, Address, split_kind
from driftscope.data.encoded import EncodedImages, EncodedSet, FilesOnDisk, printable, selected
from driftscope.data.layouts.found import Found
from driftscope.data.layouts.labels import (
    YES_AND_NO,
    as_sentences,
    labels_from_numbers,
    labels_of_split,
    words_by_number,
    yes_or_no,
)
from driftscope.data.prompts import plain_words
from driftscope.errors import DataError

_USUAL_NAMES: Mapping[str, tuple[str, ...]] = {
    "image": (
        "image", "img", "path", "file_name", "filename", "file", "image_path", "img_path",
        "file_path", "filepath", "filepaths", "image_name", "image_file", "image_id", "jpg", "png",
        "webp", "img_name", "img_file", "img_id", "image_file_path", "image_filename", "fname",
        "img_filename", "id_code", "uri", "pic", "picture", "photo", "image_url", "url", "id",
    ),
    "label": (
        "label", "fine_label", "labels", "class", "target", "category", "cls", "class_name",
        "label_name", "category_name", "class_label", "class_id", "category_id", "label_id",
        "species", "breed", "diagnosis", "ground_truth", "prediction_string",
    ),
    "caption": (
        "caption", "captions", "text", "sentence", "sentences", "comment", "txt", "raw",
        "title", "alt_text", "description",
    ),
    "group": (),  # never guessed: which images belong together is the user's knowledge
}  # fmt: skip
_OF_ROLES = frozenset(name for names in _USUAL_NAMES.values() for name in names)
_SPLIT_NAMES = ("split", "subset", "partition", "set", "data_set", "usage", "phase")
_SPLIT_FLAGS: Mapping[str, tuple[str, str]] = {
    "is_train": ("test", "train"),
    "is_training": ("test", "train"),
    "is_training_image": ("test", "train"),
    "is_test": ("train", "test"),
    "is_valid": ("train", "validation"),
    "is_val": ("train", "validation"),
}
"""Columns of yes and no that tell of splits, with what no and yes mean."""
_FEWEST_FLAGS = 2
_MOST_FLAGS = 1_000
_LONGEST_SPLIT = 20
_MOST_SPLITS = 10
_SHOWN = 12
_PIXEL = re.compile(r"pixels?_?\d*|\d+x\d+")
"""Columns of one pixel each, or of all of them as text."""
FIRST_ROWS = 8
_ALIKE_CAPTIONS = re.compile(r"(captions?|sentences?|text|raw)_?\d+")


class Table(Protocol):
    """Columns of several splits. What is asked of a split is read when it is asked."""

    def columns(self, split: str) -> Sequence[str]:
        """Their names."""

    def image_columns(self, split: str) -> Sequence[str]:
        """Those whose type says that they hold images."""

    def label_names(self, split: str) -> Mapping[str, Sequence[str]]:
        """The class names of the columns whose type says that they hold class numbers, or lists."""

    def values(self, split: str, column: str) -> list[Any]:
        """What a column holds, row by row."""

    def begins(self, split: str, column: str) -> list[Any]:
        """What some first rows of a column hold, quickly."""

    def images(self, split: str, column: str) -> EncodedImages:
        """The files of an image column.

        Raises:
            DataError: it holds something else.
        """


@dataclass(frozen=True)
class Rows:
    """A `Table` in memory: `held` gives a split's columns, `files` what its image values name."""

    held: Callable[[str], Mapping[str, list[Any]]]
    files: Callable[[str, list[Any]], EncodedImages]
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def columns(self, split: str) -> Sequence[str]:
        """Their names."""
        return list(self.held(split))

    def image_columns(self, split: str) -> Sequence[str]:  # noqa: ARG002
        """None says so by its type."""
        return ()

    def label_names(self, split: str) -> Mapping[str, Sequence[str]]:
        """Those of class numbers, by column."""
        return {column: of for column, of in self.names.items() if column in self.held(split)}

    def values(self, split: str, column: str) -> list[Any]:
        """A column."""
        return self.held(split)[column]

    def begins(self, split: str, column: str) -> list[Any]:
        """Its first rows."""
        return self.held(split)[column][:FIRST_ROWS]

    def images(self, split: str, column: str) -> EncodedImages:
        """The files that a column names."""
        return self.files(split, self.held(split)[column])


@dataclass(frozen=True)
class _Divided:
    """A table whose rows say in a column which split they are of."""

    whole: Table
    split: str
    rows: Mapping[str, Sequence[int]]
    num_blank: int = 0
    """Rows that say none."""

    def columns(self, split: str) -> Sequence[str]:  # noqa: ARG002
        return self.whole.columns(self.split)

    def image_columns(self, split: str) -> Sequence[str]:  # noqa: ARG002
        return self.whole.image_columns(self.split)

    def label_names(self, split: str) -> Mapping[str, Sequence[str]]:  # noqa: ARG002
        return self.whole.label_names(self.split)

    def values(self, split: str, column: str) -> list[Any]:
        values = self.whole.values(self.split, column)
        return [values[row] for row in self.rows[split]]

    def begins(self, split: str, column: str) -> list[Any]:  # noqa: ARG002
        return self.whole.begins(self.split, column)

    def images(self, split: str, column: str) -> EncodedImages:
        return selected(self.whole.images(self.split, column), self.rows[split])


def divided(splits: Mapping[str, Table]) -> Mapping[str, Table]:
    """The splits that a column of a table tells of; the same where there are several, or none.

    A column of another name than `split` counts where all it says are names of splits.
    """
    if len(splits) != 1:
        return splits
    ((name, table),) = splits.items()
    by_plain_name = {_plain(column): column for column in table.columns(name)}
    for usual in _SPLIT_NAMES:
        if usual not in by_plain_name:
            continue
        values = [_text(value) for value in table.values(name, by_plain_name[usual])]
        told = {value for value in values if value}
        if told and (usual == "split" or None not in map(split_kind, told)):
            return _divided_into(table, name, values)
    for usual, (no, yes) in _SPLIT_FLAGS.items():
        if usual in by_plain_name:
            flags = [str(one).lower() for one in table.values(name, by_plain_name[usual])]
            if all(flag in YES_AND_NO for flag in flags):
                return _divided_into(table, name, [(no, yes)[YES_AND_NO[one]] for one in flags])
    images = set(table.image_columns(name))
    for column in table.columns(name):
        has_other_role = column in images or _plain(column) in _OF_ROLES
        if not has_other_role and _tells_splits(table.begins(name, column)):
            values = [_text(value) for value in table.values(name, column)]
            if _tells_splits(values) and len(set(map(split_kind, values))) > 1:
                return _divided_into(table, name, values)
    return splits


def _tells_splits(values: Sequence[Any]) -> bool:
    """Whether all are names of splits, of which there are few and short ones."""
    told = {_text(value) for value in values}
    are_names = all(len(one) < _LONGEST_SPLIT and split_kind(one) for one in told)
    return are_names and 0 < len(told) < _MOST_SPLITS


def _text(value: Any) -> str:
    """What a cell says; "" where it is empty."""
    text = "" if value is None else str(value).strip()
    return "" if text.lower() in ("nan", "none", "null") else text


def divided_by_folder(splits: Mapping[str, Table], address: Address) -> Mapping[str, Table]:
    """The splits that the folders of a list's paths tell of (`train/1.jpg`, `test/2.jpg`).

    The same where not all paths begin so, or all begin alike.
    """
    ((name, table),) = splits.items()
    column = optional_column("image", table.columns(name), address)
    if column is None:
        return splits
    paths = [str(value).replace("\\", "/") for value in table.values(name, column)]
    folders = [path.removeprefix("./").partition("/")[0] for path in paths]
    kinds = {split_kind(folder) for folder in set(folders)}
    is_told = len(kinds) > 1 and None not in kinds and all("/" in path for path in paths)
    return _divided_into(table, name, folders) if is_told else splits


def _divided_into(table: Table, split: str, told: Sequence[str]) -> Mapping[str, Table]:
    """A split of a table as what each of its rows is told to be of."""
    rows: dict[str, list[int]] = {}
    for row, value in enumerate(told):
        rows.setdefault(value, []).append(row)
    num_blank = len(rows.pop("", []))
    return {one: _Divided(table, split, rows, num_blank) for one in sorted(rows)}


def open_table(found: Found, split: str) -> EncodedSet:
    """A split of a table (the evidence of each split is the same `Table`).

    Raises:
        DataError: no plain image column, a column that there is not, rows without a class.
    """
    table: Table = found.splits[split]
    address = found.address
    columns, typed = table.columns(split), table.label_names(split)
    image = needed_column("image", columns, address, table.image_columns(split))
    group = optional_column("group", columns, address)
    captions = _captions(table, split, address)
    images = EncodedSet(
        name=address.place,
        split=split,
        encoded=table.images(split, image),
        captions=captions,
        groups=tuple(map(str, table.values(split, group))) if group else None,
        unlabeled_because=(
            "it tells of captions: give it as the set of --retrieval, or say which column is the "
            f"label: {address.place}?label=COLUMN"
            if captions is not None
            else _no_label_column(columns, address.place)
        ),
    )
    if isinstance(table, _Divided) and table.num_blank:
        note = f"{table.num_blank:,} rows that say no split are passed over"
        images = replace(images, notes=(*images.notes, note))
    of_one = [column for column in typed if not _holds_lists(table, split, column)]
    label = optional_column("label", columns, address, of_one)
    if label is not None:
        images = _labelled(images, found, label, typed.get(label))
        told = [*_only_typed(label, typed, address), *_other_labels(table, split, label)]
        images = replace(images, notes=(*images.notes, *told))
    elif images.captions is None:
        images = _with_one_hot(images, table, {image, group, *table.image_columns(split)})
    _refuse_two_classes(images)
    return images if images.captions is not None else images.by_file()


def _with_one_hot(images: EncodedSet, table: Table, others: Collection[str | None]) -> EncodedSet:
    """With the classes of columns of yes and no, one a class, of which each row says yes once.

    Where some rows say it several times or never, they say why there are no labels.
    """
    split = images.split
    may_be = [
        column
        for column in table.columns(split)
        if column not in others and _plain(column) not in _SPLIT_FLAGS
        if yes_or_no(table.begins(split, column)) is not None
    ]
    if len(may_be) > _MOST_FLAGS:
        reason = (
            f"it has {len(may_be):,} columns of yes and no, and at most {_MOST_FLAGS:,} are read "
            "as classes; write one class an image in a column label"
        )
        return replace(images, unlabeled_because=reason)
    flags = {
        column: of
        for column in may_be
        if (of := yes_or_no(table.values(split, column))) is not None
    }
    if len(flags) < _FEWEST_FLAGS:
        return images
    rows = list(zip(*flags.values(), strict=True))
    shown = ", ".join(list(flags)[:3]) + (", …" if len(flags) > 3 else "")
    if odd := sum(sum(row) != 1 for row in rows):
        reason = (
            f"its columns {shown} say yes or no to one class each, and {odd:,} of its "
            f"{len(rows):,} rows say yes to several or to none; leave those rows out, or write one "
            "class an image in a column label"
        )
        return replace(images, unlabeled_because=reason)
    labels = torch.tensor([row.index(1) for row in rows], dtype=torch.int64)
    note = f"its classes are its {len(flags)} columns of one 1 a row: {shown}"
    return replace(images, labels=labels, class_names=tuple(flags), notes=(*images.notes, note))


def _no_label_column(columns: Sequence[str], place: str) -> str:
    if list(columns) == ["path"]:
        return (
            "it lists paths, of which the classes are not plain; give the folder of the images, "
            "which lists of splits in it divide"
        )
    if len(columns) == 1:
        return "it holds images alone; if folders in it are the classes, unpack it and give those"
    return (
        f"none of its columns ({', '.join(columns)}) is plainly the label; if one is, say which: "
        f"{place}?label=COLUMN"
    )


def _labelled(
    images: EncodedSet, found: Found, label: str, names: Sequence[str] | None
) -> EncodedSet:
    """With the labels of a column: numbers of the given names, or names themselves."""
    place = found.address.place
    by_split = {
        name: table.values(name, label)
        for name, table in found.splits.items()
        if (names is None or name == images.split) and label in table.columns(name)
    }
    if names is not None:
        others = (table.values(split, label) for split, table in found.splits.items()
                  if split != images.split and label in table.columns(split))  # fmt: skip
        of_others = chain.from_iterable(others)
        told = labels_from_numbers(by_split[images.split], names, place, label, of_others)
    else:
        told = labels_of_split(by_split, images.split, place, label)
    if told is None:
        reason = f"its {label} says of no image what it is (-1 or empty)"
        return replace(images, unlabeled_because=reason)
    words: Mapping[str, str] = {}
    if all(map(str.isdecimal, told.class_names)):
        words = _words_beside(found.splits, by_split, label, place)
    return replace(
        images,
        labels=told.labels,
        class_names=told.class_names,
        words=words,
        notes=(*images.notes, *told.notes),
        doubts=(*images.doubts, *told.doubts),
    )


def _words_beside(
    tables: Mapping[str, Table], numbers: Mapping[str, Sequence[Any]], label: str, place: str
) -> dict[str, str]:
    """The words of class numbers, from another column that tells of labels."""
    everywhere = set.intersection(*(set(tables[name].columns(name)) for name in numbers))
    beside = (
        name
        for name in sorted(everywhere - {label})
        if _plain(name) in (*_USUAL_NAMES["label"], "name")
        or _plain(name) in {f"{_plain(label)}_{what}" for what in ("name", "names", "text", "str")}
        or _plain(name) in ("label_text", "label_str", "class_text", "class_str")
    )
    for column in beside:
        values = [value for name in numbers for value in tables[name].values(name, column)]
        joined = [value for of_split in numbers.values() for value in of_split]
        if words := words_by_number(joined, values, place, label):
            return plain_words(words)
    return {}


def _holds_lists(table: Table, split: str, column: str) -> bool:
    """Whether a column may hold several classes a row, which only its name makes the label."""
    return any(isinstance(value, list | tuple) for value in table.begins(split, column))


def _only_typed(label: str, typed: Collection[str], address: Address) -> Iterator[str]:
    """That the labels are of a column of no usual name, for its type alone."""
    is_usual = _plain(label) in _USUAL_NAMES["label"]
    if label in typed and not is_usual and "label" not in address.options:
        yield (
            f"its labels are those of the column {label}, the only one whose type is that of "
            "classes; if they are in another, add ?label=COLUMN"
        )


def _other_labels(table: Table, split: str, label: str) -> Iterator[str]:
    """What is said of other columns of labels that divide the images in another way."""
    values = [str(value) for value in table.values(split, label)]
    for column in table.columns(split):
        if column != label and _plain(column) in _USUAL_NAMES["label"]:
            pairs = set(zip(values, map(str, table.values(split, column)), strict=True))
            if not len(pairs) == len(set(values)) == len({other for _, other in pairs}):
                yield (
                    f"its labels are those of the column {label}, and {column} says others: add "
                    f"?label={column} to read those"
                )


def _captions(table: Table, split: str, address: Address) -> tuple[tuple[str, ...], ...] | None:
    """Every row's captions: of the caption column, or of several that are numbered."""
    columns = table.columns(split)
    column = optional_column("caption", columns, address)
    several = [name for name in columns if _ALIKE_CAPTIONS.fullmatch(_plain(name))]
    chosen = [column] if column else several
    if not chosen:
        return None
    rows = zip(*(table.values(split, name) for name in chosen), strict=True)
    return tuple(as_sentences(list(row)) for row in rows)


def _refuse_two_classes(images: EncodedSet) -> None:
    """Raises `DataError` where rows of the same file say different classes."""
    if images.labels is None or not isinstance(images.encoded, FilesOnDisk):
        return
    seen: dict[str, tuple[int, int]] = {}
    labels = images.labels.tolist()
    for row, (file, label) in enumerate(zip(images.encoded.files, labels, strict=True)):
        first, known = seen.setdefault(file, (row, label))
        if label != known:
            raise DataError(
                f"{images.name} lists the image {printable(file)} under several classes (rows "
                f"{first + 1} and {row + 1}); give each image one class"
            )


TABLE_OPTIONS = COLUMN_KEYS


def optional_column(
    role: str, columns: Sequence[str], address: Address, fitting: Sequence[str] = ()
) -> str | None:
    """The column that plays a role: as given, by its usual name, or the only one that fits.

    Of usual names those come first whose type fits.

    Args:
        role: image, label, caption or group.
        columns: all there are.
        address: what the user said.
        fitting: columns whose type says that they play this role.

    Raises:
        DataError: the column that the user names does not exist, or several fit.
    """
    given = address.options.get(role)
    if given is not None:
        if given not in columns:
            raise DataError(
                f"{address.place} has no column {given!r} for the {role}; its columns are "
                f"{', '.join(columns)}"
            )
        return given
    may_be_untyped = role == "label" or not fitting  # only its type tells what holds images
    for among in (fitting, columns if may_be_untyped else ()):
        by_plain_name = {_plain(name): name for name in reversed(among)}
        for name in _USUAL_NAMES[role]:
            if name in by_plain_name:
                return by_plain_name[name]
    if len(fitting) > 1:
        raise DataError(
            f"{address.place} has several columns that may be the {role} ({', '.join(fitting)}); "
            f"say which: {address.place}?{role}={fitting[0]}"
        )
    return fitting[0] if fitting else None


def needed_column(
    role: str, columns: Sequence[str], address: Address, fitting: Sequence[str] = ()
) -> str:
    """As `optional_column`, but it must be there."""
    found = optional_column(role, columns, address, fitting)
    if not columns:
        raise DataError(f"{address.place} holds rows without a single value")
    if found is None and any(_PIXEL.fullmatch(_plain(name)) for name in columns):
        raise DataError(
            f"{address.place} holds pixels as numbers; write the image of each row to a file "
            "(PIL.Image.fromarray(ARRAY).save), and list their paths"
        )
    if found is None:
        others = [name for name in columns if _plain(name) not in _USUAL_NAMES["label"]]
        shown = ", ".join(columns[:_SHOWN]) + (", …" if len(columns) > _SHOWN else "")
        what_to_do = (
            f"say which: {address.place}?{role}={others[0]}"
            if others
            else "add one called path, of the images' paths"
        )
        raise DataError(
            f"{address.place} has no column that is plainly the {role} (its columns: {shown}); "
            + what_to_do
        )
    return found


def _plain(column: str) -> str:
    """A column's name whatever its capitals and what joins its words (`ClassId`, `class id`)."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", column.strip())
    return re.sub(r"[\s.-]+", "_", apart).lower()
