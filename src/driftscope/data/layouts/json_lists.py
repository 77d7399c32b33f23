"""JSON files that tell of images: COCO's, Karpathy's of Flickr and COCO, lists of objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from driftscope.data.address import WHOLE, Address, split_kind
from driftscope.data.layouts.files_beside import OF_LISTS
from driftscope.data.layouts.found import Found
from driftscope.data.layouts.lists import columns_of, found_lists, image_starts
from driftscope.data.layouts.plain_lists import of_folders
from driftscope.data.layouts.tree import Folder, image_suffixes
from driftscope.errors import DataError, one_line
from driftscope.files import read_values
from driftscope.limits import LIST_MB

_CAPTIONS = "captions_"
_KARPATHY = "dataset_"

Columns = dict[str, list[Any]]


def recognise_file(file: Path, address: Address) -> Found:
    """One file: its rows, divided where they say their split.

    Raises:
        DataError: unreadable, or of another form.
    """
    return _found(address, {WHOLE: file}, _root_of(file))


def recognise(tree: Folder, address: Address) -> Found | None:
    """A folder of images with Karpathy's `dataset_NAME.json`, or COCO's `captions_SPLIT.json`."""
    files = [file for file in tree.files(".json") if file.stem.startswith((_CAPTIONS, _KARPATHY))]
    if not tree.num_images or not files:
        return None
    captions = {
        file.stem.removeprefix(_CAPTIONS): file for file in files if file.stem.startswith(_CAPTIONS)
    }
    if captions:
        return _found(address, captions, Path(tree.path))
    return _found(address, {WHOLE: files[0]}, Path(tree.path)) if len(files) == 1 else None


def _found(address: Address, files: Mapping[str, Path], root: Path) -> Found:
    rows = {split: _read(file) for split, file in files.items()}
    told = {split: file.stem for split, file in files.items()}
    starts = {
        split: tuple(dict.fromkeys((*image_starts(root, told[split]), root / split)))
        for split in files
    }
    return found_lists(address, "JSON list of images", rows, starts, root, told=told)


def _root_of(file: Path) -> Path:
    """Where the images of a file lie below."""
    return file.parent.parent if OF_LISTS.fullmatch(file.parent.name) else file.parent


def _read(file: Path) -> Columns:
    try:
        held = from_json(read_values(file, LIST_MB))
        if isinstance(held, list):
            return _of_objects(held)
        if "annotations" in held:
            return _of_coco(file, held)
        if "images" in held and all("sentences" in one for one in held["images"]):
            return _of_karpathy(held["images"])
        return _of_mapping(held)
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the list {file}: {one_line(error)}") from None
    except (KeyError, TypeError, AttributeError, IndexError):
        raise DataError(
            f"{file} is no list of images that is known: give COCO's form (images, annotations), "
            "Karpathy's (images with filename and sentences), or a list of objects such as "
            '{"path": …, "label": …}'
        ) from None


def _of_objects(rows: Sequence[Any]) -> Columns:
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise TypeError
    return columns_of(rows)


def _of_mapping(held: Mapping[str, Any]) -> Columns:
    """Labels or captions by path, or lists of paths or objects by class, by split or by one key."""
    values = list(held.values())
    are_paths = all(Path(path).suffix.lower() in image_suffixes() for path in held)
    if values and all(isinstance(one, dict) for one in values):
        if are_paths:
            return _of_objects([{"path": path, **one} for path, one in held.items()])
        return _of_objects(values if all(map(str.isdecimal, held)) else _rows_of_columns(held))
    if are_paths:
        sentences = [text for one in values for text in (one if isinstance(one, list) else [one])]
        return {"path": list(held), "caption" if _are_sentences(sentences) else "label": values}
    if not values or not all(isinstance(one, list) for one in values):
        raise TypeError
    keys = [key for key, of_key in held.items() for _ in of_key]
    listed = [one for of_key in values for one in of_key]
    are_splits = all(map(split_kind, held))
    if all(isinstance(one, dict) for one in listed) and (are_splits or len(held) == 1):
        return _of_objects(listed) | ({"split": keys} if are_splits else {})
    if not all(isinstance(one, str) for one in listed):
        raise TypeError
    if are_splits:
        return {**(of_folders(listed) or {"path": listed}), "split": keys}
    return {"path": listed, "label": keys}


def _rows_of_columns(held: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `{"path": {"0": …}, "label": {"0": …}}`, as pandas writes a table by columns."""
    rows = next(iter(held.values()))
    if not all(map(str.isdecimal, rows)) or any(of.keys() != rows.keys() for of in held.values()):
        raise TypeError
    return [{column: of[row] for column, of in held.items()} for row in rows]


def _are_sentences(values: Sequence[Any]) -> bool:
    """Whether they are captions: texts of several words, hardly one of them twice."""
    texts = [one for one in values if isinstance(one, str) and " " in one.strip()]
    return 2 * len(set(texts)) > len(values)


def _of_karpathy(images: Sequence[Mapping[str, Any]]) -> Columns:
    return {
        "path": [f"{one.get('filepath', '.')}/{one['filename']}" for one in images],
        "caption": [one["sentences"] for one in images],
        "split": [one["split"] for one in images],
    }


def _of_coco(file: Path, held: Mapping[str, Any]) -> Columns:
    """Every image with its captions, or with the one category of what is marked in it."""
    paths = {one["id"]: one["file_name"] for one in held["images"]}
    said: dict[Any, list[Any]] = {number: [] for number in paths}
    is_captioned = all("caption" in one for one in held["annotations"])
    for one in held["annotations"]:
        told = one["caption"] if is_captioned else one["category_id"]
        if told not in said[one["image_id"]]:
            said[one["image_id"]].append(told)
    if is_captioned:
        return {"path": list(paths.values()), "caption": list(said.values())}
    several = sum(len(of_image) > 1 for of_image in said.values())
    if several:
        raise DataError(
            f"{file} marks things of several categories in {several:,} of its {len(said):,} "
            "images, so they have no one class; give its captions, or a set of one class an image"
        )
    names = {one["id"]: one["name"] for one in held["categories"]}
    return {
        "path": list(paths.values()),
        "label": [names[of_image[0]] if of_image else None for of_image in said.values()],
    }
