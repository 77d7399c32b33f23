"""One class in several spellings: accents in one sign or two, capitals, `_` for a space."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from driftscope.data.address import split_kind
from driftscope.files import is_file, named_path

Spelled = tuple[str, str]
"""A split and a name in it."""


def composed(text: str) -> str:
    """A text whose letters with accents are one sign each (NFC), of which macOS writes two."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def file_at(start: Path, path: str) -> Path:
    """Where a path below a folder leads, its letters with accents spelled as the disk has them."""
    forms = [path] if path.isascii() else [path, composed(path), unicodedata.normalize("NFD", path)]
    files = [start / named_path(form) for form in forms]
    return files[0] if len(files) == 1 else next(filter(is_file, files), files[0])


def common_names(names_of_splits: Mapping[str, Collection[str]]) -> dict[str, str]:
    """Each name, and the one name of its class: the training split's, composed.

    Names of different splits are one class where accents, capitals and `_` alone tell them apart.
    Two names of one split are two classes.
    """
    splits = sorted(names_of_splits, key=lambda split: split_kind(split) != "train")
    spelled = [(split, name) for split in splits for name in names_of_splits[split]]
    common: dict[str, str] = {}
    for alike in _grouped(spelled, _plain):
        for group in (alike,) if _is_one_class(alike) else _grouped(alike, composed):
            first = composed(group[0][1])
            common |= {name: first if _is_one_class(group) else name for _, name in group}
    return common


def told_of_spellings(names_of_splits: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """What is said of classes that splits spell differently to the eye; () where there are none."""
    spellings: dict[str, dict[str, str]] = {}
    common = common_names(names_of_splits)
    for split, names in names_of_splits.items():
        for name in names:
            spellings.setdefault(common[name], {}).setdefault(composed(name), split)
    several = [of for _, of in sorted(spellings.items()) if len(of) > 1]
    if not several:
        return ()
    count = "1 class" if len(several) == 1 else f"{len(several)} classes"
    shown = ", ".join(f"{name!r} in {split}" for name, split in several[0].items())
    return (f"its splits spell {count} in several ways, read as one class each: {shown}",)


def by_spelling(given: Mapping[str, str], names: Collection[str]) -> dict[str, str]:
    """What is given for names: as they are spelled or, of one alone, in another spelling."""
    found = {name: given[name] for name in names if name in given}
    asked = _only_ones(name for name in names if name not in found)
    alike = {
        asked[plain]: given[other]
        for plain, other in _only_ones(given).items()
        if plain in asked and other not in found
    }
    return found | alike


def _only_ones(names: Iterable[str]) -> dict[str, str]:
    """Names by their plain spelling, but for those of which several are spelled alike."""
    groups: dict[str, set[str]] = {}
    for name in names:
        groups.setdefault(_plain(name), set()).add(name)
    return {plain: min(alike) for plain, alike in groups.items() if len(alike) == 1}


def _plain(name: str) -> str:
    return " ".join(composed(name).casefold().replace("_", " ").split())


def _grouped(spelled: Sequence[Spelled], key: Callable[[str], str]) -> Iterable[list[Spelled]]:
    groups: dict[str, list[Spelled]] = {}
    for split, name in spelled:
        groups.setdefault(key(name), []).append((split, name))
    return groups.values()


def _is_one_class(spelled: Sequence[Spelled]) -> bool:
    """Whether no split has two of the names."""
    return len({split for split, _ in spelled}) == len(spelled)
