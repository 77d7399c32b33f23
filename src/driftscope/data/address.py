"""What a user may write where a dataset is asked for, taken apart.

`NAME` or `NAME?key=value&key=value`: a set's name, hub id, folder or file, and which columns and
split of it are meant, such as `uoft-cs/cifar100?label=coarse_label`. One string says it all, so
that specs, the command line and transfer lists take the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from driftscope.errors import DataError, did_you_mean
from driftscope.files import named_path

COLUMN_KEYS = ("image", "label", "caption", "group")
EVERYWHERE = ("split", "names", "templates", "bad")
"""Options that every set of encoded images takes."""
KEYS = (*COLUMN_KEYS, "config", "level", *EVERYWHERE)

SplitKind = Literal["train", "test", "validation"]
_SPLIT_WORDS: Mapping[SplitKind, str] = {
    "train": "train|training|trn",
    "test": "test|testing|tst",
    "validation": "val|valid|validation|dev|eval|evaluation|holdout",
}
_KIND_OF_TOKEN = re.compile(
    rf"(?:{'|'.join(f'(?P<{kind}>{words})' for kind, words in _SPLIT_WORDS.items())})"
    "(?:set|data|images?|imgs?|split|list|val)?"
)
_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_STANDS_IN: Mapping[str, tuple[SplitKind, ...]] = {
    "train": ("train",),
    "test": ("test", "validation"),
    "validation": ("validation",),
}
WHOLE = "all"
"""The split of a set that has none."""


@dataclass(frozen=True)
class Address:
    """A dataset as named: where it is, and what of it is meant."""

    place: str
    options: Mapping[str, str] = field(default_factory=dict)

    def with_defaults(self, options: Mapping[str, str]) -> Address:
        """The same place; the given options hold where the user said nothing."""
        return Address(self.place, {**options, **self.options})

    def refuse_options(self, kind: str, *, but: Iterable[str] = ()) -> None:
        """Raises `DataError` if there are options that such a set cannot have."""
        allowed = tuple(but)
        for key in self.options:
            if key not in allowed:
                takes = f"the options {', '.join(allowed)} only" if allowed else "no options"
                raise DataError(f"{self.place} is {kind} and takes {takes}, but ?{key}=… is given")


def parse_address(source: str | Path) -> Address:
    """A dataset's name with its options.

    Raises:
        DataError: no name, such as images in memory, or an option that there is not.
    """
    if not isinstance(source, str | Path):
        raise DataError(
            f"a dataset was given as {type(source).__name__}; give the name of one, or a folder or "
            "file of images (images in memory can be saved to a folder)"
        )
    text = str(source)
    if not text.partition("?")[0]:
        raise DataError(
            f"the dataset {text!r} has no name; give that of a set, a folder or a file (the "
            "current folder is .)"
        )
    if "?" not in text or named_path(text).exists():
        return Address(text)
    place, _, query = text.partition("?")
    options = {}
    for part in query.split("&"):
        key, _, value = part.partition("=")
        if key not in KEYS or not value:
            raise DataError(
                f"the dataset {text!r} has the option {part!r}, but options are key=value: "
                f"{did_you_mean(key, KEYS)}"
            )
        if key in options:
            raise DataError(f"the dataset {text!r} has the option {key} twice; give it once")
        options[key] = value
    if options.get("bad", "skip") != "skip":
        raise DataError(f"?bad={options['bad']} of {place} is not known; the option is ?bad=skip")
    return Address(place, options)


def split_kind(name: str) -> SplitKind | None:
    """What a folder or file of this name may be a split of: `Train`, `cars_test`, `val2017`."""
    joined = re.sub(r"(?i)(hold|held)[\W_]*out", "holdout", name)
    kinds = [
        match.lastgroup
        for token in _TOKEN.findall(joined)
        if (match := _KIND_OF_TOKEN.fullmatch(token.lower()))
    ]
    return next((kind for kind in _SPLIT_WORDS if kind in kinds), None)


def choose_split(asked: str, available: Iterable[str], address: Address) -> str:
    """Which of a set's splits is meant: by name, by another spelling, or the only one there is.

    `test` may mean `validation` where there is no test split.

    Raises:
        DataError: there are several, and none or more than one fits.
    """
    names = list(available)
    fitting = fitting_splits(asked, names, address)
    if fitting:
        return fitting[0]
    if len(names) == 1 and "split" not in address.options:
        return names[0]
    asked = address.options.get("split", asked)
    raise DataError(f"{address.place} has no split {asked!r}; {did_you_mean(asked, names)}")


def fitting_splits(asked: str, names: Iterable[str], address: Address) -> list[str]:
    """The splits that what is asked for may mean, the nearest first; one a kind.

    Raises:
        DataError: two splits fit alike.
    """
    given = address.options.get("split")
    asked = given or asked
    found = [name for name in names if name == asked]
    for kind in _STANDS_IN.get(asked, ()):
        of_kind = [name for name in names if split_kind(name) == kind]
        plain = [name for name in of_kind if name.lower() == kind] or of_kind
        if asked == "test" and kind == "validation":  # where it is beside a validation split
            plain = [name for name in of_kind if "eval" in name.lower()] or plain
        if len(plain) > 1 and not found:
            raise DataError(
                f"{address.place} has several splits that {asked!r} may mean "
                f"({', '.join(plain)}); say which: {address.place}?split={plain[0]}"
            )
        found += [name for name in plain[:1] if name not in found]
    return found[:1] if given else found
