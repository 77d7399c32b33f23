"""Classes that the splits of a set, its lists or its files of names spell differently."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from small_sets import classes, png, table, write

from driftscope.data import EncodedSet, open_dataset
from driftscope.data.prompts import prompt_rules
from driftscope.data.spellings import common_names, told_of_spellings
from driftscope.data.splits import open_train_and_test
from driftscope.errors import DataError

CAFE = "caf\u00e9"
CAFE_OF_MACOS = "cafe\u0301"


def opened(place: Path, split: str) -> EncodedSet:
    images = open_dataset(place, split)
    assert isinstance(images, EncodedSet)
    return images


def classes_of_levels(images: EncodedSet) -> dict[int, str]:
    """Grey level of each image, and its class."""
    assert images.labels is not None
    assert images.class_names is not None
    levels = images.pixels(range(len(images)), 8)[:, 0, 0, 0].tolist()
    return {
        level: images.class_names[label]
        for level, label in zip(levels, images.labels.tolist(), strict=True)
    }


@pytest.mark.parametrize(
    ("train", "test", "common"),
    [
        ([CAFE], [CAFE_OF_MACOS], [CAFE]),
        ([CAFE_OF_MACOS], [CAFE], [CAFE]),
        ([CAFE_OF_MACOS], [CAFE_OF_MACOS], [CAFE]),
        (["red_fox"], ["Red Fox"], ["red_fox"]),
        (["Polish", "polish"], ["polish"], ["Polish", "polish"]),
        (["Polish", CAFE, "polish"], ["POLISH", CAFE_OF_MACOS],
         ["Polish", CAFE, "polish", "POLISH"]),
        ([CAFE, CAFE_OF_MACOS], [CAFE], [CAFE, CAFE_OF_MACOS]),
        (["a-b"], ["a b"], ["a-b", "a b"]),
    ],
)  # fmt: skip
def test_names_are_one_class_unless_one_split_has_both(
    train: list[str], test: list[str], common: list[str]
) -> None:
    found = common_names({"test": test, "train": train})
    assert sorted(set(found.values())) == sorted(common)
    for names in (train, test):
        assert len({found[name] for name in names}) == len(names)


def test_only_what_the_eye_tells_apart_is_said() -> None:
    assert told_of_spellings({"train": [CAFE], "test": [CAFE_OF_MACOS]}) == ()
    (said,) = told_of_spellings({"train": ["cat", "dog"], "test": ["Cat", "dog"]})
    assert said == (
        "its splits spell 1 class in several ways, read as one class each: 'cat' in train, "
        "'Cat' in test"
    )


@pytest.mark.parametrize(
    "of_test",
    [[CAFE_OF_MACOS, "red fox"], ["Café", "Red_Fox"]],
    ids=["two signs", "capitals"],
)
def test_folders_of_splits_that_spell_a_class_differently_are_one_class(
    tmp_path: Path, of_test: list[str]
) -> None:
    write(tmp_path, classes("train/", [CAFE, "red fox"]) + classes("test/", of_test))
    train, test = open_train_and_test(str(tmp_path), 0)
    assert train.class_names == test.class_names == (CAFE, "red fox")
    truth = {0: CAFE, 1: CAFE, 10: "red fox", 11: "red fox"}
    assert isinstance(test, EncodedSet)
    assert classes_of_levels(test) == classes_of_levels(opened(tmp_path, "train")) == truth
    assert any("spell" in note for note in test.notes) == ("Red_Fox" in of_test)


def test_columns_of_splits_that_spell_a_class_differently_are_one_class(tmp_path: Path) -> None:
    images: list[object] = [png(level) for level in (0, 10)]
    parquet.write_table(table([CAFE, "dog"], images), tmp_path / "train.parquet")
    parquet.write_table(table([CAFE_OF_MACOS, "Dog"], images), tmp_path / "test.parquet")
    test = opened(tmp_path, "test")
    assert classes_of_levels(test) == {0: CAFE, 10: "dog"}
    assert [note for note in test.notes if "'Dog' in test" in note]


def test_a_class_of_test_images_alone_is_refused_with_those_of_training(tmp_path: Path) -> None:
    write(tmp_path, classes("train/", ["cats", "dog"]) + classes("test/", ["cat", "dog"]))
    with pytest.raises(
        DataError, match=r"1 of the 2 classes .* no training images: 'cat'; .*\('cats', …\)$"
    ):
        open_train_and_test(str(tmp_path), 0)


def test_a_class_of_training_images_alone_is_none_of_the_tests(tmp_path: Path) -> None:
    write(tmp_path, classes("train/") + classes("test/", ["cat", "dog"]))
    assert len(open_train_and_test(str(tmp_path), 0)[1]) == 4


# ---------------------------------------------------------------- lists and files of names


@pytest.mark.parametrize("of_disk", [CAFE, CAFE_OF_MACOS], ids=["one sign", "two"])
@pytest.mark.parametrize("of_list", [CAFE, CAFE_OF_MACOS], ids=["one sign", "two"])
@pytest.mark.parametrize("form", ["list", "metadata", "parquet", "by name"])
def test_lists_find_files_whose_accents_are_spelled_in_another_way(
    tmp_path: Path, of_disk: str, of_list: str, form: str
) -> None:
    above = "deep/er/" if form == "by name" else ""
    write(tmp_path, [f"{above}dog/dog_10.png", f"{above}{of_disk}/{of_disk}_0.png"])
    rows = {
        "file_name": ["dog/dog_10.png", f"{of_list}/{of_list}_0.png"],
        "label": ["dog", of_list],
    }
    if form == "parquet":
        parquet.write_table(pa.table(rows), tmp_path / "test.parquet")
    else:
        lines = [",".join(row) for row in zip(*rows.values(), strict=True)]
        name = "metadata.csv" if form == "metadata" else "list.csv"
        (tmp_path / name).write_text("\n".join(["file_name,label", *lines]))
    place = tmp_path if form in ("metadata", "parquet") else tmp_path / "list.csv"
    assert classes_of_levels(opened(place, "test")) == {0: CAFE, 10: "dog"}


def test_a_list_of_splits_finds_them_too(tmp_path: Path) -> None:
    files = [f"{name}/{level}.png" for name, level in ((CAFE_OF_MACOS, 0), (CAFE_OF_MACOS, 1),
                                                        ("dog", 10), ("dog", 11))]  # fmt: skip
    write(tmp_path, files)
    (tmp_path / "train.txt").write_text(f"{CAFE}/0.png\ndog/10.png\n")
    (tmp_path / "test.txt").write_text(f"{CAFE}/1.png\ndog/11.png\n")
    assert classes_of_levels(opened(tmp_path, "test")) == {1: CAFE, 11: "dog"}


@pytest.mark.parametrize("said", [CAFE, CAFE_OF_MACOS], ids=["one sign", "two"])
@pytest.mark.parametrize("of_set", [CAFE, CAFE_OF_MACOS], ids=["one sign", "two"])
def test_words_are_for_a_class_however_its_accents_are_spelled(
    tmp_path: Path, said: str, of_set: str
) -> None:
    write(tmp_path / "set", classes("", [of_set, "dog"]))
    names = opened(tmp_path / "set", "test").class_names
    assert names is not None
    for file, text in (
        ("words.txt", f"{said}: a bar\ndog: a hound\n"),
        ("words.json", json.dumps({said: "a bar", "dog": "a hound"})),
    ):
        (tmp_path / file).write_text(text)
        rules = prompt_rules(tmp_path / file)
        assert rules.own_words(names) == {CAFE: "a bar", "dog": "a hound"}
    assert prompt_rules({said: "a bar"}).own_words(names) == {CAFE: "a bar"}


def test_folders_of_a_class_and_a_split_may_spell_the_class_in_two_ways(tmp_path: Path) -> None:
    folders = ("cat_train", "Cat_test", "red_fox_train", "Red Fox_test")
    write(tmp_path, [f"{folder}/{folder[0]}.png" for folder in folders])
    for split in ("train", "test"):
        images = opened(tmp_path, split)
        assert images.class_names == ("cat", "red_fox")
        assert images.labels is not None
        assert images.labels.tolist() == [0, 1]
