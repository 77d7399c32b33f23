"""Rows of columns, however they are stored: which column is what, and labels from its values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from jaxtyping import Int64
from torch import Tensor

from driftscope.data.address import COLUMN_KEYS, Address
from driftscope.data.encoded import EncodedImages, EncodedSet
from driftscope.data.layouts.found import Found
from driftscope.errors import DataError

_USUAL_NAMES: Mapping[str, tuple[str, ...]] = {
    "image": (
        "image", "img", "path", "file_name", "filename", "file", "image_path", "filepath",
        "image_name", "jpg", "png", "webp",
    ),
    "label": ("label", "fine_label", "labels", "class", "target", "category", "cls"),
    "caption": ("caption", "captions", "text", "sentence", "sentences", "comment", "txt"),
    "group": (),  # never guessed: which images belong together is the user's knowledge
}  # fmt: skip
_NO_LABEL = frozenset({"-1", "-1.0", "nan", "na", "n/a", "null", "<na>", "nat", "?"})
"""What tables hold, in small letters, where a label is not known."""
_CAPTION_KEYS = ("raw", "caption", "text", "sentence")


class Table(Protocol):
    """Columns of several splits. What is asked of a split is read when it is asked."""

    def columns(self, split: str) -> Sequence[str]:
        """Their names."""

    def image_columns(self, split: str) -> Sequence[str]:
        """Those whose type says that they hold images."""

    def label_names(self, split: str) -> Mapping[str, Sequence[str]]:
        """The class names of the columns whose type says that they hold class numbers."""

    def values(self, split: str, column: str) -> list[Any]:
        """What a column holds, row by row."""

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

    def label_names(self, split: str) -> Mapping[str, Sequence[str]]:  # noqa: ARG002
        """Those of class numbers, by column."""
        return self.names

    def values(self, split: str, column: str) -> list[Any]:
        """A column."""
        return self.held(split)[column]

    def images(self, split: str, column: str) -> EncodedImages:
        """The files that a column names."""
        return self.files(split, self.held(split)[column])


def open_table(found: Found, split: str) -> EncodedSet:
    """A split of a table (the evidence of each split is the same `Table`).

    Raises:
        DataError: no plain image column, a column that there is not, rows without a class.
    """
    table: Table = found.splits[split]
    address = found.address
    columns, typed = table.columns(split), table.label_names(split)
    image = needed_column("image", columns, address, table.image_columns(split))
    label = optional_column("label", columns, address, list(typed))
    caption = optional_column("caption", columns, address)
    group = optional_column("group", columns, address)
    labels, class_names, reason = None, None, ""
    if label and label in typed:
        names = typed[label]
        labels = labels_from_numbers(table.values(split, label), names, address.place, label)
        class_names = tuple(names) if labels is not None else None
    elif label:
        by_split = {
            name: table.values(name, label)
            for name, one in found.splits.items()
            if label in one.columns(name)
        }
        labels, class_names = labels_of_split(by_split, split, address.place, label)
    if label and labels is None:
        reason = f"its {label} says of no image what it is (-1 or empty)"
    return EncodedSet(
        name=address.place,
        split=split,
        encoded=table.images(split, image),
        class_names=class_names,
        labels=labels,
        captions=tuple(map(as_sentences, table.values(split, caption))) if caption else None,
        groups=tuple(map(str, table.values(split, group))) if group else None,
        unlabeled_because=reason,
    )


TABLE_OPTIONS = COLUMN_KEYS


def optional_column(
    role: str, columns: Sequence[str], address: Address, fitting: Sequence[str] = ()
) -> str | None:
    """The column that plays a role: as given, by its usual name, or the only one that fits.

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
    for name in _USUAL_NAMES[role]:
        if name in (fitting or columns):
            return name
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
    if found is None:
        raise DataError(
            f"{address.place} has no column that is plainly the {role} (its columns: "
            f"{', '.join(columns)}); say which: {address.place}?{role}={columns[0]}"
        )
    return found


def labels_from_values(
    values: Sequence[Any], place: str, column: str
) -> tuple[Int64[Tensor, " row"], tuple[str, ...]]:
    """Class indices and names from a column of names; numbered in the order of the names.

    Raises:
        DataError: a row without a class, or with several.
    """
    texts = [_label_text(value, place, column) for value in values]
    unknown = [row for row, text in enumerate(texts) if not text or text.lower() in _NO_LABEL]
    if unknown:
        first = texts[unknown[0]]
        what = f"no class but {first!r} as {column}" if first else f"no {column}"
        raise DataError(
            f"{place} has {what} in {len(unknown)} of {len(texts)} rows (the first is row "
            f"{unknown[0] + 1}); label them or leave them out"
        )
    names = sorted(set(texts), key=_numbers_by_size)
    several = next((name for name in names if "|" in name and _parts(name) <= set(names)), None)
    if several:
        raise DataError(
            f"{place} has rows of several classes, such as {several!r} as {column}; give each "
            "image one class, or leave them out"
        )
    numbers = {name: number for number, name in enumerate(names)}
    return torch.tensor([numbers[text] for text in texts], dtype=torch.int64), tuple(names)


def labels_from_numbers(
    values: Sequence[int | None], names: Sequence[str], place: str, column: str
) -> Int64[Tensor, " row"] | None:
    """Class indices from a column of indices into `names`; None where all say "unknown" (−1).

    Raises:
        DataError: some are unknown, or outside the names.
    """
    if any(isinstance(value, list) for value in values):
        raise DataError(f"{place} holds lists as {column}; give each image one class")
    labels = torch.tensor([-1 if value is None else int(value) for value in values])
    if bool((labels == -1).all()):
        return None
    wrong = (labels < 0) | (labels >= len(names))
    if bool(wrong.any()):
        first = int(wrong.nonzero()[0])
        raise DataError(
            f"{place} has {int(wrong.sum())} rows whose {column} is none of its {len(names)} "
            f"classes (row {first + 1} has {values[first]}); leave them out"
        )
    return labels


def labels_of_split(
    values: Mapping[str, Sequence[Any]], chosen: str, place: str, column: str
) -> tuple[Int64[Tensor, " row"] | None, tuple[str, ...] | None]:
    """Labels of one split from names, numbered over the names of all, so that splits agree.

    None where all rows of the split hide their class (−1, null): so do published test splits.
    """
    known = {name: rows for name, rows in values.items() if not all(map(_is_hidden, rows))}
    if chosen not in known:
        return None, None
    joined = [value for of_split in known.values() for value in of_split]
    labels, names = labels_from_values(joined, place, column)
    before = list(known)[: list(known).index(chosen)]
    start = sum(len(known[name]) for name in before)
    return labels[start : start + len(known[chosen])], names


def as_sentences(value: Any) -> tuple[str, ...]:
    """An image's captions: a sentence, a list of them, or objects that hold one; () for none."""
    if isinstance(value, dict):
        return as_sentences(next((value[key] for key in _CAPTION_KEYS if key in value), None))
    if isinstance(value, list | tuple):
        return tuple(dict.fromkeys(text for one in value for text in as_sentences(one)))
    text = "" if value is None else str(value).strip()
    if text.startswith("[") and text.endswith("]"):  # a list, as CSV holds it
        import ast

        try:
            listed = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            return (text,)
        return as_sentences(listed)
    return (text,) if text.lower() not in ("", "nan", "null", "<na>") else ()


def _label_text(value: Any, place: str, column: str) -> str:
    if isinstance(value, list | dict | tuple):
        raise DataError(
            f"{place} holds lists as {column}, such as {str(value)[:40]}; give each image one "
            "class (of a one-hot row the place of its 1)"
        )
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return str(int(value))  # numbers beside which a table had empty rows
    return "" if value is None else str(value).strip()


def _is_hidden(value: Any) -> bool:
    return value is None or str(value).strip().lower() in _NO_LABEL


def _parts(name: str) -> set[str]:
    return {part.strip() for part in name.split("|")}


def _numbers_by_size(name: str) -> tuple[int, int, str]:
    """2 before 10 where the names are numbers."""
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)
