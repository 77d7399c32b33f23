"""Flat images whose classes are told by files beside them, as benchmarks publish them.

Lists without a header (Oxford's pets, FGVC-Aircraft, ImageNet's and Places365's validation images),
tables with plain columns (GTSRB's test images, Kaggle's), files of MATLAB. Splits that lie in class
folders beside flat ones are read with them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from driftscope.data.address import WHOLE, Address, split_kind
from driftscope.data.encoded import EncodedSet, printable
from driftscope.data.layouts.files_beside import is_of_answers
from driftscope.data.layouts.found import Found
from driftscope.data.layouts.label_mats import Columns, Told, told_by_mats
from driftscope.data.layouts.labels import without_point
from driftscope.data.layouts.lists import LIST_SUFFIXES, found_lists, read_list
from driftscope.data.layouts.split_lists import ImagesByPath
from driftscope.data.layouts.tables import open_table, optional_column
from driftscope.data.layouts.tree import Folder
from driftscope.data.names import is_wordnet_id
from driftscope.data.spellings import by_spelling, composed, told_of_spellings
from driftscope.errors import DataError

_MOST_LISTS = 40
_FEWEST_NAMED = 0.5
"""Files that name fewer of a split's images tell of something else, or of a part of it."""
_SPLIT_WORD = re.compile(r"(?i)(train|test)(ing|val)?|val(id(ation)?)?")
_USUAL_OF_SEVERAL = "_variant_"
"""FGVC-Aircraft lists each split by variants, families and manufacturers."""


@dataclass(frozen=True)
class Flat:
    """A split of a folder: its images, by class where it lies in class folders."""

    root: Folder
    classes: Mapping[str, tuple[Folder, ...]]

    def columns(self) -> Columns:
        """Its images with the classes of its folders; of a flat one the images alone."""
        if not self.classes:
            return {"path": list(self.root.image_files())}
        pairs = [
            (file, name)
            for name, folders in sorted(self.classes.items())
            for folder in folders
            for file in folder.image_files()
        ]
        return {"path": [file for file, _ in pairs], "label": [name for _, name in pairs]}


def recognise(tree: Folder, splits: Mapping[str, Flat], address: Address) -> Found | None:
    """A folder with flat splits of which files below it tell the classes; None where none does."""
    kinds = {split_kind(name) for name, split in splits.items() if not split.classes}
    try:
        told, files = told_by_mats(tree)
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        told, files = {}, ""
    if not told:
        told, files = _told_by_lists(tree, address, kinds if WHOLE not in splits else None)
    rows = _rows_of(told, splits) if told else None
    if rows is None:
        return None
    notes = [f"its classes are those of {files}", *_told_of_spellings(told, files, splits)]
    if rest := tree.num_images - sum(len(of["path"]) for of in rows.values()):
        notes.append(f"{rest:,} images that these do not name are passed over")
    if more := tree.other_kinds(but=[Path(file).name for file in files.split(", ")]):
        notes.append(f"other files are passed over: {more}")
    root = Path(tree.path)
    others = {key: said for key, said in address.options.items() if key not in ("image", "label")}
    found = found_lists(
        Address(address.place, others),
        "flat folder with lists",
        rows,
        dict.fromkeys(rows, (root,)),
        root,
        notes,
    )

    labelled = next(name for name, columns in rows.items() if "label" in columns)
    why_not = f"no list tells the classes of this split; add ?split={labelled} to score on that"

    def opened(found: Found, split: str) -> EncodedSet:
        images = open_table(found, split)
        return images if images.labels is not None else replace(images, unlabeled_because=why_not)

    return replace(found, open_split=opened)


def _told_of_spellings(told: Told, files: str, splits: Mapping[str, Flat]) -> tuple[str, ...]:
    """What is said of classes that the lists spell otherwise than the class folders."""
    of_folders = {name: tuple(split.classes) for name, split in splits.items() if split.classes}
    words = {_first_word(one) for columns in told.values() for one in columns.get("label", ())}
    return told_of_spellings({**of_folders, files: sorted(words)}) if of_folders else ()


def _rows_of(told: Told, splits: Mapping[str, Flat]) -> dict[str, Columns] | None:
    """The tables of all splits; None where the files do not tell most of a flat one's classes."""
    flat = {name: split for name, split in splits.items() if not split.classes}
    images = ImagesByPath([file for split in flat.values() for file in split.root.image_files()])
    of_kind = {
        split_kind(name): ImagesByPath(list(split.root.image_files()))
        for name, split in flat.items()
        if name != WHOLE
    }
    of_files: dict[str, tuple[str, int]] = {}
    for name, columns in told.items():
        own = of_kind.get(split_kind(name), images)
        for row, path in enumerate(columns["path"]):
            if (file := own.find(str(path)) or images.find(str(path))) is not None:
                of, first = of_files.setdefault(file, (name, row))
                if of != name or columns["label"][first] != columns["label"][row]:
                    return None  # an image of two splits, or of two classes
    num_told = sum(len(columns["path"]) for columns in told.values())
    if len(of_files) < _FEWEST_NAMED * num_told:
        return None
    if WHOLE in splits:
        if len(of_files) < _FEWEST_NAMED * len(images.files):
            return None
        return {name: _with_files(columns, name, of_files) for name, columns in told.items()}
    rows: dict[str, Columns] = {}
    for name, split in splits.items():
        rows[name] = columns = split.columns()
        named = [file for file in columns["path"] if file in of_files]
        if name in flat and len(named) >= _FEWEST_NAMED * len(columns["path"]):
            labels = [told[of_files[file][0]]["label"][of_files[file][1]] for file in named]
            rows[name] = {"path": named, "label": labels}
    if not any("label" in rows[name] for name in flat):
        return None
    return _agreeing(rows, flat)


def _with_files(columns: Columns, name: str, of_files: Mapping[str, tuple[str, int]]) -> Columns:
    """The rows of a table whose images are here, with their paths."""
    here = {row: file for file, (split, row) in of_files.items() if split == name}
    kept = sorted(here)
    others = {key: [values[row] for row in kept] for key, values in columns.items()}
    return {**others, "path": [here[row] for row in kept]}


def _agreeing(rows: dict[str, Columns], flat: Mapping[str, Flat]) -> dict[str, Columns] | None:
    """With labels as the class folders have them; None where they have others.

    `00007` is 7. Numbers from 0 for folders of WordNet ids are their places in order.
    """
    folders = {one for name in rows if name not in flat for one in rows[name]["label"]}
    if not folders:
        return rows
    by_number = {str(int(name)): name for name in folders if name.isdecimal()}
    told = {without_point(_first_word(one)) for name in flat for one in rows[name].get("label", ())}
    if all(map(is_wordnet_id, folders)) and "0" in told:
        by_number = {str(number): name for number, name in enumerate(sorted(folders))}
    for name in flat:
        if (labels := rows[name].get("label")) is not None:
            words = {label: _first_word(label) for label in labels}
            known = by_spelling({one: one for one in sorted(folders)}, set(words.values()))
            for word in set(words.values()) - set(known):
                number = without_point(word)
                known[word] = number if number in folders else by_number.get(number, "")
            labels = [known[words[label]] or None for label in labels]
            if None in labels:
                return None
            rows[name]["label"] = labels
    return rows


def _first_word(label: Any) -> str:
    """A label, of ImageNet's boxes the WordNet id before them."""
    text = composed(str(label).strip())
    return text.partition(" ")[0] if re.fullmatch(r"n\d{8}( \d+)+\s*.*", text) else text


# ---------------------------------------------------------------- lists and tables


def _told_by_lists(
    tree: Folder, address: Address, kinds: Iterable[str | None] | None
) -> tuple[Told, str]:
    """The tables of the one family of lists that has labels, and its files.

    Args:
        tree: where they lie.
        address: which may say the columns.
        kinds: the splits of which labels are wanted; None for all.
    """
    files = [file for file in tree.files(*LIST_SUFFIXES) if not is_of_answers(file)]
    named = {file: str(file.relative_to(tree.path)) for file in files}
    kind_of = {file: _kind(Path(name)) for file, name in named.items()}
    if kinds is not None:
        files = [file for file in files if kind_of[file] in {*kinds, None}]
    families: dict[str, dict[str, tuple[Path, Columns]]] = {}
    for file in sorted(files[: _MOST_LISTS + 1], key=lambda file: (len(file.stem), file)):
        kind = kind_of[file] or WHOLE
        family = named[file] if kind == WHOLE else _SPLIT_WORD.sub("", named[file])
        if (columns := _columns(file, address)) is not None:
            families.setdefault(family, {}).setdefault(kind, (file, columns))
    if len(files) > _MOST_LISTS or not families:
        return {}, ""
    of_splits = {key: of for key, of in families.items() if WHOLE not in of} or families
    usual = {key: of for key, of in of_splits.items() if _USUAL_OF_SEVERAL in key} or of_splits
    if len(usual) > 1:
        return {}, ""
    (family_files,) = usual.values()
    names = [printable(named[file]) for file, _ in family_files.values()]
    return {kind: columns for kind, (_, columns) in family_files.items()}, ", ".join(names)


def _kind(file: Path) -> str | None:
    """The split that a list is of by its name, or else by a folder that it lies in."""
    return split_kind(file.stem) or next(filter(None, map(split_kind, file.parts[-2::-1])), None)


def _columns(file: Path, address: Address) -> Columns | None:
    """A list's table with its images under `path` and its labels under `label`; None for others."""
    try:
        table = read_list(file)
        image = optional_column("image", list(table), address)
        label = optional_column("label", list(table), address)
    except DataError:
        return None
    if image is None or label is None or len({str(one) for one in table[label]}) < 2:
        return None
    kept = {key: values for key, values in table.items() if key not in (image, label, "image")}
    return {**kept, "path": table[image], "label": table[label]}
