"""CIFAR-10 and CIFAR-100 as their authors publish them, for Python or in binary.

The files for Python are pickles, which may run anything when they are unpickled. Nothing of these
is run: what a pickle names of NumPy becomes one of three names of ours that keep what they are
given, and any other name is refused.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from driftscope.data.address import Address
from driftscope.data.layouts.arrays import Arrays, Bytes, folder_with, found_arrays
from driftscope.data.layouts.found import Found
from driftscope.data.layouts.tree import Folder
from driftscope.errors import DataError
from driftscope.files import read_bytes, read_text
from driftscope.limits import IMAGE_ARRAYS_MB, LIST_MB

_NAMES = re.compile(r"batches\.meta(\.txt)?|meta|fine_label_names\.txt")
"""Files of class names, of which each of the four forms has one."""
_BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5")
_ONE_A_SPLIT: Mapping[str, Sequence[str]] = {"train": ("train",), "test": ("test",)}
_FINE, _COARSE = "fine_labels", "coarse_labels"
_NUM_VALUES = 3 * 32 * 32


def recognise(tree: Folder, address: Address) -> Found | None:
    """`cifar-10-batches-py`, `cifar-100-python`, `cifar-10-batches-bin` or `cifar-100-binary`.

    Raises:
        DataError: several of them; `?label=` says what there is not; files are missing.
    """
    folder = folder_with(tree, _NAMES, "CIFAR's class names")
    if folder is None:
        return None
    of_ten = any(name.startswith("batches.meta") for name in folder.others)
    is_binary = not {"batches.meta", "meta"} & {*folder.others}
    files = _files_of(folder, of_ten=of_ten, ending=".bin" if is_binary else "")
    missing = [file for of in files.values() for file in of if file.name not in folder.others]
    if len(missing) == sum(map(len, files.values())):
        return None  # a file of such a name that is another's
    if missing:
        raise DataError(f"{address.place} lacks {missing[0].name} of CIFAR's files; fetch it again")
    label = address.options.get("label", _FINE)
    if label not in (_FINE, _COARSE):
        raise DataError(f"{address.place} has the labels {_FINE} and {_COARSE}, not {label!r}")
    read = partial(_binary if is_binary else _for_python, label="labels" if of_ten else label)
    note = f"its classes are the fine ones of CIFAR-100; add ?label={_COARSE} for the coarse"
    return found_arrays(
        address,
        "set of CIFAR's files",
        {split: partial(read, of) for split, of in files.items()},
        folder,
        options=() if of_ten else ("label",),
        notes=() if of_ten or "label" in address.options else (note,),
    )


def _files_of(folder: Folder, *, of_ten: bool, ending: str) -> dict[str, list[Path]]:
    names = {"train": _BATCHES, "test": ("test_batch",)} if of_ten else _ONE_A_SPLIT
    return {split: [Path(folder.path, name + ending) for name in of] for split, of in names.items()}


def _as_images(rows: NDArray[np.uint8]) -> Bytes:
    """Rows of three bands of 32 × 32 as pixels [image, row, column, 3]."""
    return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def _binary(files: Sequence[Path], label: str) -> Arrays:
    """Records of a byte for each label and an image; of two labels the first is the coarse one."""
    num_labels = 1 if label == "labels" else 2
    of_files = []
    for file in files:
        held = np.frombuffer(read_bytes(file, IMAGE_ARRAYS_MB), np.uint8)
        if held.size % (num_labels + _NUM_VALUES):
            raise ValueError(f"{file.name} is cut off; fetch it again")
        of_files.append(held.reshape(-1, num_labels + _NUM_VALUES))
    records = np.concatenate(of_files)
    name = "batches.meta.txt" if label == "labels" else f"{label[:-1]}_names.txt"
    names = read_text(files[0].with_name(name), LIST_MB).split()
    labels = records[:, 0 if label == _COARSE else num_labels - 1]
    return Arrays(_as_images(records[:, num_labels:]), labels.astype(np.int64), names)


def _for_python(files: Sequence[Path], label: str) -> Arrays:
    batches = [read_inert(file) for file in files]
    if label == "labels":
        names = read_inert(files[0].with_name("batches.meta"))["label_names"]
    else:
        names = read_inert(files[0].with_name("meta"))[f"{label[:-1]}_names"]
    pixels = np.concatenate([np.asarray(batch["data"]) for batch in batches])
    labels = np.concatenate([np.asarray(batch[label], np.int64) for batch in batches])
    return Arrays(_as_images(pixels), labels, list(map(_text, names)))


# ---------------------------------------------------------------- pickles of which nothing is run


def read_inert(file: Path) -> Mapping[str, Any]:
    """The dictionary of a pickle of numbers, texts, lists and arrays of bytes.

    Raises:
        ValueError: it names anything else, or is damaged.
        OSError: it cannot be read, or is larger than is taken.
    """
    try:
        held = _Inert(BytesIO(read_bytes(file, IMAGE_ARRAYS_MB)), encoding="bytes").load()
    except _NameError as error:
        raise ValueError(
            f"{file.name} is a pickle that names {error}, and none is unpickled that names more "
            "than an array; fetch it again from its authors"
        ) from None
    except Exception as error:  # what a damaged pickle raises has no common base
        raise ValueError(f"{file.name} is a damaged pickle ({error}); fetch it again") from None
    if not isinstance(held, dict):
        raise ValueError(f"{file.name} holds no dictionary, as CIFAR's files do")
    return {_text(key): _array(value) for key, value in held.items()}


class _NameError(Exception):
    """A pickle names what is not known."""


class _Type:
    """Stands for `numpy.dtype`: the name of the numbers' kind."""

    def __init__(self, kind: Any, *_: Any) -> None:
        self.kind = _text(kind)

    def __setstate__(self, state: Any) -> None:
        """The order of bytes, of which single ones have none."""


class _Array:
    """Stands for `numpy.ndarray`, and for the function that makes one: keeps its state."""

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _bytes_of(text: str, _encoding: object = None) -> bytes:
    """Stands for `_codecs.encode`, by which Python 3 writes bytes into old pickles."""
    return text.encode("latin-1")


_STAND_INS: Mapping[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _bytes_of,
}


class _Inert(pickle.Unpickler):
    """Knows no names but those."""

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name."""
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise _NameError(f"{module}.{name}") from None


def _array(value: Any) -> Any:
    """The array of bytes that a stand-in kept; other values as they are."""
    if not isinstance(value, _Array):
        return value
    _, shape, kind, is_by_column, data = value.state
    if not isinstance(kind, _Type) or kind.kind not in ("u1", "|u1") or not isinstance(data, bytes):
        raise ValueError("it holds an array of something else than bytes")
    order: Literal["F", "C"] = "F" if is_by_column else "C"
    pixels: Bytes = np.frombuffer(data, np.uint8).reshape([int(one) for one in shape], order=order)
    return pixels


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
