"""Benchmarks in files of arrays: what is read is what was written, and nothing in them is run."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import array_sets
import numpy as np
import pytest
from array_sets import LABELS, LEVELS
from small_sets import NAMES

from driftscope.data import EncodedSet, labelled, open_dataset, open_labelled
from driftscope.data.prompts import words_of
from driftscope.errors import DataError
from driftscope.transfer.doubts import doubts_of_names


def as_read(place: Path | str, split: str = "test") -> tuple[list[tuple[str, int]], EncodedSet]:
    """The words of every image's class, and its grey level."""
    images = open_labelled(place, split)
    assert isinstance(images, EncodedSet)
    labels, names = labelled(images)
    words = words_of(names, dict(images.words))
    levels = images.pixels(range(len(images)), 8)[:, 0, 0, 0].tolist()
    return [(words[one], level) for one, level in zip(labels, levels, strict=True)], images


def told(*words: str) -> list[tuple[str, int]]:
    return [(words[label], level) for label, level in zip(LABELS, LEVELS, strict=True)]


CLOTHES, DIGITS = ("t-shirt", "trouser", "pullover"), ("number 0", "number 1", "number 2")
SETS: dict[str, tuple[Callable[[Path], str], tuple[str, ...]]] = {
    "MNIST/raw": (array_sets.mnist, DIGITS),
    "x/mnist": (lambda root: array_sets.mnist(root, ".", ".gz"), DIGITS),
    "mnist/FashionMNIST/raw": (array_sets.mnist, CLOTHES),
    "KMNIST/raw": (array_sets.mnist, ("0", "1", "2")),
    "cars": (array_sets.svhn, DIGITS),
    "medmnist": (array_sets.npz, ("0", "1", "2")),
    "keras": (lambda root: array_sets.npz(root, "x_{}", "y_{}"), ("0", "1", "2")),
    "cifar-10": (lambda root: array_sets.cifar10(root, 4), NAMES),
    "cifar-100": (array_sets.cifar100, NAMES),
}


@pytest.mark.parametrize("name", SETS)
def test_numbers_are_told_in_words_where_those_are_known(tmp_path: Path, name: str) -> None:
    write, words = SETS[name]
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    read, images = as_read(write(tmp_path / name))
    assert read == told(*words)
    said = words_of(images.class_names or (), dict(images.words))
    doubts = list(doubts_of_names(images.class_names or (), said))
    assert bool(doubts) == (words == ("0", "1", "2"))


def test_the_rows_of_an_image_are_not_its_columns(tmp_path: Path) -> None:
    """Of each form an image whose left half alone is bright."""
    half = np.zeros((1, 96, 96, 3), np.uint8)
    half[:, :, :48] = 200
    array_sets.stl10(tmp_path / "stl")
    (tmp_path / "stl" / "test_X.bin").write_bytes(half.transpose(0, 3, 2, 1).tobytes())
    (tmp_path / "stl" / "test_y.bin").write_bytes(b"\1")
    array_sets.cifar100(tmp_path / "cifar")
    data = half[:, :32, 32:64].transpose(0, 3, 1, 2).reshape(1, -1)
    held = {"data": np.asfortranarray(data), "fine_labels": [0]}
    (tmp_path / "cifar" / "test").write_bytes(pickle.dumps(held, 2))
    for place, size in ((tmp_path / "stl", 96), (tmp_path / "cifar", 32)):
        shown = open_dataset(place, "test").pixels([0], size)[0]
        assert shown[:, :, : size // 2].unique().tolist() == [200]
        assert shown[:, :, size // 2 :].unique().tolist() == [0]


def test_the_coarse_labels_of_cifar_are_read_where_they_are_asked_for(tmp_path: Path) -> None:
    place = array_sets.cifar100(tmp_path / "set")
    _, images = as_read(place)
    assert any("add ?label=coarse_labels for the coarse" in note for note in images.notes)
    assert as_read(f"{place}?label=coarse_labels")[0] == told("pet", "pet", "bird")
    with pytest.raises(DataError, match="has the labels fine_labels and coarse_labels, not 'x'"):
        open_dataset(f"{place}?label=x", "test")


class Harmful:
    """What would make a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_nothing_in_a_pickle_is_run(tmp_path: Path) -> None:
    place = Path(array_sets.cifar100(tmp_path / "set"))
    (place / "test").write_bytes(pickle.dumps({"data": Harmful(tmp_path / "made")}))
    with pytest.raises(DataError, match=r"test is a pickle that names posix\.mkdir"):
        open_dataset(place, "test")
    assert not (tmp_path / "made").exists()
    odd = np.array([{}, {}], object)
    for held in ({"data": odd, "fine_labels": [0]}, [1], {"data": np.zeros(3)}):
        (place / "test").write_bytes(pickle.dumps(held))
        with pytest.raises(DataError, match="cannot read the arrays"):
            open_dataset(place, "test")


def test_damaged_and_ambiguous_files_are_one_sentence(tmp_path: Path) -> None:
    cut = {
        "stl": (array_sets.stl10, "test_X.bin"),
        "binary": (array_sets.cifar10_binary, "test_batch.bin"),
        "python": (array_sets.cifar100, "test"),
        "idx": (array_sets.mnist, "t10k-images-idx3-ubyte"),
        "labels": (array_sets.mnist, "t10k-labels-idx1-ubyte"),
        "mat": (array_sets.svhn, "test_32x32.mat"),
    }
    for name, (write, file) in cut.items():
        path = Path(write(tmp_path / name)) / file
        path.write_bytes(path.read_bytes()[:-7])
        with pytest.raises(DataError, match=r"cannot read the arrays of|holds 6 images and labels"):
            open_dataset(tmp_path / name, "test")
    (tmp_path / "python" / "train").unlink()
    with pytest.raises(DataError, match="lacks train of CIFAR's files"):
        open_dataset(tmp_path / "python", "test")
    with pytest.raises(DataError, match=r"several (folders|sets) .*; give one of them"):
        open_dataset(tmp_path, "test")
    with pytest.raises(DataError, match=rf"holds arrays; give its folder {tmp_path / 'mat'}"):
        open_dataset(tmp_path / "mat" / "test_32x32.mat", "test")


def test_sets_of_several_kinds_are_asked_about_and_files_beside_one_are_said(
    tmp_path: Path,
) -> None:
    array_sets.mnist(tmp_path / "data" / "MNIST" / "raw")
    (tmp_path / "data" / "mnist.tar").write_bytes(b"")
    _, images = as_read(tmp_path / "data")
    assert "1 files beside its folder are passed over: mnist.tar" in images.notes
    array_sets.stl10(tmp_path / "data" / "stl10_binary")
    with pytest.raises(DataError, match=r"several sets \(.*MNIST/raw, .*\); give one of them"):
        open_dataset(tmp_path / "data", "test")


def test_labels_that_are_not_one_an_image_are_refused(tmp_path: Path) -> None:
    images = array_sets.pixels(28)
    several = np.zeros((len(images), 14), np.uint8)
    for name, arrays, reason in (
        ("chest", (images, several), "labels of the shape"),
        ("float", (images / 255, np.array(LABELS)), "float64"),
        ("objects", (images, np.array([None, *LABELS[1:]])), "objects of Python"),
    ):
        file = tmp_path / f"{name}.npz"
        np.savez(file, test_images=arrays[0], test_labels=arrays[1])
        with pytest.raises(DataError, match=reason):
            open_dataset(file, "test")
