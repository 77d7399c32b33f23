"""Labels and captions from the values of a column, and what of them is none."""

from __future__ import annotations

import ast
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from driftscope.data.address import WHOLE
from driftscope.data.spellings import common_names, composed, told_of_spellings
from driftscope.errors import DataError

_NO_CLASSES = ("background", "none", "unknown", "void", "other", "unlabeled")
"""Names that hold the place of the first class and are of none."""
_NO_LABEL = re.compile(
    r"(?i)|-+|-\d+(\.0+)?|[-+]?inf|nan|na|n/a|null|<na>|nat|\?|unlabell?ed|undefined|not labell?ed"
)
"""What tables hold where a label is not known; numbers of classes are not negative."""
_BYTES_AS_TEXT = re.compile(r"b(['\"]).*\1")
_NUMBERS_AS_TEXT = re.compile(r"\[[-+\d.,\seE]*\]")
YES_AND_NO = {"0": 0, "0.0": 0, "false": 0, "no": 0, "1": 1, "1.0": 1, "true": 1, "yes": 1}
_WHOLE_NUMBER = re.compile(r"(\d+)\.0+")
_BOXES_OF_ONE = re.compile(r"(n\d{8})( \d+){4}( \1( \d+){4})*")
"""What Kaggle's ImageNet says of an image: its WordNet id before each of its boxes."""
_CAPTION_KEYS = ("raw", "caption", "text", "sentence")
_BETWEEN_CLASSES = "|;,+&"
"""What stands between the classes of an image that has several."""
_PLAINLY_BETWEEN = "|;"


def labels_from_values(
    values: Sequence[Any], place: str, column: str
) -> tuple[Int64[Tensor, " row"], tuple[str, ...]]:
    """Class indices and names from a column of names; numbered in the order of the names.

    Raises:
        DataError: a row without a class, or with several.
    """
    texts = _label_texts(values, place, column)
    are_none = set(filter(_NO_LABEL.fullmatch, set(texts)))
    unknown = [row for row, text in enumerate(texts) if text in are_none]
    if unknown:
        first = texts[unknown[0]]
        what = f"no class but {first!r} as {column}" if first else f"no {column}"
        raise DataError(
            f"{place} has {what} in {len(unknown)} of {len(texts)} rows (the first is row "
            f"{unknown[0] + 1}); label them or leave them out"
        )
    names = sorted(set(texts), key=_numbers_by_size)
    _refuse_no_names(names, place, column)
    several = next((name for name in names if _is_several(name, set(names))), None)
    if several := several or _are_several(names):
        raise DataError(
            f"{place} has rows of several classes, such as {several!r} as {column}; give each "
            "image one class, or leave them out"
        )
    numbers = {name: number for number, name in enumerate(names)}
    return torch.tensor([numbers[text] for text in texts], dtype=torch.int64), tuple(names)


def _refuse_no_names(names: Sequence[str], place: str, column: str) -> None:
    """Raises DataError where names are bytes that are no text, or one number in two spellings."""
    if odd := next((name for name in names if not name.isprintable()), None):
        raise DataError(
            f"{place} holds bytes that are no text as {column}, such as {odd[:20]!r}; write each "
            "class as text, such as its number in digits"
        )
    by_number: dict[int, str] = {}
    for name in filter(str.isdecimal, names):
        if (other := by_number.setdefault(int(name), name)) != name:
            raise DataError(
                f"{place} holds the class number {int(name)} in two spellings as {column}, {other} "
                f"and {name}; write it in one"
            )


class SplitLabels(NamedTuple):
    """Class indices of a split, the classes' names, and what is said of those.

    Attributes:
        labels: one a row.
        class_names: of all splits.
        notes: what was read in another way than it is written.
        doubts: what may make every label another class.
    """

    labels: Int64[Tensor, " row"]
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def labels_from_numbers(
    values: Sequence[Any],
    names: Sequence[str],
    place: str,
    column: str,
    of_other_splits: Iterable[Any] = (),
) -> SplitLabels | None:
    """Class indices from a column of indices into `names`, or of names themselves.

    None where all rows say "unknown" (−1). The values of other splits may show that numbers count
    from 0; they are looked at only where this is in doubt.

    Raises:
        DataError: some are unknown, or outside the names.
    """
    common = common_names({WHOLE: names})
    names = [common[name] for name in names]
    by_name = {name: number for number, name in enumerate(names)}
    labels = torch.tensor([_class_number(value, by_name, place, column) for value in values])
    if bool((labels == -1).all()):
        return None
    numbers = set(labels.tolist()) - {-1}
    if min(numbers) == 1 and max(numbers) == len(names):
        raise DataError(
            f"{place} numbers its {len(names)} classes from 1 to {len(names)} as {column}, and "
            f"their names from 0, {names[0]!r}; subtract 1 from each number"
        )
    wrong = (labels < 0) | (labels >= len(names))
    if bool(wrong.any()):
        first = int(wrong.nonzero()[0])
        raise DataError(
            f"{place} has {int(wrong.sum())} rows whose {column} is none of its {len(names)} "
            f"classes (row {first + 1} has {values[first]}); leave them out"
        )
    doubts = []
    if (
        len(names) > 2
        and numbers == set(range(1, len(names)))
        and names[0].strip("_").casefold() not in _NO_CLASSES
        and not any(_label_text(one, place, column) in ("0", names[0]) for one in of_other_splits)
    ):
        doubts.append(
            f"no row is of its first class, {names[0]!r}, and of each other some are: if its "
            f"{column} counts from 1, every image has the class after its own; subtract 1 from "
            "each number"
        )
    return SplitLabels(labels, tuple(names), doubts=tuple(doubts))


def _class_number(value: Any, by_name: Mapping[str, int], place: str, column: str) -> int:
    text = composed(_label_text(value, place, column))
    if text.isdecimal():
        return int(text)
    if _NO_LABEL.fullmatch(text):
        return -1
    if text not in by_name:
        raise DataError(
            f"{place} holds {text[:40]!r} as {column}, which is neither the number nor the name of "
            f"one of its {len(by_name)} classes"
        )
    return by_name[text]


def words_by_number(
    numbers: Sequence[Any], words: Sequence[Any], place: str, column: str
) -> dict[str, str]:
    """Words of classes that are numbers, from a column beside theirs; {} where it does not tell.

    Every number must have one word and every word one number.
    """
    pairs = {
        (_label_text(number, place, column), as_word)
        for number, word in zip(numbers, words, strict=True)
        if isinstance(word, str) and (as_word := word.strip()) and not is_hidden(number)
    }
    by_number = dict(sorted(pairs))
    is_plain = len(pairs) == len(by_number) == len(set(by_number.values()))
    return by_number if is_plain and not any(map(str.isdecimal, by_number.values())) else {}


def labels_of_split(
    values: Mapping[str, Sequence[Any]], chosen: str, place: str, column: str
) -> SplitLabels | None:
    """Labels of one split from names, numbered over the names of all, so that splits agree.

    None where all rows of the split hide their class (−1, null): so do published test splits.

    Raises:
        DataError: a row without a class, or with several; numbers in one split, words in another.
    """
    known = {name: rows for name, rows in values.items() if not all(map(is_hidden, rows))}
    if chosen not in known:
        return None
    numbered = [name for name, rows in known.items() if all(map(_is_number, _different(rows)))]
    worded = [name for name, rows in known.items() if not any(map(_is_number, _different(rows)))]
    if numbered and worded:
        raise DataError(
            f"{place} holds numbers as {column} in its split {numbered[0]}, and words in its split "
            f"{worded[0]}; write the classes of both in one way"
        )
    texts = {name: _label_texts(rows, place, column) for name, rows in known.items()}
    spelled = {name: set(of_split) for name, of_split in texts.items()}
    common = common_names(spelled)
    joined = [common[text] for of_split in texts.values() for text in of_split]
    labels, names = labels_from_values(joined, place, column)
    before = list(known)[: list(known).index(chosen)]
    start = sum(len(known[name]) for name in before)
    of_chosen = labels[start : start + len(known[chosen])]
    return SplitLabels(of_chosen, names, told_of_spellings(spelled))


def yes_or_no(values: Sequence[Any]) -> list[int] | None:
    """A column of yes and no (also 1 and −1) as 1 and 0; None for any other."""
    texts = [str(value).strip().lower() for value in values]
    if set(texts) <= {"1", "-1"}:
        return [int(text == "1") for text in texts]
    if all(text in YES_AND_NO for text in texts):
        return [YES_AND_NO[text] for text in texts]
    return None


def as_sentences(value: Any) -> tuple[str, ...]:
    """An image's captions: a sentence, a list of them, or objects that hold one; () for none."""
    if isinstance(value, dict):
        return as_sentences(next((value[key] for key in _CAPTION_KEYS if key in value), None))
    if isinstance(value, list | tuple):
        return tuple(dict.fromkeys(text for one in value for text in as_sentences(one)))
    text = "" if value is None else str(value).strip()
    if (listed := _listed(text)) is not None:
        return as_sentences(listed)
    return (text,) if text.lower() not in ("", "nan", "null", "<na>") else ()


def holds_caption(value: Mapping[str, Any]) -> bool:
    """Whether an object is a caption, as COCO's and Karpathy's are."""
    return any(key in value for key in _CAPTION_KEYS)


def _listed(text: str) -> list[Any] | None:
    """The list that a text writes out, as CSV holds one; None for any other text."""
    if not (text.startswith("[") and text.endswith("]")):
        return None
    if _NUMBERS_AS_TEXT.fullmatch(text):  # numpy writes no commas
        return re.findall(r"[^\s,\[\]]+", text)
    try:
        listed = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return listed if isinstance(listed, list) else None


def _label_texts(values: Sequence[Any], place: str, column: str) -> list[str]:
    """The text of every row's label; that of a text is looked at once, of a million rows or two."""
    known: dict[str, str] = {}
    texts = []
    for value in values:
        text = known.get(value) if isinstance(value, str) else None
        if text is None:
            text = _label_text(value, place, column)
            if isinstance(value, str):
                known[value] = text
        texts.append(text)
    return texts


def _different(values: Sequence[Any]) -> Collection[Any]:
    """Values without their repetitions, where they can be told apart so."""
    try:
        return set(values)
    except TypeError:
        return values


def _label_text(value: Any, place: str, column: str) -> str:
    if isinstance(value, list | tuple) and len(value) == 1:
        return _label_text(value[0], place, column)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, Decimal):
        value = str(value)
    if isinstance(value, str):
        value = value.strip()
        if _BYTES_AS_TEXT.fullmatch(value):  # as NumPy's strings are written to CSV
            value = value[2:-1]
        if (listed := _listed(value)) is not None:
            return _label_text(listed, place, column)
        if of_one := _BOXES_OF_ONE.fullmatch(value):
            return of_one[1]
        return without_point(value)
    if isinstance(value, list | dict | tuple):
        kind = "objects" if isinstance(value, dict) else "lists"
        raise DataError(
            f"{place} holds {kind} as {column}, such as {str(value)[:40]}; give each image one "
            "class (of a one-hot row the place of its 1)"
        )
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return str(int(value))  # numbers beside which a table had empty rows
    return "" if value is None else str(value).strip()


def without_point(text: str) -> str:
    """A whole number as its digits, `7` for `7.0`; other texts as they are."""
    whole = _WHOLE_NUMBER.fullmatch(text)
    return whole[1] if whole else text


def is_hidden(value: Any) -> bool:
    """Whether a row does not say its class, as in a test split whose labels are hidden."""
    return value is None or _NO_LABEL.fullmatch(str(value).strip()) is not None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, str) and value.strip().isdecimal())


def _is_several(name: str, names: set[str]) -> bool:
    """Whether it is other classes' names, joined."""
    parts = ({part.strip() for part in name.split(mark)} for mark in _BETWEEN_CLASSES)
    return any(len(of_mark) > 1 and of_mark <= names for of_mark in parts)


def _are_several(names: Sequence[str]) -> str | None:
    """The first name whose parts stand in others, too, where a mark says plainly that it has some.

    So are `cat;dog` and `dog;emu`, without a class `dog`.
    """
    for mark in _PLAINLY_BETWEEN:
        parts = {name: {part.strip() for part in name.split(mark)} for name in names}
        count = Counter(part for of_name in parts.values() for part in of_name)
        for name, of_name in parts.items():
            if len(of_name) > 1 and any(count[part] > 1 for part in of_name):
                return name
    return None


def _numbers_by_size(name: str) -> tuple[int, int, str]:
    """2 before 10 where the names are numbers."""
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)
