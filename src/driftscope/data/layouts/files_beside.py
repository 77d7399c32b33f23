"""What files and names beside images tell of their classes and splits, where folders do not."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from driftscope.data.address import split_kind
from driftscope.data.encoded import printable
from driftscope.data.layouts.plain_lists import read_plain
from driftscope.data.layouts.tree import Folder
from driftscope.data.other_kinds import (
    ARCHIVES,
    FROM_ARRAYS,
    FROM_VIDEOS,
    UNREAD_IMAGES,
    VIDEOS,
    is_array,
)

OF_LISTS = re.compile(
    r"(?i)(annotation|anno|label|meta|metadata|split|list|image_?set|partition|csv|txt|\w*devkit\w*)s?"
)
"""Folders that hold lists of images that lie beside them."""
_OF_ANSWERS = re.compile(r"(?i)submission|predict|result|output|(^|_)preds?(_|$)")
_CAPTIONS = re.compile(r"(?i)\b(captions?|comment|sentences?)\b|#\d\t")
_NAMED_BY_CLASS = re.compile(r"(\D*\w*[^\W\d_])[\W_]*\d+\.\w+")
_HEAD_BYTES = 4_000
_LOOKED_INTO = 40
_LISTED_ABOVE = 1_000
_ENDINGS = (".csv", ".tsv", ".jsonl", ".txt", ".mat")
_ORDER = ("test", "validation", None, "train")
_OF_ARRAYS = (
    (
        re.compile(r"list_attr_celeba\.(txt|csv)"),
        "{} tells attributes that an image has or has not, and no one class: write a list "
        "path,label of one of them, and give it as the dataset",
    ),
    (
        re.compile(r"ILSVRC2012_validation_ground_truth\.txt"),
        "{} tells the classes by a number an image, in the order of the names, and meta.mat beside "
        "it the WordNet id of each number: give the folder that holds both and the images, or a "
        "list path,label of those ids",
    ),
    (
        re.compile(r"imagelabels\.mat"),
        "{} tells the classes by a number an image, in the order of the names "
        "(scipy.io.loadmat(FILE)['labels'][0]): give the folder that holds it and the images, or a "
        "list path,label of them",
    ),
    (
        re.compile(r"(?i).*(anno|label|meta|list|ground_?truth).*\.mat"),
        "{} may tell the classes (scipy.io.loadmat reads it): write a list path,label, and give it "
        "as the dataset",
    ),
)


def what_to_do(tree: Folder, root: Folder, labelled: Sequence[str]) -> str:
    """The ways to a number of images that lie in no class folders; "" for the usual sentence.

    Args:
        tree: what the user named.
        root: the folder in it that the images lie in.
        labelled: the names of splits that have classes.
    """
    ways = list(_of_files(tree, root))[:1]
    if labelled:
        split = printable(min(labelled, key=lambda name: _ORDER.index(split_kind(name))))
        ways.append(f"its split {split} has: add ?split={split} to score on that")
    if not ways and (named := _of_names(tree)):
        ways.append(named)
    if not ways and root is not tree and root.images:
        return (
            f"its images are all in one folder, {printable(root.name)}: as a class of its own it "
            "would always be right; give a folder with one folder a class"
        )
    return "; or ".join(ways)


def _of_files(tree: Folder, root: Folder) -> Iterator[str]:
    """What files tell that lie below the folder, or above where it is one of images alone."""
    files = tree.files(*_ENDINGS)
    if root is tree and not tree.folders:
        files += files_above(Path(tree.path))
    files = _in_order(files)
    tables = [file for file in files if file.suffix in (".csv", ".tsv", ".jsonl")]
    tables = [file for file in tables if file.stem != "metadata" and not is_of_answers(file)]
    texts = [file for file in files if file.suffix == ".txt"]
    for file in texts:
        if "label" in (read_plain(file.name, _whole_lines(_head(file))) or ()):
            yield f"{_shown(file)} tells their classes: give that file as the dataset"
    for known, said in _OF_ARRAYS:
        for file in files:
            if known.fullmatch(file.name):
                yield said.format(_shown(file))
    captioned = [
        file for file in (*texts, *tables) if _CAPTIONS.search(_head(file).partition("\n")[0])
    ]
    for file in captioned:
        yield f"{_shown(file)} tells their captions: give that file as the set of --retrieval"
    for file in tables:
        if file not in captioned and re.search(r"[,;\t|{]", _head(file).partition("\n")[0]):
            yield f"if {_shown(file)} tells their classes, give that file as the dataset"


def without_images(tree: Folder) -> str:
    """What a folder without images holds, with what to do; it follows "no images in it"."""
    held = tree.files("")
    if array := next((file for file in held if is_array(file.name)), None):
        return f": {printable(array.name)} holds arrays; {FROM_ARRAYS}"
    packed = [file for file in tree.files(*ARCHIVES, ".tar") if ".nii" not in file.suffixes]
    if packed:
        what_to_do = "unpack it, and give the folder that comes out"
        return f": {printable(packed[0].name)} is packed; {what_to_do}"
    if unread := tree.files(*UNREAD_IMAGES):
        name = printable(unread[0].name)
        return f" that Pillow reads: convert {name} and the others to JPEG or PNG of 8 bits"
    if videos := tree.files(*VIDEOS):
        return f": {printable(videos[0].name)} is a video; {FROM_VIDEOS}"
    if dead := [name for one in tree.below() for name in one.dead]:
        return f": {len(dead)} links in it lead nowhere, such as {printable(dead[0])}"
    if tables := tree.files(*_ENDINGS[:3]):
        return f"; if {_shown(tables[0])} lists images, give that file as the dataset"
    other = tree.other_kinds()
    return (
        ": looked for .jpg, .png and whatever else Pillow reads in it and in its folders, one "
        "folder a class" + (f"; it holds {other}" if other else "")
    )


def is_of_answers(file: Path) -> bool:
    """Whether a list holds a model's answers, or is a form for them (`sample_submission.csv`)."""
    return _OF_ANSWERS.search(file.stem) is not None


def no_images(file: Path) -> str:
    """What a file is that tells labels without images, with what to do; "" for any other."""
    return next((said for known, said in _OF_ARRAYS if known.fullmatch(file.name)), "").format("it")


def _in_order(files: Sequence[Path]) -> list[Path]:
    """The likeliest first: those of test images, and the least deep; not more than may be read."""

    def place(file: Path) -> tuple[object, ...]:
        of_other_ranks = "_variant_" not in file.name  # FGVC-Aircraft's usual classes
        return (_ORDER.index(split_kind(file.stem)), len(file.parts), of_other_ranks, file)

    return sorted(files, key=place)[:_LOOKED_INTO]


def files_above(folder: Path) -> list[Path]:
    """The files beside a folder, and in the folders of lists beside it."""
    found: list[Path] = []
    folders = [folder.parent]
    try:
        for beside in folders:
            for entry in islice(os.scandir(beside), _LISTED_ABOVE):
                if entry.is_file() and entry.name.endswith(_ENDINGS):
                    found.append(Path(entry.path))
                elif OF_LISTS.fullmatch(entry.name) or (
                    entry.name == "data" and beside != folder.parent
                ):
                    folders.append(Path(entry.path))
    except OSError:
        pass
    return found


def _of_names(tree: Folder) -> str:
    """What the images' own names tell: `cat.0.jpg`, `beagle_12.jpg`."""
    names = [Path(path).name for path in tree.image_files()]
    found = [match[1] for name in names if (match := _NAMED_BY_CLASS.fullmatch(name))]
    classes = Counter(found)
    if len(found) < len(names) or len(classes) < 2 or min(classes.values()) < 2:
        return ""
    first, second = sorted(classes)[:2]
    return (
        f"if the names of its images tell their classes ({printable(names[0])}), move those into "
        f"folders named so ({printable(first)}/, {printable(second)}/, …)"
    )


def _head(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(_HEAD_BYTES).decode("utf-8-sig", "replace")
    except OSError:
        return ""


def _whole_lines(head: str) -> str:
    """Without the last line, where that may be cut off."""
    return head.rpartition("\n")[0] if len(head) >= _HEAD_BYTES else head


def _shown(file: Path) -> str:
    return printable(str(file))
