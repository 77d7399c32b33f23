"""Files of MATLAB that tell flat images' classes: Oxford's flowers, Stanford's cars, ImageNet.

Each reads what its authors publish beside the images, and gives a table a split: paths, with the
class of each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from driftscope.data.address import WHOLE
from driftscope.data.layouts.mat_files import read_mat
from driftscope.data.layouts.tree import Folder
from driftscope.data.names import benchmark_words
from driftscope.files import read_text
from driftscope.limits import LIST_MB

Columns = dict[str, list[Any]]
Told = dict[str, Columns]
"""A table of paths and labels by the name of the split."""

_OF_FLOWERS = "imagelabels.mat"
_SPLITS_OF_FLOWERS = {"train": "trnid", "validation": "valid", "test": "tstid"}
_ALL_CARS = "cars_annos.mat"
_CARS = {"train": "cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
_TRUTH = "ILSVRC2012_validation_ground_truth.txt"


def told_by_mats(tree: Folder) -> tuple[Told, str]:
    """What such files below a folder tell, and their names; ({}, "") where there are none.

    Raises:
        OSError, ValueError, KeyError, IndexError, TypeError: they are damaged or of another form.
    """
    files = {file.name: file for file in tree.files(".mat", _TRUTH.lower())}
    readers: Sequence[Callable[[Mapping[str, Path]], tuple[Told, Sequence[str]]]] = (
        _flowers,
        _cars,
        _cars_in_parts,
        _imagenet,
    )
    for reader in readers:
        told, names = reader(files)
        if told:
            return told, ", ".join(names)
    return {}, ""


def _flowers(files: Mapping[str, Path]) -> tuple[Told, Sequence[str]]:
    """`labels[i]` is the class of `image_{i + 1}`; `setid.mat` tells the splits."""
    if _OF_FLOWERS not in files:
        return {}, ()
    labels = list(map(str, np.atleast_1d(read_mat(files[_OF_FLOWERS])["labels"]).tolist()))
    names = sorted(set(labels), key=int)
    words = benchmark_words("flowers-102", names)
    splits: Mapping[str, Sequence[int]] = {WHOLE: range(1, 1 + len(labels))}
    if divides := files.get("setid.mat"):
        held = read_mat(divides)
        splits = {
            name: np.atleast_1d(held[key]).tolist() for name, key in _SPLITS_OF_FLOWERS.items()
        }
    told: Told = {}
    for split, numbers in splits.items():
        of_split = [labels[number - 1] for number in numbers]
        told[split] = {"path": [f"image_{number:05d}" for number in numbers], "label": of_split}
        if words:
            told[split]["label_name"] = [words[one] for one in of_split]
    return told, [_OF_FLOWERS, *(["setid.mat"] if divides else [])]


def _cars(files: Mapping[str, Path]) -> tuple[Told, Sequence[str]]:
    """One file of all cars: a path, a class from 1, and whether it is one to test on."""
    if _ALL_CARS not in files:
        return {}, ()
    held = read_mat(files[_ALL_CARS])
    told: Told = {name: {"path": [], "label": []} for name in ("train", "test")}
    for one in held["annotations"]:
        columns = told["test" if int(one["test"]) else "train"]
        columns["path"].append(str(one["relative_im_path"]))
        columns["label"].append(str(held["class_names"][int(one["class"]) - 1]))
    return told, [_ALL_CARS]


def _cars_in_parts(files: Mapping[str, Path]) -> tuple[Told, Sequence[str]]:
    """A file a split; the names of the classes in another."""
    here = {split: files[name] for split, name in _CARS.items() if name in files}
    if not here or "cars_meta.mat" not in files:
        return {}, ()
    names = read_mat(files["cars_meta.mat"])["class_names"]
    told: Told = {}
    for split, file in here.items():
        rows = read_mat(file)["annotations"]
        told[split] = {
            "path": [f"cars_{split}/{row['fname']}" for row in rows],
            "label": [str(names[int(row["class"]) - 1]) for row in rows],
        }
    return told, [file.name for file in here.values()]


def _imagenet(files: Mapping[str, Path]) -> tuple[Told, Sequence[str]]:
    """A number a line in the order of the images; `meta.mat` tells each number's WordNet id."""
    if _TRUTH not in files or "meta.mat" not in files:
        return {}, ()
    ids = dict(_wordnet_ids(read_mat(files["meta.mat"])["synsets"]))
    numbers = re.findall(r"\d+", read_text(files[_TRUTH], LIST_MB))
    labels = [ids[int(number)] for number in numbers]
    paths = [f"ILSVRC2012_val_{place:08d}" for place in range(1, 1 + len(labels))]
    return {"val": {"path": paths, "label": labels}}, [_TRUTH, "meta.mat"]


def _wordnet_ids(synsets: Any) -> Iterator[tuple[int, str]]:
    for one in synsets:
        yield int(one["ILSVRC2012_ID"]), str(one["WNID"])
