"""Which column of a table is the image, the label, the caption; and labels from values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from driftscope.data.address import Address
from driftscope.errors import DataError

_USUAL_NAMES: Mapping[str, tuple[str, ...]] = {
    "image": ("image", "img", "path", "file_name", "filename", "file", "image_path", "filepath"),
    "label": ("label", "fine_label", "labels", "class", "target", "category"),
    "caption": ("caption", "captions", "text", "sentence", "sentences"),
    "group": (),  # never guessed: which images belong together is the user's knowledge
}


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
        DataError: a row without a value.
    """
    texts = ["" if value is None else str(value).strip() for value in values]
    if "" in texts:
        raise DataError(
            f"{place} has no {column} in {texts.count('')} of {len(texts)} rows (the first is row "
            f"{texts.index('') + 1}); label them or leave them out"
        )
    names = sorted(set(texts), key=_numbers_by_size)
    numbers = {name: number for number, name in enumerate(names)}
    return torch.tensor([numbers[text] for text in texts], dtype=torch.int64), tuple(names)


def labels_from_numbers(
    values: Sequence[int | None], names: Sequence[str], place: str, column: str
) -> Int64[Tensor, " row"] | None:
    """Class indices from a column of indices into `names`; None where all say "unknown" (−1).

    Raises:
        DataError: some are unknown, or outside the names.
    """
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
) -> tuple[Int64[Tensor, " row"], tuple[str, ...]]:
    """Labels of one split from names, numbered over the names of all, so that splits agree."""
    joined = [value for of_split in values.values() for value in of_split]
    labels, names = labels_from_values(joined, place, column)
    before = list(values)[: list(values).index(chosen)]
    start = sum(len(values[name]) for name in before)
    return labels[start : start + len(values[chosen])], names


def as_sentences(value: Any) -> tuple[str, ...]:
    """An image's captions: one sentence, or a list of them."""
    return tuple(str(one) for one in value) if isinstance(value, list) else (str(value),)


def _numbers_by_size(name: str) -> tuple[int, int, str]:
    """2 before 10 where the names are numbers."""
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)
