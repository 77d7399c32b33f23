"""Every form in which image sets lie somewhere: a file a layout, recognised from one look.

A folder is walked once. The layouts look at that tree one after the other; the first that knows
its mark has it, and a folder with no mark is one of class folders. What is found is a `Found`,
which everything after reads. A new layout is one file, a place in this order, and a row of the
conformance suite (tests/test_layouts.py).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from driftscope.data.address import Address, parse_address
from driftscope.data.encoded import printable
from driftscope.data.layouts import (
    arrow,
    cifar,
    class_folders,
    embedded,
    hub,
    idx,
    json_lists,
    lists,
    npz,
    shards,
    stl10,
    svhn,
    tiny_imagenet,
    webdataset,
)
from driftscope.data.layouts.found import Found
from driftscope.data.layouts.tree import Folder, walk
from driftscope.data.other_kinds import ARCHIVES, FROM_ARRAYS, is_array
from driftscope.data.procedural import PROCEDURAL_SETS
from driftscope.errors import DataError, did_you_mean, told_as
from driftscope.files import named_path
from driftscope.nearby import neighbour
from driftscope.suites import PRESETS

ARRAYS = (
    cifar.recognise,
    idx.recognise,
    stl10.recognise,
    svhn.recognise,
    npz.recognise,
)
"""Layouts whose images are arrays of a few files."""


def _arrays(tree: Folder, address: Address) -> Found | None:
    """The set of arrays below a folder; what lies beside it is said.

    Raises:
        DataError: there are sets of several kinds.
    """
    sets = [found for recognise in ARRAYS if (found := recognise(tree, address))]
    if len(sets) > 1:
        places = ", ".join(printable(str(found.folder)) for found in sets)
        raise DataError(f"{printable(tree.path)} holds several sets ({places}); give one of them")
    if not sets:
        return None
    (found,) = sets
    beside = [file for file in tree.files("") if file.parent != found.folder]
    if not beside:
        return found
    said = f"{len(beside)} files beside its folder are passed over: {printable(beside[0].name)}"
    return replace(found, passed_over=(*found.passed_over, said))


FOLDERS = (
    arrow.recognise,
    shards.recognise,
    _arrays,
    webdataset.recognise,
    lists.recognise,
    json_lists.recognise,
    tiny_imagenet.recognise,
)
"""Layouts with a mark, in the order in which they are looked for."""
FILES = {
    ".parquet": shards.recognise_file,
    **dict.fromkeys((".arrow", ".feather"), arrow.recognise_file),
    ".tar": webdataset.recognise_file,
    ".json": json_lists.recognise_file,
    ".npz": npz.recognise_file,
    **dict.fromkeys(lists.LIST_SUFFIXES, lists.recognise_file),
}
"""Layouts that are a file, by its ending."""


def look(source: str | Path) -> Found:
    """What is at a place, from one look.

    Raises:
        DataError: neither a known name nor a place with images; an option that means nothing
            there.
    """
    address = parse_address(source)
    if found := embedded.recognise(address):
        return found
    place = place_of(address)
    if place is None:
        return hub.recognise(address).checked()
    with told_as(DataError, f"cannot read {printable(str(place))}"):
        return _on_disk(place, address).checked()


def _on_disk(place: Path, address: Address) -> Found:
    if place.is_dir():
        tree = walk(place)
        marked = (recognise(tree, address) for recognise in FOLDERS)
        return next(filter(None, marked), None) or class_folders.recognise(tree, address)
    if not place.is_file():
        raise DataError(f"{place} is a pipe or a device; give a folder of images, or a file")
    recognise = FILES.get(place.suffix.lower())
    if recognise is None and is_array(place.name):
        folder = walk(place.parent)
        is_of_set = any(recognise(folder, address) for recognise in ARRAYS)
        way_out = f"give its folder {folder.path}" if is_of_set else FROM_ARRAYS
        raise DataError(f"{place} holds arrays; {way_out}")
    if recognise is None and place.suffix.lower() in ARCHIVES:
        raise DataError(f"{place} is packed; unpack it, and give the folder that comes out")
    if recognise is None:
        raise DataError(
            f"{place} is a file; give the folder that holds the images, a .csv, .tsv, .json or "
            ".jsonl list of them, or a .parquet or .tar file"
        )
    return recognise(place, address)


def place_of(address: Address) -> Path | None:
    """Where on this disk a set is; None for a hub dataset without a copy here.

    Raises:
        DataError: it is neither here nor can it be a hub dataset.
    """
    path = named_path(address.place)
    if path.exists():
        return path
    copy = hub.local_copy(address.place)
    if copy is not None:
        return copy
    if hub.preset_of(address.place) or hub.looks_like_hub_id(address.place):
        return None
    near = neighbour(address.place)
    known = did_you_mean(address.place, [*PROCEDURAL_SETS, *PRESETS])
    raise DataError(
        f"no dataset {address.place!r}: there is no folder or file of that name here"
        + (f", but {near}" if near else "")
        + f"; {known}"
    )
