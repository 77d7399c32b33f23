"""Flat images whose classes files beside them tell, in the forms that benchmarks publish."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from small_sets import NAMES, png, write

from driftscope.data import EncodedSet, labelled, open_dataset, open_labelled
from driftscope.data.prompts import words_of
from driftscope.errors import DataError

PARTS = {"train": (1, 2), "test": (3,)}
"""Copies of each class by split; the image of class 2 and copy 3 shows the level 23."""
WORDNET = ("n01440764", "n01443537", "n01484850")


def rows(split: str) -> list[tuple[int, int]]:
    """Class and level of every image, so that neighbours are of different classes."""
    return [(at, 10 * at + copy) for copy in PARTS[split] for at in range(len(NAMES))]


def text(file: Path, lines: Sequence[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n")


def images(folder: Path, form: str, split: str, start: int = 1) -> list[tuple[str, int]]:
    """Files named by their place in the list; each name with its class."""
    folder.mkdir(parents=True, exist_ok=True)
    named = []
    for place, (at, level) in enumerate(rows(split), start):
        name = form.format(at=at, name=NAMES[at], level=level, place=place)
        (folder / name).write_bytes(png(level))
        named.append((name, at))
    return named


def structs(entries: Sequence[Mapping[str, object]]) -> np.ndarray:
    held = np.zeros((1, len(entries)), [(key, "O") for key in entries[0]])
    for place, entry in enumerate(entries):
        for key, value in entry.items():
            held[0, place][key] = value
    return held


def pets(root: Path) -> None:
    for split, list_ in (("train", "trainval"), ("test", "test")):
        named = images(root / "images", "{name}_{level}.jpg", split)
        lines = [f"{name[:-4]} {at + 1} 1 {at + 1}" for name, at in named]
        text(root / "annotations" / f"{list_}.txt", lines)
        write(root, [f"annotations/trimaps/{name[:-4]}.png" for name, _ in named])


def aircraft(root: Path) -> None:
    data = root / "fgvc-aircraft-2013b" / "data"
    for split in PARTS:
        named = images(data / "images", "00{level}.jpg", split)
        for rank, told in (("variant", NAMES), ("family", ("a", "a", "b"))):
            lines = [f"{name[:-4]} {told[at]}" for name, at in named]
            text(data / f"images_{rank}_{split}.txt", lines)


def flowers(root: Path) -> None:
    first = images(root / "jpg", "image_{place:05d}.jpg", "test")
    then = images(root / "jpg", "image_{place:05d}.jpg", "train", 1 + len(first))
    savemat(root / "imagelabels.mat", {"labels": [[at + 1 for _, at in (*first, *then)]]})
    numbers = {"tstid": first, "trnid": then}
    ids = {key: [int(name[6:11]) for name, _ in of] for key, of in numbers.items()}
    savemat(root / "setid.mat", {**ids, "valid": ids["trnid"][:0]})


def cars(root: Path) -> None:
    annotations = [
        {"relative_im_path": f"car_ims/{name}", "class": at + 1, "test": int(split == "test")}
        for split, start in (("train", 1), ("test", 50))
        for name, at in images(root / "car_ims", "{place:06d}.jpg", split, start)
    ]
    names = np.array([NAMES], object)
    savemat(root / "cars_annos.mat", {"annotations": structs(annotations), "class_names": names})


def cars_in_parts(root: Path) -> None:
    (root / "devkit").mkdir(parents=True)
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": np.array([NAMES], object)})
    for split, file in (
        ("train", "devkit/cars_train_annos"),
        ("test", "cars_test_annos_withlabels"),
    ):
        named = images(root / f"cars_{split}", "{place:05d}.jpg", split)
        annotations = structs([{"class": at + 1, "fname": name} for name, at in named])
        savemat(root / f"{file}.mat", {"annotations": annotations})


def imagenet_of_kaggle(root: Path) -> None:
    data = root / "ILSVRC" / "Data" / "CLS-LOC"
    named = images(data / "val", "ILSVRC2012_val_{place:08d}.JPEG", "test")
    boxes = [f"{name[:-5]},{WORDNET[at]} 1 2 3 4 {WORDNET[at]} 5 6 7 8 " for name, at in named]
    text(root / "LOC_val_solution.csv", ["ImageId,PredictionString", *boxes])
    text(root / "LOC_sample_submission.csv", ["ImageId,PredictionString", "7,n01440764 0 0 1 1"])
    folders(data / "train", WORDNET)
    write(data, ["test/7.png"])


def imagenet_with_devkit(root: Path) -> None:
    named = images(root / "val", "ILSVRC2012_val_{place:08d}.JPEG", "test")
    devkit = root / "ILSVRC2012_devkit_t12" / "data"
    text(devkit / "ILSVRC2012_validation_ground_truth.txt", [str((2, 3, 1)[at]) for _, at in named])
    synsets = [{"ILSVRC2012_ID": (2, 3, 1)[at], "WNID": WORDNET[at]} for at in range(3)]
    savemat(devkit / "meta.mat", {"synsets": structs(synsets)})


def imagenet_with_numbers(root: Path) -> None:
    named = images(root / "val", "ILSVRC2012_val_{place:08d}.JPEG", "test")
    text(root / "val.txt", [f"{name} {at}" for name, at in named])
    folders(root / "train", WORDNET)


def gtsrb(root: Path) -> None:
    folders(root / "GTSRB" / "Training", ("00000", "00001", "00002"))
    named = images(root / "GTSRB" / "Final_Test" / "Images", "{place:05d}.png", "test")
    for number in range(43):  # as published, of which the test images' is one more
        file = root / "GTSRB" / "Training" / f"{number:05d}" / f"GT-{number:05d}.csv"
        text(file, ["Filename;ClassId", f"1.png;{number}", f"2.png;{number}"])
    lines = [f"{name};8;8;{at}" for name, at in named]
    text(root / "GT-final_test.csv", ["Filename;Width;Height;ClassId", *lines])


def places(root: Path) -> None:
    named = images(root / "val_256", "Places365_val_{place:08d}.jpg", "test")
    text(root / "places365_val.txt", [f"{name} {at}" for name, at in named])
    lines = [f"/{name[0]}/{name} {at}" for at, name in enumerate(NAMES)]
    text(root / "categories_places365.txt", lines)


def table_with_splits(root: Path) -> None:
    lines = [
        f"{name},{split},{at},{NAMES[at]}"
        for split, start in (("train", 1), ("test", 50))
        for name, at in images(root / "images", "{place}.png", split, start)
    ]
    text(root / "all.csv", ["filename,split,label,label_name", *lines])


def tables_in_splits(root: Path, place: str = "{split}/labels.csv") -> None:
    """Of which both splits have a file `1.png`."""
    for split in PARTS:
        named = images(root / split, "{place}.png", split)
        lines = [f"{name},{NAMES[at]}" for name, at in named]
        text(root / place.format(split=split), ["filename,label", *lines])


def tables_beside_splits(root: Path) -> None:
    tables_in_splits(root, "annotations/{split}_labels.csv")


def list_of_words(root: Path) -> None:
    named = [one for n, split in ((1, "test"), (50, "train"))
             for one in images(root / "images", "{place}.png", split, n)]  # fmt: skip
    text(root / "train" / "x.md", [])
    for split, of in (("test", named[:3]), ("train", named[3:])):
        text(root / f"{split}.txt", [f"{name} {NAMES[at]}" for name, at in (of * 2)])


def folders(root: Path, names: Sequence[str]) -> None:
    for at, level in rows("train"):
        write(root, [f"{names[at]}/{level}.png"])


NUMBERS = ("1", "2", "3")
FORMS: dict[Callable[[Path], None], tuple[Sequence[str], str]] = {
    pets: (NAMES, "train"),
    aircraft: (NAMES, "train"),
    flowers: (NUMBERS, "train"),
    cars: (NAMES, "train"),
    cars_in_parts: (NAMES, "train"),
    imagenet_of_kaggle: (("tench", "goldfish", "great white shark"), "train"),
    imagenet_with_devkit: (("tench", "goldfish", "great white shark"), ""),
    imagenet_with_numbers: (("tench", "goldfish", "great white shark"), "train"),
    gtsrb: (("00000", "00001", "00002"), "train"),
    places: (NAMES, ""),
    table_with_splits: (NAMES, "train"),
    tables_in_splits: (NAMES, "train"),
    tables_beside_splits: (NAMES, "train"),
    list_of_words: (NAMES, "train"),
}
"""The words of the classes, and whether there is a training split."""


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_flat_images_are_read_with_the_classes_that_files_tell(
    tmp_path: Path, form: Callable[[Path], None]
) -> None:
    form(tmp_path / "set")
    words, has_training = FORMS[form]
    for split in filter(None, ("test", has_training)):
        found = open_labelled(tmp_path / "set", split)
        assert isinstance(found, EncodedSet)
        labels, names = labelled(found)
        said = words_of(names, dict(found.words))
        levels = found.pixels(range(len(found)), 8)[:, 0, 0, 0].tolist()
        read = sorted((level, said[one]) for one, level in zip(labels, levels, strict=True))
        assert read == sorted((level, words[at]) for at, level in rows(split))
        assert any(note.startswith("its classes are those of") for note in found.notes)


def refused(place: Path | str) -> str:
    with pytest.raises(DataError) as refusal:
        labelled(open_labelled(place, "test"))
    return str(refusal.value)


def test_what_is_passed_over_is_counted(tmp_path: Path) -> None:
    pets(tmp_path)
    write(tmp_path, ["annotations/list.txt", "annotations/xmls/1.xml", "x.json"])
    images = open_labelled(tmp_path, "test")
    assert isinstance(images, EncodedSet)
    assert images.notes == (
        "its classes are those of annotations/test.txt, annotations/trainval.txt",
        "9 images that these do not name are passed over",
        "other files are passed over: 1 .json, 1 .txt, 1 .xml",
    )


def test_a_split_of_which_nothing_tells_is_refused_with_the_one_that_has_labels(
    tmp_path: Path,
) -> None:
    named = images(tmp_path / "train", "{place}.png", "train")
    images(tmp_path / "test", "{place}.png", "test", 50)
    text(tmp_path / "labels.csv", ["id,breed", *(f"{name[:-4]},{NAMES[at]}" for name, at in named)])
    assert "add ?split=train to score on that" in refused(tmp_path)
    assert len(open_labelled(f"{tmp_path}?split=train", "test")) == len(named)
    assert len(open_dataset(tmp_path, "test")) == len(rows("test"))  # to be probed


@pytest.mark.parametrize(
    "tables",
    [
        {"a.csv": NAMES, "b.csv": NAMES[::-1]},
        {"test_predictions.csv": NAMES},
        {"sample_submission.csv": NAMES},
        {"labels.csv": ("cat", "cat", "cat")},
    ],
)
def test_tables_that_contradict_or_are_answers_tell_nothing(
    tmp_path: Path, tables: Mapping[str, Sequence[str]]
) -> None:
    named = images(tmp_path / "images", "{place}.png", "train")
    for name, told in tables.items():
        text(tmp_path / name, ["file,label", *(f"{file},{told[at]}" for file, at in named)])
    assert "has no labels" in refused(tmp_path)


def test_a_list_of_few_of_the_images_or_of_other_classes_tells_nothing(tmp_path: Path) -> None:
    named = images(tmp_path / "few" / "images", "{place}.png", "train")
    lines = [f"{name},{NAMES[at]}" for name, at in named]
    text(tmp_path / "few" / "labels.csv", ["file,label", *lines[:2]])
    assert "has no labels" in refused(tmp_path / "few")
    named = images(tmp_path / "odd" / "test", "{place}.png", "test")
    folders(tmp_path / "odd" / "train", ("ant", "bee", "cow"))
    lines = [f"{name},{NAMES[at]}" for name, at in named]
    text(tmp_path / "odd" / "test.csv", ["file,label", *lines])
    assert "its split train has" in refused(tmp_path / "odd")


@pytest.mark.parametrize(
    ("told", "folders"),
    [
        (("Golden_Retriever", "TABBY"), ("golden retriever", "tabby")),
        (("0.0", "1.0"), ("0", "1")),
        (("0.0", "1.0"), WORDNET[:2]),
        (("v1.0", "V2.0"), ("v1.0", "v2.0")),
    ],
)
def test_a_list_spells_the_classes_of_folders_in_its_own_way(
    tmp_path: Path, told: Sequence[str], folders: Sequence[str]
) -> None:
    write(tmp_path, [f"train/{name}/{copy}.png" for name in folders for copy in (1, 2)])
    write(tmp_path, [f"test/{place}.png" for place in range(4)])
    lines = [f"{place}.png,{told[place % 2]}" for place in range(4)]
    text(tmp_path / "test.csv", ["file,label", *lines])
    labels, names = labelled(open_dataset(tmp_path, "test"))
    assert names == tuple(folders)
    assert labels.tolist() == [0, 1, 0, 1]


def test_a_card_names_classes_that_a_table_numbers_with_a_point(tmp_path: Path) -> None:
    write(tmp_path, [f"{place}.png" for place in range(4)])
    lines = [f"{place}.png,{place % 2}.0" for place in range(4)]
    text(tmp_path / "metadata.csv", ["file_name,label", *lines])
    told = "dtype: {class_label: {names: {'0': tabby, '1': beagle}}}"
    features = f"dataset_info: {{features: [{{name: label, {told}}}]}}"
    text(tmp_path / "README.md", ["---", features, "---"])
    labels, names = labelled(open_dataset(tmp_path, "train"))
    assert names == ("tabby", "beagle")
    assert labels.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("folders", "told", "names"),
    [
        (("1.0", "2.0"), ("1.0", "2.0"), ("1", "2")),
        (("0.5", "1.5"), ("0.5", "1.5"), ("0.5", "1.5")),
    ],
)
def test_folders_whose_names_have_a_point_keep_their_lists(
    tmp_path: Path, folders: Sequence[str], told: Sequence[str], names: Sequence[str]
) -> None:
    write(tmp_path, [f"train/{name}/{copy}.png" for name in folders for copy in (1, 2)])
    write(tmp_path, [f"test/{place}.png" for place in range(4)])
    text(
        tmp_path / "test.csv",
        ["file,label", *(f"{place}.png,{told[place % 2]}" for place in range(4))],
    )
    labels, found = labelled(open_dataset(tmp_path, "test"))
    assert [found[label] for label in labels] == [names[0], names[1]] * 2


def test_a_third_spelling_is_given_to_neither_of_two_folders(tmp_path: Path) -> None:
    write(tmp_path, [f"train/{name}/{copy}.png" for name in ("Cat", "cat") for copy in (1, 2)])
    write(tmp_path, [f"test/{place}.png" for place in range(4)])
    text(tmp_path / "test.csv", ["file,label", "0.png,cat", "1.png,CAT", "2.png,cat", "3.png,CAT"])
    assert open_dataset(tmp_path, "test").labels is None


def test_another_spelling_in_a_list_is_told(tmp_path: Path) -> None:
    write(tmp_path, [f"train/{name}/{copy}.png" for name in ("US", "dog") for copy in (1, 2)])
    write(tmp_path, [f"test/{place}.png" for place in range(2)])
    text(tmp_path / "test.csv", ["file,label", "0.png,us", "1.png,dog"])
    notes = open_dataset(tmp_path, "test").notes
    assert any("'US' in train, 'us' in test.csv" in note for note in notes)


def test_names_of_a_card_that_are_numbers_with_a_point_are_names(tmp_path: Path) -> None:
    write(tmp_path, [f"{place}.png" for place in range(4)])
    lines = [f"{place}.png,{place % 2 + 1}.0" for place in range(4)]
    text(tmp_path / "metadata.csv", ["file_name,label", *lines])
    told = "dtype: {class_label: {names: {'0': '1.0', '1': '2.0'}}}"
    text(
        tmp_path / "README.md",
        ["---", f"dataset_info: {{features: [{{name: label, {told}}}]}}", "---"],
    )
    labels, names = labelled(open_dataset(tmp_path, "train"))
    assert [names[label] for label in labels] == ["1", "2", "1", "2"]
