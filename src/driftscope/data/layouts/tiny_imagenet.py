"""Tiny-ImageNet as it is published: images in a folder within each class, and one list of them.

`train/CLASS/images/*.JPEG`, `val/images/*.JPEG` with their classes in `val/val_annotations.txt`,
`test/images/*.JPEG` without any. The words of its WordNet ids lie beside, in `words.txt`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from driftscope.data.address import Address
from driftscope.data.encoded import printable
from driftscope.data.layouts.found import Found
from driftscope.data.layouts.lists import found_lists
from driftscope.data.layouts.tree import Folder
from driftscope.errors import DataError, one_line
from driftscope.files import read_text
from driftscope.limits import LIST_MB

_LIST = "val_annotations.txt"


def recognise(tree: Folder, address: Address) -> Found | None:
    """A folder, or the only one in it, whose `val` has its list and its images in one folder.

    Raises:
        DataError: the list cannot be read.
    """
    while not tree.images and len(tree.with_images) == 1:
        (tree,) = tree.with_images
    parts = {one.name: one for one in tree.with_images}
    annotated = parts.get("val")
    if annotated is None or _LIST not in annotated.others:
        return None
    images = next((one for one in annotated.folders if one.name == "images"), annotated)
    if not images.images:
        return None  # sorted into class folders since
    rows = {name: _of_folders(part) for name, part in parts.items() if name != "val"}
    rows["val"] = _of_list(Path(annotated.path, _LIST), images)
    root = Path(tree.path)
    return found_lists(address, "Tiny-ImageNet folder", rows, dict.fromkeys(rows, (root,)), root)


def _of_list(file: Path, images: Folder) -> dict[str, list[Any]]:
    """Rows of a name, a class and the corners of a box."""
    try:
        lines = [line.split("\t") for line in read_text(file, LIST_MB).splitlines() if line]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the list {file}: {one_line(error)}") from None
    if wrong := next((number for number, line in enumerate(lines, 1) if len(line) < 2), None):
        raise DataError(f"{file} names no class in row {wrong}; its rows are IMAGE, tab, CLASS, …")
    listed = {line[0]: line[1] for line in lines}
    if missing := next((name for name in images.images if name not in listed), None):
        raise DataError(f"{file} names no class of the image {printable(missing)} beside it")
    names = sorted(listed)
    return {
        "path": [f"{images.path}/{name}" for name in names],
        "label": [listed[name] for name in names],
    }


def _of_folders(part: Folder) -> dict[str, list[Any]]:
    """The images of class folders; of the folder `images` alone without classes."""
    if [one.name for one in part.with_images] == ["images"]:
        return {"path": list(part.image_files())}
    pairs = [(file, one.name) for one in part.with_images for file in one.image_files()]
    return {"path": [file for file, _ in pairs], "label": [name for _, name in pairs]}
