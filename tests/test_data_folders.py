from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from driftscope.data import EncodedSet, available_splits, labelled, open_dataset
from driftscope.data.given import split_of
from driftscope.errors import DataError


def write_image(path: Path, level: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (level, level, level)).save(path)
    return path


def opened(folder: Path, split: str = "test") -> EncodedSet:
    images = open_dataset(folder, split)
    assert isinstance(images, EncodedSet)
    return images


def levels(images: EncodedSet) -> list[int]:
    return images.pixels(range(len(images)), 8)[:, 0, 0, 0].tolist()


def test_a_flat_folder_is_unlabeled_and_in_the_order_of_names(tmp_path: Path) -> None:
    for name, level in (("b.png", 2), ("a.PNG", 1), ("c.bmp", 3)):
        write_image(tmp_path / name, level)
    (tmp_path / "notes.txt").write_text("no image")
    images = opened(tmp_path)
    assert levels(images) == [1, 2, 3]
    assert images.labels is None
    assert images.split == "all"
    with pytest.raises(DataError, match="has no labels"):
        labelled(images)


def test_without_a_split_the_test_images_are_opened_and_the_set_says_so(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_image(tmp_path / split / "cat" / "1.png")
    assert open_dataset("concepts100").split == "test"
    assert "split='test'" in repr(open_dataset("concepts100"))
    images = open_dataset(tmp_path)
    assert repr(images) == f"EncodedSet({str(tmp_path)!r}, split 'val', 1 images, 1 classes)"


def test_a_folder_a_class_gives_labels_in_the_order_of_names(tmp_path: Path) -> None:
    for name, level in (("dog/1.png", 3), ("cat/2.png", 2), ("cat/1.png", 1)):
        write_image(tmp_path / name, level)
    images = opened(tmp_path)
    assert images.class_names == ("cat", "dog")
    assert images.labels is not None
    assert images.labels.tolist() == [0, 0, 1]
    assert levels(images) == [1, 2, 3]


def test_a_class_holds_the_images_of_all_folders_below_it(tmp_path: Path) -> None:
    for name, level in (("cat/2020/may/a.png", 1), ("cat/z.png", 2), ("dog/x/b.png", 3)):
        write_image(tmp_path / name, level)
    images = opened(tmp_path)
    assert images.class_names == ("cat", "dog")
    assert levels(images) == [1, 2, 3]


def test_split_folders_number_classes_alike_though_one_lacks_a_class(tmp_path: Path) -> None:
    for name in ("train/ant/1.png", "train/bee/1.png", "train/cow/1.png", "test/cow/1.png"):
        write_image(tmp_path / name)
    assert available_splits(tmp_path) == ("test", "train")
    test = opened(tmp_path, "test")
    assert test.class_names == ("ant", "bee", "cow")
    assert test.labels is not None
    assert test.labels.tolist() == [2]
    assert len(opened(tmp_path, "train")) == 3


def test_a_split_of_a_folder_of_splits_is_known_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            write_image(tmp_path / "pets" / split / name / "1.png")
            write_image(tmp_path / "alone" / "test" / name / "1.png")
            write_image(tmp_path / "home" / split / name / "1.png")
    write_image(tmp_path / "home" / "letters" / "1.png")
    pets = tmp_path / "pets"
    assert split_of(opened(pets / "test")) == split_of(opened(pets / "train")) == str(pets)
    for whole in ("pets", "alone/test", "home/test", "pets/test/ant"):
        assert split_of(opened(tmp_path / whole)) is None
    monkeypatch.chdir(pets)
    assert split_of(opened(Path("test"))) == "."
    assert len(opened(Path(), "train")) == 2


def test_a_class_named_train_beside_other_classes_is_a_class(tmp_path: Path) -> None:
    for name in ("train/1.png", "tank/1.png"):
        write_image(tmp_path / name)
    assert opened(tmp_path, "train").class_names == ("tank", "train")


def test_validation_stands_in_for_a_missing_test_split(tmp_path: Path) -> None:
    for name in ("train/a/1.png", "train/a/2.png", "validation/a/1.png"):
        write_image(tmp_path / name)
    assert opened(tmp_path, "test").split == "validation"


def test_hidden_files_and_archivers_leftovers_are_left_out(tmp_path: Path) -> None:
    for name in ("a.png", ".b.png", "._a.png", "__MACOSX/c.png", ".cache/d.png"):
        write_image(tmp_path / name)
    assert len(opened(tmp_path)) == 1


def test_links_to_files_and_folders_are_followed_and_circles_are_not(tmp_path: Path) -> None:
    elsewhere = write_image(tmp_path / "elsewhere" / "a.png", 7).parent
    folder = tmp_path / "set"
    (folder / "cat").mkdir(parents=True)
    (folder / "cat" / "linked.png").symlink_to(elsewhere / "a.png")
    (folder / "dog").symlink_to(elsewhere)
    (folder / "cat" / "circle").symlink_to(folder / "cat")
    images = opened(folder)
    assert images.class_names == ("cat", "dog")
    assert levels(images) == [7, 7]


def test_a_link_that_points_nowhere_is_named(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"b\.png: it is a link to .*gone\.png, where"):
        levels(opened(tmp_path))


def test_an_empty_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "empty class").mkdir()
    with pytest.raises(DataError, match=r"no images in .*\.jpg.*one folder a class"):
        opened(tmp_path)


def test_loose_images_beside_class_folders_are_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "cat" / "a.png")
    write_image(tmp_path / "loose.png")
    with pytest.raises(DataError, match=r"loose\.png.*cat"):
        opened(tmp_path)


def test_a_folder_without_permission_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "cat" / "a.png")
    closed = write_image(tmp_path / "dog" / "a.png").parent
    if os.geteuid():
        closed.chmod(0)
    else:  # nothing is closed to root
        listed = os.scandir

        def refused(folder: str) -> object:
            if Path(folder) == closed:
                raise PermissionError(13, "Permission denied", folder)
            return listed(folder)

        monkeypatch.setattr(os, "scandir", refused)
    try:
        with pytest.raises(DataError, match=r"folder .*dog: permission denied"):
            opened(tmp_path)
    finally:
        closed.chmod(0o755)


def test_a_file_where_a_folder_is_wanted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.png is a file"):
        open_dataset(write_image(tmp_path / "a.png"), "test")


def test_an_unknown_name_suggests_the_nearest_known(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="did you mean 'terrain'"):
        open_dataset("terain", "test")


def test_bad_images_can_be_left_out_and_are_named(tmp_path: Path) -> None:
    for name in ("cat/a.png", "cat/c.png", "dog/d.png"):
        write_image(tmp_path / name)
    (tmp_path / "cat" / "b.png").write_bytes(b"")
    (tmp_path / "dog" / "e.png").write_text("not an image")
    kept, problems = opened(tmp_path).readable()
    assert len(kept) == 3
    assert kept.labels is not None
    assert kept.labels.tolist() == [0, 0, 1]
    assert [re.sub(r".*/", "", problem) for problem in problems] == [
        "b.png: it is empty (0 bytes)",
        "e.png: it is not an image",
    ]
    assert kept.pixels(range(3), 8).shape == (3, 3, 8, 8)


def test_an_unreadable_image_that_is_not_asked_for_does_no_harm(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", 5)
    (tmp_path / "b.png").write_bytes(b"")
    images = opened(tmp_path)
    assert images.pixels([0], 8).unique().tolist() == [5]
    with pytest.raises(DataError, match=r"b\.png: it is empty"):
        images.pixels([0, 1], 8)


def test_pixels_come_in_the_order_asked_for_and_may_repeat(tmp_path: Path) -> None:
    for level in range(5):
        write_image(tmp_path / f"{level}.png", level)
    images = opened(tmp_path)
    for asked in ([4, 0, 4, 2], []):
        assert images.pixels(asked, 8)[:, 0, 0, 0].tolist() == asked
        assert images.pixels(torch.tensor(asked), 8)[:, 0, 0, 0].tolist() == asked
    with pytest.raises(DataError, match=r"3…5 asked .* 0…4"):
        images.pixels([3, 5], 8)


def test_the_fingerprint_follows_content_and_labels_and_not_the_place(tmp_path: Path) -> None:
    for root in ("one", "two", "relabeled", "changed"):
        write_image(tmp_path / root / "cat" / "a.png", 1)
        write_image(tmp_path / root / "dog" / "b.png", 3 if root == "changed" else 2)
    (tmp_path / "relabeled" / "dog" / "b.png").rename(tmp_path / "relabeled" / "cat" / "b.png")
    write_image(tmp_path / "relabeled" / "dog" / "b.png", 1)
    prints = [
        opened(tmp_path / root).fingerprint for root in ("one", "two", "relabeled", "changed")
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


def test_a_subset_keeps_labels_names_captions_and_groups_together(tmp_path: Path) -> None:
    for level in range(4):
        write_image(tmp_path / "ab"[level % 2] / f"{level}.png", level)
    images = opened(tmp_path)
    part = images.select(torch.tensor([3, 0]))
    assert levels(part) == [levels(images)[3], levels(images)[0]]
    assert part.labels is not None
    assert part.labels.tolist() == [1, 0]
    assert part.fingerprint != images.fingerprint


# ---------------------------------------------------------------- lists


def write_list(folder: Path, text: str, name: str = "list.csv") -> Path:
    for level in range(4):
        write_image(folder / "files" / f"{level}.png", level)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_a_list_gives_paths_beside_it_with_labels(tmp_path: Path) -> None:
    file = write_list(tmp_path, "path,label\nfiles/2.png,dog\nfiles/0.png,cat\nfiles/1.png,dog\n")
    images = open_dataset(file, "test")
    assert images.class_names == ("cat", "dog")
    assert images.labels is not None
    assert images.labels.tolist() == [1, 0, 1]
    assert images.pixels([0, 1, 2], 8)[:, 0, 0, 0].tolist() == [2, 0, 1]


def test_numbers_as_classes_are_ordered_by_size(tmp_path: Path) -> None:
    file = write_list(tmp_path, "path,label\nfiles/2.png,10\nfiles/0.png,2\nfiles/1.png,1\n")
    assert open_dataset(file, "test").class_names == ("1", "2", "10")


def test_a_lists_columns_can_be_named_and_a_split_column_divides_it(tmp_path: Path) -> None:
    rows = ("0,x,train,p1", "1,y,train,p1", "2,y,test,p2", "3,y,test,p3")
    text = "where,species,split,patient\n" + "".join(
        f"files/{row[0]}.png{row[1:]}\n" for row in rows
    )
    file = write_list(tmp_path, text)
    assert available_splits(file) == ("test", "train")
    images = open_dataset(f"{file}?image=where&label=species&group=patient", "test")
    assert isinstance(images, EncodedSet)
    assert images.class_names == ("x", "y")
    assert images.labels is not None
    assert images.labels.tolist() == [1, 1]
    assert images.groups == ("p2", "p3")


def test_tabs_and_a_byte_order_mark_are_understood(tmp_path: Path) -> None:
    file = write_list(tmp_path, "\ufefffile_name\ttext\nfiles/2.png\ta cat, asleep\n", "list.tsv")
    images = open_dataset(file, "test")
    assert isinstance(images, EncodedSet)
    assert images.captions == (("a cat, asleep",),)


@pytest.mark.parametrize(
    ("text", "options", "reason"),
    [
        ("", "", "lists no images"),
        ("path,label\n", "", "lists no images"),
        ("path,label\nfiles/0.png\n", "", "1 values in row 2, but 2 columns"),
        ("path,label\nfiles/0.png,\nfiles/1.png,cat\n", "", "no label in 1 of 2 rows"),
        ("where,what\nfiles/0.png,cat\n", "", r"\?image=where"),
        ("path,label\nfiles/0.png,cat\n", "?label=species", "no column 'species'"),
        ("path,label\nfiles/0.png,cat\n", "?lable=label", "did you mean 'label'"),
        ("path,label\nfiles/0.png,cat\n", "?split=dev", "has no split 'dev'"),
    ],
)
def test_a_bad_list_is_answered_by_one_sentence(
    tmp_path: Path, text: str, options: str, reason: str
) -> None:
    file = write_list(tmp_path, text)
    with pytest.raises(DataError, match=reason):
        open_dataset(f"{file}{options}", "test")


def test_a_missing_file_of_a_list_is_named(tmp_path: Path) -> None:
    file = write_list(tmp_path, "path,label\nfiles/9.png,cat\n")
    with pytest.raises(DataError, match=r"files/9\.png: No such file"):
        open_dataset(file, "test").pixels([0], 8)


def test_embedded_sets_take_no_options() -> None:
    with pytest.raises(DataError, match="takes no options"):
        open_dataset("terrain?label=x", "test")


def test_images_of_every_kind_lie_in_one_folder(tmp_path: Path) -> None:
    pixels = np.full((20, 30), 77, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    Image.fromarray(pixels.astype(np.uint16) * 257).save(tmp_path / "sixteen.png")
    Image.fromarray(pixels).convert("P").save(tmp_path / "palette.gif")
    Image.fromarray(pixels).convert("RGB").save(tmp_path / "rgb.webp", lossless=True)
    images = opened(tmp_path)
    assert images.pixels(range(4), 16).unique().tolist() == [77]


@pytest.mark.parametrize("name", ["", "?label=fine"])
def test_a_name_that_is_empty_is_not_the_current_folder(name: str) -> None:
    with pytest.raises(DataError, match=r"has no name; give that of a set, a folder or a file"):
        open_dataset(name, "test")


def test_a_folder_of_several_sets_with_splits_and_other_classes_each_is_refused(
    tmp_path: Path,
) -> None:
    for place in ("terrain/{}/lake", "terrain/{}/hill", "pets/{}/cat", "pets/{}/dog"):
        for split in ("train", "test"):
            folder = tmp_path / "given" / place.format(split)
            folder.mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(folder / "1.png")
    with pytest.raises(DataError, match=r"given holds 2 image sets, .* \(pets, terrain\); give"):
        open_dataset(tmp_path / "given", "test")
    assert open_dataset(tmp_path / "given" / "pets", "test").class_names == ("cat", "dog")
    for one in ("train", "test"):  # domains of one set share their classes
        (tmp_path / "given" / "pets" / one / "dog").rename(tmp_path / "given/pets" / one / "lake")
    assert len(open_dataset(tmp_path / "given", "test")) > 0
