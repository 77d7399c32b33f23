"""Folders of image files: one folder a class, or flat and unlabeled, with splits above or without.

Which level of a tree the classes are is decided by the whole tree: folders without images are
passed over, a folder that holds one other and no images is a wrapper, and folders whose names all
say train, test or validation are splits. Where two readings are left, none is taken: the images
are then unlabeled, and the sentence that says so draws the tree.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from driftscope.data.address import WHOLE, Address, split_kind
from driftscope.data.encoded import EncodedSet, FilesOnDisk, printable
from driftscope.data.layouts import flat_lists
from driftscope.data.layouts.files_beside import files_above, what_to_do, without_images
from driftscope.data.layouts.found import Found
from driftscope.data.layouts.plain_lists import PARTS
from driftscope.data.layouts.split_lists import listed_splits, unused_list
from driftscope.data.layouts.tree import NO_CLASSES, Folder, is_text
from driftscope.data.spellings import common_names, told_of_spellings
from driftscope.errors import DataError

_PICTURES = re.compile(r"(?i)(jpe?g|png)?_?(images?|imgs?|jpe?gs?|pngs?|photos|pictures)\d*")
_SPLIT_JOINED = re.compile(
    r"(?i)^(train(ing)?|test(ing)?|val(id(ation)?)?|dev)[\W_]+"
    r"|[\W_]+(train(ing)?|test(ing)?|val(id(ation)?)?|dev)$"
)
DEEPEST = "deepest"
"""The level of every folder that holds images, however deep."""


@dataclass(frozen=True)
class Split:
    """A split's images: loose ones, or folders by class name."""

    root: Folder
    classes: Mapping[str, tuple[Folder, ...]]
    why_not: str = ""
    """Why the folders are no classes; "" where they are, or where there are none."""
    listed: frozenset[str] | None = None
    """The only files that are of this split; None for all."""


def recognise(tree: Folder, address: Address) -> Found:
    """The splits and classes of a tree of images.

    Raises:
        DataError: there is no image in it, or images lie loose beside folders of images.
    """
    if not tree.num_images:
        raise DataError(f"no images in {printable(tree.path)}{without_images(tree)}")
    root = _below_wrappers(tree)
    parts, passed_over = _split_folders(root)
    if not parts and "level" not in address.options:
        _refuse_several_sets(root)
    if parts:
        splits = {name: _below_wrappers_of(part, parts, name) for name, part in parts.items()}
    else:
        splits = {WHOLE: root}
    found = _joined_with_splits(root) or _classed(splits, root, address)
    of_classes = [
        *told_of_spellings({name: split.classes for name, split in found.items()}),
        *_of_inner_folders(found),
    ]
    found = _with_common_names(found)
    whole = found.get(WHOLE)
    listed = None
    if whole and whole.classes and not whole.why_not and (listed := listed_splits(tree)):
        found = {name: replace(whole, listed=files) for name, files in listed.splits.items()}
    labelled = [name for name, split in found.items() if split.classes and not split.why_not]
    is_flat = any(not split.classes for split in found.values())
    if is_flat and (told := _told_beside(tree, found, address)):
        return told
    if is_flat and (hint := what_to_do(tree, root, labelled)):
        found = {
            name: split if split.classes else replace(split, why_not=hint)
            for name, split in found.items()
        }
    notes = [f"beside its splits {printable(name)} is passed over" for name in passed_over]
    notes += [*_of_drawn_over(tree), *of_classes]
    if listed:
        notes += listed.notes
    elif whole and labelled and (said := unused_list(tree, files_above(Path(tree.path)))):
        notes.append(said)
    if dead := [one.path + "/" + name for one in tree.below() for name in one.dead]:
        notes.append(f"{len(dead)} links that lead nowhere are passed over: {printable(dead[0])}")
    if kinds := tree.other_kinds():
        notes.append(f"files that are no images are passed over: {kinds}")
    beside = {one.path: one for one in (*tree.folders, *root.folders)}.values()
    if empty := [one for one in beside if not one.num_images]:
        names = ", ".join(printable(one.name) for one in empty[:3])
        which = (
            "a folder without images is"
            if len(empty) == 1
            else f"{len(empty)} folders without images are"
        )
        notes.append(f"{which} passed over: {names}")
    folder = next((Path(one.path) for one in (tree, root) if one.others), Path(tree.path))
    return Found(
        address,
        "folder of images",
        found,
        open_split,
        options=("level",),
        passed_over=tuple(notes),
        folder=folder,
    )


def _with_common_names(found: Mapping[str, Split]) -> dict[str, Split]:
    """The splits, of which each calls a class by the same name."""
    common = common_names({name: split.classes for name, split in found.items()})
    return {
        name: replace(split, classes={common[one]: of for one, of in split.classes.items()})
        for name, split in found.items()
    }


def _told_beside(tree: Folder, found: Mapping[str, Split], address: Address) -> Found | None:
    """The set where lists or tables tell the classes of flat splits; None where none does."""
    if "level" in address.options or any(split.why_not for split in found.values()):
        return None
    splits = {name: flat_lists.Flat(split.root, split.classes) for name, split in found.items()}
    return flat_lists.recognise(tree, splits, address)


def open_split(found: Found, name: str) -> EncodedSet:
    """One split; classes are numbered by name over all splits, so that splits agree."""
    split: Split = found.splits[name]
    if not split.classes:
        files = tuple(split.root.image_files())
        return EncodedSet(
            found.address.place, name, FilesOnDisk(files), unlabeled_because=split.why_not
        )
    every = {one for other in found.splits.values() for one in other.classes}
    class_names = tuple(sorted(every))
    numbers = {one: number for number, one in enumerate(class_names)}
    files_of = {
        one: tuple(
            file
            for folder in folders
            for file in folder.image_files()
            if split.listed is None or file in split.listed
        )
        for one, folders in sorted(split.classes.items())
    }
    counts = torch.tensor([len(files) for files in files_of.values()])
    labels = torch.tensor([numbers[one] for one in files_of]).repeat_interleave(counts)
    files = tuple(file for of_class in files_of.values() for file in of_class)
    images = EncodedSet(found.address.place, name, FilesOnDisk(files), class_names, labels)
    if split.why_not:
        return replace(images, class_names=None, labels=None, unlabeled_because=split.why_not)
    return images


# ---------------------------------------------------------------- splits


def _below_wrappers(folder: Folder) -> Folder:
    """The folder itself, or the one that alone in it holds images, again and again."""
    while not folder.images and len(inner := _image_folders(folder)) == 1:
        if split_kind(inner[0].name) and inner[0].with_images:
            break  # a lone train/
        folder = inner[0]
    return folder


def _image_folders(folder: Folder) -> tuple[Folder, ...]:
    """Its folders with images, without those that hold what was drawn over the others'."""
    inner = folder.with_images
    drawn_over = [
        one for one in inner if NO_CLASSES.fullmatch(one.name) and not _holds_pictures(one)
    ]
    pictures = [
        one
        for one in inner
        if split_kind(one.name) or _PICTURES.fullmatch(one.name) or _holds_pictures(one)
    ]
    if (pictures or folder.images) and drawn_over:
        inner = tuple(one for one in inner if one not in drawn_over)
    return inner


def _holds_pictures(folder: Folder) -> bool:
    """Whether one of its folders of images is called `images`, or alike."""
    return any(_PICTURES.fullmatch(one.name) for one in folder.with_images)


def _split_folders(root: Folder) -> tuple[dict[str, Folder], list[str]]:
    """The folders that are splits, and the names of those beside them; ({}, []) without any.

    They are where all names say so, and say different things. Where others lie beside them they
    must hold the same classes: CIFAR-100 has a class of trains.
    """
    inner = _image_folders(root)
    kinds = {one.name: kind for one in inner if (kind := split_kind(one.name))}
    if len(inner) == 1 and kinds:
        return {inner[0].name: inner[0]}, []
    if len(set(kinds.values())) < 2:
        return {}, []
    others = [one for one in inner if one.name not in kinds]
    passed_over = [one.name for one in root.with_images if one not in inner]
    if root.images:
        passed_over.append(f"{len(root.images)} loose images")
    if others:
        classes = [
            {one.name for one in inside}
            for part in inner
            if part.name in kinds and (inside := _lone_inner(part).with_images)
        ]  # a flat one hides its labels
        shared = set.intersection(*classes) if classes else None
        if not shared or 2 * len(shared) < max(map(len, classes)):
            return {}, []
        passed_over += [one.name for one in others]
    return {one.name: one for one in inner if one.name in kinds}, passed_over


def _refuse_several_sets(root: Folder) -> None:
    """Raises `DataError` where folders are sets of their own: with splits, and other classes each.

    Where they share classes they may be the domains of one set.
    """
    classes: dict[str, set[str]] = {}
    for one in root.with_images:
        parts, _ = _split_folders(_lone_inner(one))
        inside = {of.name for part in parts.values() for of in _lone_inner(part).with_images}
        if len(parts) > 1 and len(inside) > 1:
            classes[one.name] = inside
    count = sum(map(len, classes.values()))
    if len(classes) > 1 and count == len(set.union(*classes.values())):
        raise DataError(
            f"{printable(root.path)} holds {len(classes)} image sets, each with splits and classes "
            f"of its own ({_some(sorted(classes))}); give one of them"
        )


def _joined_with_splits(root: Folder) -> dict[str, Split]:
    """Splits of classes whose folders are named by both (`cat_train`, `cat_test`, `dog_train`, …).

    {} unless every folder is, and every split has the same two or more classes.
    """
    found: dict[str, dict[str, tuple[Folder, ...]]] = {}
    for one in root.with_images:
        name = _SPLIT_JOINED.sub("", one.name)
        kind = split_kind(one.name)
        if not kind or not name or name == one.name or one.with_images:
            return {}
        found.setdefault(kind, {})[name] = (one,)
    common = common_names(found)
    classes = [{common[name] for name in of_split} for of_split in found.values()]
    is_whole = sum(map(len, found.values())) == len(root.with_images) and not root.images
    if len(found) < 2 or not is_whole or any(one != classes[0] or len(one) < 2 for one in classes):
        return {}
    return {kind: Split(root, of_split) for kind, of_split in found.items()}


def _lone_inner(folder: Folder) -> Folder:
    """A folder, or the one that alone in it holds images, whatever its name."""
    while not folder.images and len(inner := _image_folders(folder)) == 1:
        folder = inner[0]
    return folder


def _below_wrappers_of(part: Folder, parts: Mapping[str, Folder], name: str) -> Folder:
    """A split's folder without its wrappers: a lone folder that is no other split's class."""
    others = {
        one.name
        for other, folder in parts.items()
        if other != name and len(_image_folders(folder)) > 1
        for one in _image_folders(folder)
    }
    while not part.images and len(inner := _image_folders(part)) == 1:
        is_wrapper = inner[0].with_images or _PICTURES.fullmatch(inner[0].name)
        if inner[0].name in others or not is_wrapper:
            break
        part = inner[0]
    return part


# ---------------------------------------------------------------- classes


def _classed(roots: Mapping[str, Folder], above: Folder, address: Address) -> dict[str, Split]:
    """Each split with its classes, all at the same level."""
    level = address.options.get("level", "")
    if level not in ("", DEEPEST) and not (level.isdecimal() and int(level) > 0):
        raise DataError(f"?level={level} of {address.place} is no level; give 1, 2, … or {DEEPEST}")
    found = {}
    for name, root in roots.items():
        if root.images and root.with_images:
            raise DataError(
                f"{printable(root.path)} holds both loose images ({printable(root.images[0])}) and "
                f"folders of images ({printable(root.with_images[0].name)}); move the loose ones "
                "out of it, or give a flat folder, or one folder a class"
            )
        at_level = list(_at(root, level or "1"))
        if level not in ("", DEEPEST):
            _refuse_uneven(root, int(level), address)
        if level and not at_level and not root.images:
            raise DataError(
                f"{address.place} has no folders of images so deep as ?level={level}: "
                f"{above.drawn()}"
            )
        divided = _by_splits_above(root, at_level) if name == WHOLE else {}
        for split, folders in (divided or {name: at_level}).items():
            classes: dict[str, tuple[Folder, ...]] = {}
            for class_name, folder in folders:
                classes[class_name] = (*classes.get(class_name, ()), folder)
            found[split] = Split(root, classes)
    if inside := _splits_inside(found):
        return inside
    found = {name: _without_lone_class(name, found) for name in found}
    why_not = _no_classes(found, above, bool(level))
    return {
        name: replace(split, why_not=why_not) if why_not and split.classes else split
        for name, split in found.items()
    }


def _by_splits_above(
    root: Folder, at_level: Sequence[tuple[str, Folder]]
) -> dict[str, list[tuple[str, Folder]]]:
    """Classes by the splits that they lie in, where a level above says some; {} where none does."""
    parts = [Path(folder.path).relative_to(root.path).parts[:-1] for _, folder in at_level]
    for depth in range(min(map(len, parts), default=0)):
        kinds = {split_kind(above[depth]) for above in parts}
        if len(kinds) > 1 and None not in kinds:
            found: dict[str, list[tuple[str, Folder]]] = {}
            for above, one in zip(parts, at_level, strict=True):
                found.setdefault(above[depth], []).append(one)
            return found
    return {}


def _without_lone_class(name: str, found: Mapping[str, Split]) -> Split:
    """A split as it is; flat where its only folder (`test/unknown`) is no class of the others."""
    split = found[name]
    others = {one for other in found if other != name for one in found[other].classes}
    if len(split.classes) == 1 and len(others) > 1 and not others & set(split.classes):
        return replace(split, classes={})
    return split


def _at(root: Folder, level: str) -> Iterator[tuple[str, Folder]]:
    """The class names and folders of a level."""
    if level != DEEPEST:
        for one in _at_level(root, int(level)):
            yield one.name, _without_drawn_over(_lone_inner(one))
        return
    by_letter = all(len(one.name) == 1 for one in root.with_images)  # a/abbey, b/bakery
    for folder in root.below():
        if folder.images and folder is not root:
            parts = Path(folder.path).relative_to(root.path).parts
            while len(parts) > 1 and _PICTURES.fullmatch(parts[-1]):
                parts = parts[:-1]
            yield " ".join(parts[by_letter and len(parts) > 1 :]), replace(folder, folders=())


def _without_drawn_over(folder: Folder) -> Folder:
    """A class of loose images without the folders of what was drawn over them."""
    kept = _image_folders(folder) if folder.images else folder.folders
    return folder if kept == folder.with_images else replace(folder, folders=tuple(kept))


def _at_level(folder: Folder, level: int) -> Iterator[Folder]:
    for inner in folder.with_images:
        if level == 1:
            yield inner
        else:
            yield from _at_level(inner, level - 1)


def _refuse_uneven(root: Folder, level: int, address: Address) -> None:
    """Raises DataError where classes lie at other depths than the level that is given."""
    above = [one for depth in range(1, level) for one in _at_level(root, depth) if one.images]
    at = list(_at_level(root, level))
    deeper = [one for one in at if not one.images] if level > 1 else []
    if at and (above or 0 < len(deeper) < len(at)):
        shallow = (above or [one for one in at if one.images])[0]
        deep = (at if above else deeper)[:1]
        raise DataError(
            f"the classes of {address.place} lie at several depths: "
            f"{printable(shallow.name)} holds images"
            + (f", {printable(deep[0].name)} lies deeper or holds folders of them" if deep else "")
            + f"; ?level={DEEPEST} takes every folder that holds images for a class"
        )


def _splits_inside(found: Mapping[str, Split]) -> dict[str, Split]:
    """Splits within classes (`cat/train`, `cat/test`, `dog/train`, …); {} where there are none."""
    if list(found) != [WHOLE] or len(found[WHOLE].classes) < 2:
        return {}
    inside: dict[str, dict[str, tuple[Folder, ...]]] = {}
    for one, folders in found[WHOLE].classes.items():
        for folder in folders:
            parts, _ = _split_folders(folder)
            if len(parts) < 2 or len(parts) < len(folder.with_images):
                return {}
            if any(_lone_inner(part).with_images for part in parts.values()):
                return {}  # not classes with splits, but sets with splits and classes
            for name, part in parts.items():
                inside.setdefault(name, {})[one] = (part,)
    return {name: Split(found[WHOLE].root, classes) for name, classes in inside.items()}


def _no_classes(found: Mapping[str, Split], above: Folder, is_level_given: bool) -> str:
    """Why the folders at this level cannot be the classes; "" where they can."""
    folders = {one.path: one for split in found.values() for of in split.classes.values()
               for one in of}  # fmt: skip
    names = {name for split in found.values() for name in split.classes}
    if not_text := next((name for name in sorted(names) if not is_text(name)), None):
        return f"the name of its folder {printable(not_text)} is not UTF-8; rename it"
    if one_place := _of_one_place(found):
        return one_place
    if len(set(map(split_kind, names))) > 1 and all(map(split_kind, names)):
        return f"its folders ({_some(sorted(names))}) are splits, and no classes: {above.drawn()}"
    if is_level_given:
        return ""
    if names and all(map(PARTS.fullmatch, names)):
        return (
            f"its folders ({_some(sorted(names))}) are shares of the images by their names, and no "
            "classes; " + (what_to_do(above, above, ()) or "give a folder with one folder a class")
        )
    odd = [one for one in folders.values() if not one.images and len(one.with_images) > 1]
    if odd or any(map(_PICTURES.fullmatch, names)) or _are_splits_beside_others(names):
        return (
            f"it is not plain which of its folders are classes: {above.drawn()}; give the folder "
            f"that holds one folder a class, or say how deep the classes are: {_ways(found)}"
        )
    return ""


def _of_drawn_over(root: Folder) -> list[str]:
    """What is said of pictures that were drawn over the images: beside them, or in folders."""
    notes = []
    beside = [(one.path, name) for one in root.below() for name in one.drawn_over]
    if beside:
        notes.append(
            f"{len(beside)} pictures drawn over images beside them are passed over, such as "
            f"{printable(beside[0][1])}"
        )
    folders: Counter[str] = Counter()
    for one in root.below():
        kept = {inner.path for inner in _image_folders(one)}
        folders.update(inner.name for inner in one.with_images if inner.path not in kept)
    notes += [
        f"the folder {printable(name)} beside the images is passed over"
        if count == 1
        else f"{count} folders {printable(name)} beside the images are passed over"
        for name, count in folders.most_common(3)
    ]
    return notes


def _ways(found: Mapping[str, Split]) -> str:
    """The levels that classes may lie at, the likeliest first."""
    roots = [split.root for split in found.values()]
    ways: list[str] = []
    for level in range(1, 1 + max(map(_depth, roots))):
        at = [one for root in roots for one in _at_level(root, level)]
        above = [one for root in roots for up in range(1, level) for one in _at_level(root, up)]
        if any(one.images for one in above) or len({bool(one.images) for one in at}) > 1:
            continue
        if at and all(split_kind(one.name) for one in at):
            continue
        way = f"?level={level} for {_some(sorted({one.name for one in at}))}"
        parts_of_classes = level > 1 and _are_parts(above)
        ways.insert(len(ways) if parts_of_classes else 0, way)
    if not any(f"?level={depth} " in way for way in ways for depth in map(_depth, roots)):
        names = sorted({name for root in roots for name, _ in _at(root, DEEPEST)})
        ways.insert(0, f"?level={DEEPEST} for {_some(names)}")
    return ", ".join(ways)


def _depth(folder: Folder) -> int:
    return max((1 + _depth(one) for one in folder.with_images), default=0)


def _are_parts(above: Sequence[Folder]) -> bool:
    """Whether most folders repeat the name of the one that they lie in (a video of a class)."""
    pairs = [(one.name, inner.name) for one in above for inner in one.with_images]
    return 2 * sum(outer.lower() in inner.lower() for outer, inner in pairs) > len(pairs)


def _of_inner_folders(found: Mapping[str, Split]) -> list[str]:
    """What is said of folders of images within classes that hold images themselves."""
    inner = [
        f"{name}/{one.name}"
        for split in found.values()
        for name, folders in split.classes.items()
        for folder in folders
        if folder.images
        for one in folder.with_images
    ]
    wrapped = [
        f"{name}/{folder.name}"
        for split in found.values()
        for name, folders in split.classes.items()
        for folder in folders
        if folder.name != name and name.lower() not in folder.name.lower()
        if not (_PICTURES.fullmatch(folder.name) or split_kind(folder.name))
        if folder.path.rpartition(os.sep)[0].endswith(os.sep + name)
    ]
    return [
        f"{len(of_kind)} folders within classes are read as {what}, such as {printable(of_kind[0])}"
        for of_kind, what in (
            (inner, "images of those classes"),
            (wrapped, "those classes, whose only folder they are"),
        )
        if of_kind
    ]


def _of_one_place(found: Mapping[str, Split]) -> str:
    """Two classes of a split that are one folder, by links; "" for none."""
    for split in found.values():
        places: dict[str, str] = {}
        for name, folders in split.classes.items():
            for folder in folders:
                other = places.setdefault(os.path.realpath(folder.path), name)
                if other != name:
                    return (
                        f"its folders {printable(other)} and {printable(name)} are one by a link, "
                        "and each image has one class; remove one of them"
                    )
    return ""


def _are_splits_beside_others(names: Sequence[str] | set[str]) -> bool:
    kinds = Counter(split_kind(name) for name in names)
    return bool(kinds["train"] and (kinds["test"] or kinds["validation"]))


def _some(names: Sequence[str]) -> str:
    return ", ".join(printable(name) for name in names[:3]) + (", …" if len(names) > 3 else "")
