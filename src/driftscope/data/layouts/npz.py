"""Images and labels as arrays of one `.npz` file, as MedMNIST and Keras publish them."""

from __future__ import annotations

import re
import zipfile
from functools import partial
from pathlib import Path

from driftscope.data.address import Address, split_kind
from driftscope.data.layouts.arrays import Arrays, folder_with, found_arrays, of_numbers
from driftscope.data.layouts.found import Found
from driftscope.data.layouts.tree import Folder, walk
from driftscope.data.names import benchmark_words
from driftscope.data.other_kinds import FROM_ARRAYS
from driftscope.errors import DataError, one_line
from driftscope.files import read_arrays, read_bytes
from driftscope.limits import IMAGE_ARRAYS_MB

_FILE = re.compile(r"(?i).+\.npz")
_IMAGES = re.compile(r"(?P<split>\w+)_images|x_(?P<of_keras>\w+)")
_LABELS = "{}_labels", "y_{}"


def recognise(tree: Folder, address: Address) -> Found | None:
    """A folder that holds one such file."""
    folder = folder_with(tree, _FILE, ".npz files")
    files = [name for name in folder.others if _FILE.fullmatch(name)] if folder else []
    if folder is None or len(files) > 1:
        return None
    return _found(Path(folder.path, files[0]), folder, address)


def recognise_file(file: Path, address: Address) -> Found:
    """The file.

    Raises:
        DataError: it holds other arrays, or cannot be read.
    """
    if found := _found(file, walk(file.parent), address):
        return found
    raise DataError(
        f"{file} holds no arrays such as train_images and train_labels, or x_train and y_train; "
        + FROM_ARRAYS
    )


def _found(file: Path, folder: Folder, address: Address) -> Found | None:
    try:
        with zipfile.ZipFile(file) as held:
            names = {name.removesuffix(".npy") for name in held.namelist()}
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"cannot read the arrays of {file}: {one_line(error)}") from None
    splits = {}
    for match in filter(None, map(_IMAGES.fullmatch, sorted(names))):
        split = match["split"] or match["of_keras"]
        labels = next((one for form in _LABELS if (one := form.format(split)) in names), None)
        if labels and split_kind(split):
            splits[split] = partial(_split, file, match[0], labels)
    if not splits:
        return None
    return found_arrays(address, "file of arrays", splits, folder)


def _split(file: Path, images: str, labels: str) -> Arrays:
    """Class names are the numbers; what those of MNIST and CIFAR-10 stand for is known."""
    try:
        held = read_arrays(read_bytes(file, IMAGE_ARRAYS_MB), (images, labels), IMAGE_ARRAYS_MB)
    except zipfile.BadZipFile as error:
        raise ValueError(error) from None
    numbers = held[labels]
    if numbers.ndim == 2 and numbers.shape[1] == 1:
        numbers = numbers[:, 0]
    places, names = of_numbers(numbers)
    return Arrays(held[images], places, names, benchmark_words(file.stem, names))
