"""Lists of splits beside class folders divide them, as the benchmarks that publish them do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from small_sets import NAMES, write

from driftscope.data import EncodedSet, available_splits, open_dataset, open_labelled

PARTS = {"train": (0, 1), "val": (2,), "test": (3, 4)}
"""Copies of each class by split; an image of class 2 and copy 3 shows the level 23."""


def images(root: Path, above: str, names: tuple[str, ...] = NAMES) -> Path:
    return write(
        root,
        [f"{above}{name}/{at}{copy}.png" for at, name in enumerate(names) for copy in range(5)],
    )


def lines(split: str, form: str = "{name}/{at}{copy}") -> str:
    return "\n".join(
        form.format(name=name, at=at, copy=copy)
        for at, name in enumerate(NAMES)
        for copy in PARTS[split]
    )


def opened(place: Path | str, split: str) -> tuple[dict[str, list[int]], EncodedSet]:
    """The levels of each class's images."""
    found = open_labelled(place, split)
    assert isinstance(found, EncodedSet)
    assert found.labels is not None
    assert found.class_names is not None
    levels: dict[str, list[int]] = {}
    pixels = found.pixels(range(len(found)), 8)[:, 0, 0, 0].tolist()
    for label, level in zip(found.labels.tolist(), pixels, strict=True):
        levels.setdefault(found.class_names[label], []).append(level)
    return {name: sorted(of) for name, of in levels.items()}, found


def truth(split: str) -> dict[str, list[int]]:
    return {name: [10 * at + copy for copy in PARTS[split]] for at, name in enumerate(NAMES)}


def rows(split: str) -> str:
    return "id,path,label\n" + lines(split, "1,images/{name}/{at}{copy}.png,{name}")


FORMS: dict[str, tuple[str, Mapping[str, str]]] = {
    "Food-101": ("food-101/images/", {"food-101/meta/{}.txt": "{name}/{at}{copy}"}),
    "DTD": ("images/", {"labels/{}1.txt": "{name}/{at}{copy}.png", "labels/{}2.txt": "no/{copy}"}),
    "RESISC45": ("NWPU-RESISC45/", {"resisc45-{}.txt": "{at}{copy}.png"}),
    "SUN397": ("SUN397/", {"Partitions/{}ing_01.txt": "/{name}/{at}{copy}.png"}),
    "paths of another machine": ("x/", {"{}.txt": "/home/me/x/{name}/{at}{copy}.png"}),
    "UCF-101": ("UCF-101/", {"lists/{}list01.txt": "{name}/{at}{copy}.avi 1"}),
}


@pytest.mark.parametrize("form", FORMS)
def test_published_lists_divide_class_folders(tmp_path: Path, form: str) -> None:
    above, lists = FORMS[form]
    images(tmp_path, above)
    for name, line in lists.items():
        for split in ("train", "test") if "ing" in name else PARTS:
            file = tmp_path / name.format(split)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(lines(split, line))
    assert opened(tmp_path, "train")[0] == truth("train")
    test, found = opened(tmp_path, "test")
    assert test == truth("test")
    assert found.split == "test"
    assert any(note.startswith("its splits are those of ") for note in found.notes)


def test_tables_and_json_of_splits_divide_class_folders(tmp_path: Path) -> None:
    for form in ("csv", "json", "one"):
        images(tmp_path / form, "images/")
    for split in PARTS:
        (tmp_path / "csv" / f"{split}.csv").write_text(rows(split))
        by_class = {
            name: [f"{name}/{one:02}.png" for one in of] for name, of in truth(split).items()
        }
        (tmp_path / "json" / f"{split}.json").write_text(json.dumps(by_class))
    by_split = {
        split: [{"image": one, "label": 0} for one in lines(split, "{at}{copy}.png").split()]
        for split in PARTS
    }
    (tmp_path / "one" / "my_splits.json").write_text(json.dumps(by_split))
    for form in ("csv", "json", "one"):
        assert opened(tmp_path / form, "test")[0] == truth("test")
        assert opened(tmp_path / form, "train")[0] == truth("train")


@pytest.mark.parametrize("name", ["split.csv", "metadata.csv", "all.tsv"])
def test_a_column_of_a_table_divides_class_folders(tmp_path: Path, name: str) -> None:
    images(tmp_path, "images/")
    form = "images/{name}/{at}{copy}.png,TO,1".replace(",", "\t" if name.endswith("tsv") else ",")
    told = [lines(split, form).replace("TO", split) for split in PARTS]
    heading = form.replace("images/{name}/{at}{copy}.png", "file_name").replace("TO", "split")
    (tmp_path / name).write_text("\n".join([heading, *told]))
    for split in PARTS:
        levels, found = opened(tmp_path, "validation" if split == "val" else split)
        assert levels == truth(split)
        assert f"its splits are those of {name}" in found.notes
    (tmp_path / name).write_text("\n".join([heading, *told]).replace("train", "2"))
    assert available_splits(tmp_path) == ("all",)


def test_other_files_of_these_names_divide_nothing(tmp_path: Path) -> None:
    images(tmp_path, "images/")
    for name in ("test.csv", "train.csv", "train_log.txt", "test.json", "split.json", "test.txt"):
        (tmp_path / name).write_text(
            '{"train": 1, "test": ["x"]}' if "json" in name else "a,b\n1,2"
        )
    assert available_splits(tmp_path) == ("all",)


def test_the_flags_of_cub_divide_its_folders_and_its_list(tmp_path: Path) -> None:
    images(tmp_path, "images/")
    rows = [(at, name, copy) for at, name in enumerate(NAMES) for copy in range(5)]
    listed = [f"{n} {name}/{at}{copy}.png" for n, (at, name, copy) in enumerate(rows, 1)]
    flags = [f"{n} {int(copy < 3)}" for n, (_, _, copy) in enumerate(rows, 1)]
    (tmp_path / "images.txt").write_text("\n".join(listed))
    (tmp_path / "train_test_split.txt").write_text("\n".join(flags))
    for place in (tmp_path, tmp_path / "images.txt"):
        assert opened(place, "test")[0] == truth("test")
        assert len(open_dataset(place, "train")) == 9


@pytest.mark.parametrize(
    "lists",
    [
        {"test.txt": lines("test")},
        {"test.txt": lines("test"), "train.txt": lines("train") + "\n" + lines("test")},
        {"test.txt": lines("test"), "train.txt": "other/1.png\nother/2.png"},
    ],
    ids=["no train", "overlap", "of others"],
)
def test_lists_that_do_not_divide_are_told_and_all_images_are_read(
    tmp_path: Path, lists: Mapping[str, str]
) -> None:
    images(tmp_path, "images/")
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
    for place in (tmp_path, tmp_path / "images"):
        levels, found = opened(place, "test")
        assert sum(map(len, levels.values())) == 15
        assert any("test.txt lists its test images: give that file" in one for one in found.notes)


def test_tables_without_a_heading_lose_no_image(tmp_path: Path) -> None:
    images(tmp_path, "")
    for split in ("train", "val", "test"):
        form = "{name}/{at}{copy}.png,{at}"
        (tmp_path / f"{split}.csv").write_text(lines(split, form))
    assert opened(tmp_path, "test")[0] == truth("test")


def test_a_number_that_belongs_to_a_name_is_no_label_behind_it(tmp_path: Path) -> None:
    names = [f"{name}/a{end}.png" for name in NAMES for end in ("", " 001", " 002")]
    write(tmp_path, names)
    (tmp_path / "test.txt").write_text("\n".join(f"{name}/a 001" for name in NAMES))
    (tmp_path / "train.txt").write_text("\n".join(f"{name}/a 002\n{name}/a" for name in NAMES))
    found = opened(tmp_path, "test")[1]
    assert sorted(Path(file).name for file in found.encoded.files) == ["a 001.png"] * len(NAMES)


def test_a_table_that_csv_cannot_read_is_no_list(tmp_path: Path) -> None:
    images(tmp_path, "")
    (tmp_path / "train.csv").write_text('path\n"' + "x" * 200_000)
    assert sum(map(len, opened(tmp_path, "test")[0].values())) == 5 * len(NAMES)


def test_a_file_for_each_image_is_no_list(tmp_path: Path) -> None:
    images(tmp_path, "")
    for split, copies in (("train", range(40)), ("test", range(40))):
        for copy in copies:
            (tmp_path / "cat" / f"{split}_{copy}.txt").write_text(lines(split))
    assert available_splits(tmp_path) == ("all",)


def test_what_lists_leave_out_is_counted(tmp_path: Path) -> None:
    images(tmp_path, "images/")
    (tmp_path / "train.txt").write_text(lines("train"))
    (tmp_path / "test.txt").write_text(lines("test") + "\ncat/99")
    _, found = opened(tmp_path, "test")
    assert "3 images that are on no list are passed over" in found.notes
    assert any("1 images that these lists name are not here" in note for note in found.notes)


def test_folders_of_splits_are_asked_before_lists(tmp_path: Path) -> None:
    images(tmp_path, "train/")
    images(tmp_path, "val/", NAMES[:2])
    (tmp_path / "train.txt").write_text(lines("test"))
    (tmp_path / "test.txt").write_text(lines("train"))
    assert available_splits(tmp_path) == ("train", "val")


def test_an_evaluation_split_beside_a_validation_split_is_scored_on(tmp_path: Path) -> None:
    for split in ("training", "validation", "evaluation"):
        images(tmp_path, f"{split}/")
    assert open_labelled(tmp_path, "test").split == "evaluation"
    assert open_dataset(tmp_path, "validation").split == "validation"


def test_paths_of_a_list_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    write(tmp_path, ["data/a/cat/1.png", "data/b/dog/in/1.png", "data/b/dog/out/2.png"])
    (tmp_path / "data/b/dog/out/2.png").rename(tmp_path / "data/b/dog/out/1.png")
    rows = ["/a/cat/1.png 0", "/b/dog/in/1.png 1", "/b/dog/out/1.png 2"]
    (tmp_path / "val.txt").write_text("\n".join(rows))
    (tmp_path / "names.txt").write_text("/a/cat 0\n/b/dog/in 1\n/b/dog/out_door 2\n")
    found = open_dataset(f"{tmp_path / 'val.txt'}?names={tmp_path / 'names.txt'}", "test")
    assert isinstance(found, EncodedSet)
    assert found.pixels(range(3), 8)[:, 0, 0, 0].tolist() == [1, 1, 2]
    assert found.words == {"0": "cat", "1": "dog in", "2": "dog out door"}
