"""Names, levels, tables and files that are rarer: the right images, or a sentence that helps."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from pyarrow import parquet
from small_sets import NAMES, classes, png, table, write

from driftscope.data import EncodedSet, open_dataset, open_labelled
from driftscope.data.names import benchmark_words, imagenet_names
from driftscope.data.prompts import words_of
from driftscope.errors import DataError
from driftscope.transfer.doubts import doubts_of_names


def levels(images: object) -> list[int]:
    assert isinstance(images, EncodedSet)
    return sorted(images.pixels(range(len(images)), 8)[:, 0, 0, 0].tolist())


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["0:cat", "1:dog"], ["cat", "dog"]),
        (["1) cat", "2) dog"], ["cat", "dog"]),
        (["cat_0", "dog_1"], ["cat", "dog"]),
        (["cat (2)", "dog (1)"], ["cat", "dog"]),
        (["Boeing 737", "Airbus 320"], ["Boeing 737", "Airbus 320"]),
        (["A_1", "A_2"], ["A 1", "A 2"]),
        (["10_euro", "20_euro", "50_euro"], ["10 euro", "20 euro", "50 euro"]),
        (["10_euro", "20_euro", "5_coins"], ["10 euro", "20 euro", "5 coins"]),
        (["1_euro", "2_euro"], ["1 euro", "2 euro"]),
        (["0_crane", "1_crane", "2_tench"], ["crane", "crane", "tench"]),  # which is doubted
        (["class cat", "class dog"], ["cat", "dog"]),
        (["images_cat", "images_dog"], ["cat", "dog"]),
        (["images_cat", "dog"], ["images cat", "dog"]),
        (["class_1", "class_2"], ["class 1", "class 2"]),
        (["/a/abbey", "/b/bakery/shop"], ["abbey", "bakery shop"]),
        (["and/or", "n/a b"], ["and/or", "n/a b"]),
    ],
)
def test_what_all_names_share_is_no_part_of_them(names: list[str], words: list[str]) -> None:
    assert words_of(names, {}) == words


@pytest.mark.parametrize(
    "name",
    ["A", "iii", "class b", "type_c", "pos", "Negative", "yes", "untitled", "New folder (2)", "{}",
     "_m_01g317", "-", "unsure"],
)  # fmt: skip
def test_letters_answers_and_what_stands_for_no_name_are_no_words(name: str) -> None:
    (doubt,) = doubts_of_names([name, "dog"], words_of([name, "dog"], {}))
    assert f"1 of its 2 class names are no words ({name})" in doubt


def test_a_template_that_says_of_what_makes_answers_words() -> None:
    names, templates = ["negative", "positive"], ["a {} review of a movie."]
    assert list(doubts_of_names(names, names))
    assert not list(doubts_of_names(names, names, templates))
    assert list(doubts_of_names(["0", "1"], ["0", "1"], templates))


def test_codes_are_abbreviations_and_those_of_countries_are_known() -> None:
    codes = ["AD", "ZW"]
    assert benchmark_words("data/country211", codes) == {"AD": "Andorra", "ZW": "Zimbabwe"}
    assert benchmark_words("data/country211", ["AD", "QQ"]) == {}
    assert benchmark_words("data/other", codes) == {}
    assert "abbreviations" in next(doubts_of_names(codes, words_of(codes, {})))
    for names in (["Andorra", "Zimbabwe"], ["TV", "Desk lamp"], ["ox", "ant"]):
        assert not list(doubts_of_names(names, words_of(names, {})))


def test_imagenets_lists_of_synonyms_are_told_in_one() -> None:
    ours = list(imagenet_names().values())
    published = [f"{name}, other {number}" for number, name in enumerate(ours)]
    assert benchmark_words("somewhere", published) == dict(zip(published, ours, strict=True))
    assert benchmark_words("somewhere", published[::-1]) == {}
    assert benchmark_words("somewhere", ours) == {}


@pytest.mark.parametrize("name", ["ox", "classy car", "positive dog", "typewriter", "no entry"])
def test_words_that_look_alike_are_words(name: str) -> None:
    assert not list(doubts_of_names([name, "dog"], words_of([name, "dog"], {})))


# ---------------------------------------------------------------- levels


def domains(root: Path) -> Path:
    for at, domain in enumerate(("art", "photo")):
        for split, copy in (("train", 0), ("test", 5)):
            files = [f"{domain}/{split}/{name}/{100 * at + 10 * number + copy}.png"
                     for number, name in enumerate(NAMES)]  # fmt: skip
            write(root, files)
    return root


def test_a_level_below_splits_is_divided_by_them(tmp_path: Path) -> None:
    place = f"{domains(tmp_path)}?level=3"
    test = open_labelled(place, "test")
    assert test.split == "test"
    assert test.class_names == NAMES
    assert levels(test) == [5, 15, 25, 105, 115, 125]
    assert levels(open_labelled(place, "train")) == [0, 10, 20, 100, 110, 120]


def test_a_level_of_splits_is_none_of_classes(tmp_path: Path) -> None:
    domains(tmp_path)
    with pytest.raises(DataError, match=r"folders \(test, train\) are splits, and no classes"):
        open_labelled(f"{tmp_path}?level=2", "test")
    with pytest.raises(DataError, match=r"how deep .*: \?level=3 for cat, dog, emu, \?level=1 for"):
        open_labelled(tmp_path, "test")


def test_what_lies_beside_the_only_folder_of_images_is_told(tmp_path: Path) -> None:
    write(tmp_path, [f"images/{one}.png" for one in range(3)])
    write(tmp_path, [f"masks/{one}.png" for one in range(3)])
    (tmp_path / "labels").mkdir()
    images = open_dataset(tmp_path)
    assert len(images) == 3
    assert isinstance(images, EncodedSet)
    assert images.notes == (
        "the folder masks beside the images is passed over",
        "a folder without images is passed over: labels",
    )


def test_what_was_drawn_over_loose_images_of_a_class_is_none_of_them(tmp_path: Path) -> None:
    write(tmp_path, [*classes(), *(f"{name}/masks/99.png" for name in NAMES)])
    write(tmp_path, [f"{name}/more/7{at}.png" for at, name in enumerate(NAMES)])
    images = open_labelled(tmp_path, "test")
    assert levels(images) == [0, 1, 10, 11, 20, 21, 70, 71, 72]
    assert isinstance(images, EncodedSet)
    assert images.notes == (
        "3 folders masks beside the images are passed over",
        "3 folders within classes are read as images of those classes, such as cat/more",
    )


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize("column", ["label_str", "label_text", "class_str", "name"])
def test_words_of_numbers_stand_beside_them(tmp_path: Path, column: str) -> None:
    write(tmp_path, classes())
    rows = [f"{name},{NAMES.index(name[:3])},{name[:3]}" for name in classes()]
    (tmp_path / "list.csv").write_text("\n".join([f"path,label,{column}", *rows]))
    images = open_dataset(tmp_path / "list.csv", "test")
    assert isinstance(images, EncodedSet)
    assert images.words == {"0": "cat", "1": "dog", "2": "emu"}


def test_a_split_that_is_nan_is_none(tmp_path: Path) -> None:
    write(tmp_path, classes())
    rows = [f"{name},{name[:3]},{'test' if at % 2 else 'nan'}" for at, name in enumerate(classes())]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *rows]))
    images = open_labelled(tmp_path / "list.csv", "test")
    assert levels(images) == [1, 11, 21]
    assert isinstance(images, EncodedSet)
    assert images.notes == ("3 rows that say no split are passed over",)


def test_json_of_images_that_say_their_classes_is_read(tmp_path: Path) -> None:
    write(tmp_path, classes())
    rows = [{"file_name": name, "class": name[:3]} for name in classes()]
    (tmp_path / "list.json").write_text(json.dumps({"images": rows}))
    images = open_labelled(tmp_path / "list.json", "test")
    assert levels(images) == [0, 1, 10, 11, 20, 21]
    assert images.class_names == NAMES


@pytest.mark.parametrize("column", ["data_split", "which", "Fold name"])
def test_a_column_that_says_splits_alone_divides_a_table(tmp_path: Path, column: str) -> None:
    write(tmp_path, classes())
    rows = [f"{name[:-4]}.png,{name.split('/')[0]},{'test' if at % 2 else 'Training'}"
            for at, name in enumerate(classes())]  # fmt: skip
    (tmp_path / "list.csv").write_text("\n".join([f"path,label,{column}", *rows]))
    images = open_labelled(tmp_path / "list.csv", "test")
    assert images.split == "test"
    assert levels(images) == [1, 11, 21]


def test_a_column_of_captions_or_of_one_split_divides_nothing(tmp_path: Path) -> None:
    write(tmp_path, classes())
    rows = [f"{name},{name.split('/')[0]},train a dog for the test,test" for name in classes()]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,said,where", *rows]))
    assert open_labelled(tmp_path / "list.csv", "test").split == "all"


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("emotion,pixels\n0,1 2 3", "holds pixels as numbers"),
        ("label,1x1,1x2\n0,1,2", "holds pixels as numbers"),
        ("label,pixel0,pixel1\n0,1,2", "holds pixels as numbers"),
        ("label\ncat", "add one called path"),
        ("label,where\ncat,x", r"\?image=where"),
        ("a/v_1.avi\na/v_2.avi", "has no header"),
    ],
)
def test_a_table_without_images_is_told_what_to_do(
    tmp_path: Path, header: str, reason: str
) -> None:
    (tmp_path / "list.csv").write_text(header)
    with pytest.raises(DataError, match=reason):
        open_dataset(tmp_path / "list.csv", "test")


def test_images_beside_parquet_files_are_counted(tmp_path: Path) -> None:
    write(tmp_path, ["more/1.png", "more/2.png"])
    parquet.write_table(table([*"aabbcc"]), tmp_path / "test.parquet")
    images = open_dataset(tmp_path, "test")
    assert isinstance(images, EncodedSet)
    assert images.notes == ("2 images beside the parquet files are passed over",)


# ---------------------------------------------------------------- files


def tars(root: Path, names: Iterable[str]) -> Path:
    root.mkdir()
    for name in names:
        image = root / "1.png"
        image.write_bytes(png(1))
        with tarfile.open(root / f"{name}.tar", "w") as tar:
            tar.add(image, f"{name}.png")
        image.unlink()
    return root


@pytest.mark.parametrize("names", [("cat", "dog"), ("n01440764", "n01443537")])
def test_a_tar_a_class_is_told_to_be_unpacked(tmp_path: Path, names: tuple[str, ...]) -> None:
    place = tars(tmp_path / "set", names)
    with pytest.raises(
        DataError, match=rf"\({names[0]}\.tar, {names[1]}\.tar\); if each holds one"
    ):
        open_dataset(place, "test")
    assert len(open_dataset(f"{place}?split={names[0]}", "test")) == 1


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("cat/v.avi", r"v\.avi is a video; write frames"),
        ("x.npy", r"x\.npy holds arrays"),
        ("cat/x.dcm", r"that Pillow reads: convert x\.dcm and the others to JPEG"),
        ("cat/x.nii.gz", r"that Pillow reads: convert x\.nii\.gz and the others"),
        ("set.zip", "is packed; unpack it"),
        ("list.csv", r"if .*list\.csv lists images, give that file"),
        ("x.bin", r"one folder a class; it holds 1 \.bin"),
    ],
)
def test_a_folder_without_images_is_told_what_to_do(tmp_path: Path, file: str, reason: str) -> None:
    write(tmp_path, [file])
    with pytest.raises(DataError, match=reason):
        open_dataset(tmp_path, "test")


@pytest.mark.parametrize("noted", ["default", "plain_text"])
def test_the_file_that_cards_replaced_names_the_classes(tmp_path: Path, noted: str) -> None:
    parquet.write_table(table([0, 0, 1, 1, 2, 2]), tmp_path / "test-00000-of-00001.parquet")
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": NAMES}}
    splits = {"test": {"name": "test", "num_examples": 7}}
    infos = {noted: {"features": features, "splits": splits}}
    (tmp_path / "dataset_infos.json").write_text(json.dumps(infos))
    images = open_dataset(tmp_path, "test")
    assert isinstance(images, EncodedSet)
    assert images.class_names == NAMES
    assert images.doubts == ("its split test has 6 rows, but its card says 7",)


@pytest.mark.parametrize("text", ["{", "[]", '{"default": {}}', '{"a": {}, "b": {}}', '{"x": 1}'])
def test_another_file_of_that_name_says_nothing(tmp_path: Path, text: str) -> None:
    parquet.write_table(table([0, 0, 1, 1, 2, 2]), tmp_path / "test-00000-of-00001.parquet")
    (tmp_path / "dataset_infos.json").write_text(text)
    assert open_dataset(tmp_path, "test").class_names == ("0", "1", "2")
