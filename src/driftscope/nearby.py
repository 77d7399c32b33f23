"""A place that a user named and that is not there: which it surely is, and what lies beside it.

It imports nothing heavy, so that a misspelt folder is told before a model library is loaded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

from driftscope.errors import DataError, ModelError, shown
from driftscope.files import named_path
from driftscope.suites import (
    BROUGHT_MODELS,
    BROUGHT_SETS,
    DATA_FOLDER_VARIABLE,
    PRESETS,
    suites,
)

_MOST_ENTRIES = 10_000
"""Entries of a folder among which a like name is looked for."""
_LIKE, _VERY_LIKE = 0.6, 0.8
"""How like a name must be to be offered; and to be taken for what was meant by a bare name."""
OF_NAMES = (".txt", ".json", ".yaml", ".yml")
"""How files of class names end."""
_OF_LISTS = (".csv", ".tsv")
"""How lists of images with their classes end, whose class names can be taken."""
_GENERAL = "general"
"""The built-in words, which stand in no file."""
_SURELY_A_PATH = re.compile(r"[./~]|.*\\|[^/]+/[^/]+/|.*/$")
_ELSEWHERE = re.compile(r"\w+:")
"""How a name begins that is an address, or says itself of what form it is."""


def refuse_missing_model(name: str) -> None:
    """Raises `ModelError` where a model's name can only be a place, and nothing is there."""
    if name not in BROUGHT_MODELS and _is_missing(name):
        raise ModelError(f"no model {shown(name)}: {nothing_there(name)}")


def refuse_missing_images(name: str) -> None:
    """Raises `DataError` where a dataset's name can only be a place, and nothing is there."""
    place = name if _exists(name) else name.partition("?")[0]
    if not _may_be_known(place) and _is_missing(place):
        raise DataError(f"no images {shown(name)}: {nothing_there(place)}")


def refuse_missing_names(name: str) -> None:
    """Raises `DataError` where class names can only be in a file, and nothing is there."""
    place = name if _exists(name) else name.partition("?")[0]
    is_file = Path(place).suffix.lower() in OF_NAMES + _OF_LISTS and not _exists(place)
    if name != _GENERAL and (is_file or (not _may_be_known(place) and _is_missing(place))):
        raise DataError(f"no class names {shown(name)}: {nothing_there(place)}")


def nothing_there(name: str) -> str:
    """That there is no such file or folder, and the one that may be meant."""
    told = "there is no such folder or file"
    near = neighbour(name)
    return f"{told}; did you mean {near}?" if near else told


def neighbour(name: str, likeness: float = _LIKE) -> str:
    """The like-named entry beside a place that is not there, as the user would write it, or ""."""
    wanted, rest = Path(name), Path()
    while not _exists(str(wanted.parent)):
        wanted, rest = wanted.parent, wanted.name / rest
    names = [one for one in _entries(named_path(wanted.parent)) if one[:1] != "."]
    near = get_close_matches(wanted.name, names, n=1, cutoff=likeness)
    if not near:
        return ""
    found = wanted.parent / near[0]
    whole = found / rest
    best = str(whole if _exists(str(whole)) else found)
    return f".{os.sep}{best}" if name.startswith(f".{os.sep}") else best


def _may_be_known(name: str) -> bool:
    """Whether a bare name may be that of a dataset: a known one, or a copy in the user's folder."""
    known = {*BROUGHT_SETS, *PRESETS, *suites()}
    return "/" not in name and (name in known or bool(os.environ.get(DATA_FOLDER_VARIABLE)))


def _is_missing(name: str) -> bool:
    """Whether a name is of no place that is there, and can be of nothing else.

    `owner/name` may be on the hub. So may a bare name, unless a very like one is here.
    """
    if not name.strip() or _exists(name) or _ELSEWHERE.match(name):
        return False
    if _SURELY_A_PATH.match(name):
        return True
    return "/" not in name and "@" not in name and neighbour(name, _VERY_LIKE) != ""


def _exists(name: str) -> bool:
    try:
        return named_path(name).exists()
    except (OSError, ValueError):  # too long, or with a zero byte: others tell it
        return True


def _entries(folder: Path) -> Iterable[str]:
    try:
        with os.scandir(folder) as entries:
            return [one.name for one in islice(entries, _MOST_ENTRIES)]
    except OSError:
        return []
