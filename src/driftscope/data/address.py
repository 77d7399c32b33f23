"""What a user may write where a dataset is asked for, taken apart.

`NAME` or `NAME?key=value&key=value`: a set's name, hub id, folder or file, and which columns and
split of it are meant, such as `uoft-cs/cifar100?label=coarse_label`. One string says it all, so
that specs, the command line and transfer lists take the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from driftscope.errors import DataError, did_you_mean

COLUMN_KEYS = ("image", "label", "caption", "group")
KEYS = (*COLUMN_KEYS, "config", "split")

_SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "test": ("test", "testing", "validation", "valid", "val", "dev", "eval"),
}
SPLIT_NAMES = frozenset(name for names in _SYNONYMS.values() for name in names)
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

    def refuse_options(self, kind: str) -> None:
        """Raises `DataError` if there are options that such a set cannot have."""
        if self.options:
            raise DataError(
                f"{self.place} is {kind} and takes no options, "
                f"but ?{next(iter(self.options))}=… is given"
            )


def parse_address(source: str | Path) -> Address:
    """A dataset's name with its options.

    Raises:
        DataError: an option that there is not.
    """
    text = str(source)
    if "?" not in text or Path(text).expanduser().exists():
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
        options[key] = value
    return Address(place, options)


def choose_split(asked: str, available: Iterable[str], address: Address) -> str:
    """Which of a set's splits is meant: by name, by a synonym, or the only one there is.

    `test` may mean `validation` where there is no test split.

    Raises:
        DataError: there are several, and none fits.
    """
    names = list(available)
    asked = address.options.get("split", asked)
    for name in (asked, *_SYNONYMS.get(asked, ())):
        if name in names:
            return name
    if len(names) == 1 and "split" not in address.options:
        return names[0]
    raise DataError(f"{address.place} has no split {asked!r}; {did_you_mean(asked, names)}")
