"""Images that stand in a set several times are told beside its numbers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from pyarrow import parquet
from small_sets import NAMES, classes, png, table, write

from driftscope.comparison import compare
from driftscope.data import EncodedSet, open_dataset
from driftscope.data.copies import told_of_copies
from driftscope.errors import NoteWarning
from driftscope.protocols import KNN
from driftscope.sources import load
from driftscope.transfer import retrieval_set, transfer_set
from driftscope.transfer.doubts import DoubtWarning
from driftscope.transfer.features import feature_sets


def told(place: Path) -> tuple[list[str], list[str]]:
    images = open_dataset(place, "test")
    assert isinstance(images, EncodedSet)
    notes, doubts = told_of_copies(images)
    return [one.replace(f"{place}/", "") for one in notes], [
        one.replace(f"{place}/", "") for one in doubts
    ]


def test_images_that_differ_are_no_copies(tmp_path: Path) -> None:
    names = ["cat/10_(1).png", "cat/copy_11.png", "dog/rot_20.png", "dog/21_aug1.png"]
    assert told(write(tmp_path, names)) == ([], [])


def test_a_copy_whose_original_is_not_read_counts_once(tmp_path: Path) -> None:
    write(tmp_path, classes())
    (tmp_path / "cat/0_copy.png").write_bytes(png(77))
    images = open_dataset(tmp_path, "test")
    assert isinstance(images, EncodedSet)
    assert len(told_of_copies(images)[1]) == 1
    read = [row for row, file in enumerate(images.encoded.files) if Path(file).name != "0.png"]
    assert told_of_copies(images.select(torch.tensor(read))) == ([], [])


def test_the_same_bytes_are_counted_and_under_two_classes_named(tmp_path: Path) -> None:
    write(tmp_path, classes())
    for copy in ("cat/90.png", "cat/91.png", "dog/92.png"):
        shutil.copy(tmp_path / "cat" / "0.png", tmp_path / copy)
    assert told(tmp_path) == (
        [],
        [
            "4 of its 9 images are the same bytes under several classes (cat/0.png and "
            "dog/92.png), and one of those classes at most is right",
            "3 of its 9 images are copies of others, byte by byte (cat/0.png and dog/92.png), so "
            "these count several times",
        ],
    )


@pytest.mark.parametrize(
    "copies",
    [
        "cat/0_copy.png", "cat/0 - Copy (2).png", "cat/0 (1).png", "cat/Copy of 0.png",
        "cat/0_aug5.png", "cat/0_rot_90.png", "cat/0-hflip.png", "cat/flipped_0.png",
        "cat/0_augmented_3.png", "cat/0.jpg", "cat/0_noise.png",
    ],
)  # fmt: skip
def test_changed_copies_are_told_by_their_names(tmp_path: Path, copies: str) -> None:
    write(tmp_path, classes())
    (tmp_path / copies).write_bytes(png(77))
    ((doubt,),) = [told(tmp_path)[1]]
    assert "1 of its 7 images are changed copies of others by their names (" in doubt
    assert copies in doubt or copies == "cat/0.jpg"


def test_versions_of_one_image_as_tools_export_them_are_its_copies(tmp_path: Path) -> None:
    write(tmp_path, ["cat/1.png", "dog/2.png"])
    for number in (1, 2):
        (tmp_path / "cat" / f"a_jpg.rf.{number:032x}.jpg").write_bytes(png(50 + number))
        uuid = f"{number:08x}-0000-4000-8000-000000000000"
        (tmp_path / "cat" / f"cat_original_b.jpg_{uuid}.jpg").write_bytes(png(60 + number))
    assert ["2 of its 6 images are changed copies" in one for one in told(tmp_path)[1]] == [True]


def test_few_copies_in_many_images_are_a_note(tmp_path: Path) -> None:
    images = [png(level) for level in range(199)]
    rows = table(["cat", "dog"] * 100, [*images, images[-1]])
    parquet.write_table(rows, tmp_path / "x.parquet")
    notes, doubts = told(tmp_path / "x.parquet")
    assert doubts == []
    assert [one.partition(" (")[0] for one in notes] == [
        "2 of its 200 images are the same bytes under several classes",
        "1 of its 200 images are copies of others, byte by byte",
    ]


def test_benchmarks_of_classes_and_of_captions_say_it(tmp_path: Path) -> None:
    mini = load("mini")
    write(tmp_path, classes())
    shutil.copy(tmp_path / "cat" / "0.png", tmp_path / "dog" / "0.png")
    rows = [f"{file.relative_to(tmp_path)},a {file.parent.name} of {file.stem}"
            for file in sorted(tmp_path.glob("*/*.png"))]  # fmt: skip
    (tmp_path / "list.csv").write_text("\n".join(["path,caption", *rows]))
    with pytest.warns(DoubtWarning, match="the same bytes under several classes"):
        assert any("copies of others" in one for one in transfer_set(str(tmp_path), mini).doubts)
    with pytest.warns(DoubtWarning, match="copies of others, byte by byte"):
        retrieval_set(str(tmp_path / "list.csv"), mini)


def test_images_of_both_splits_and_what_was_left_out_are_told_of_neighbours(tmp_path: Path) -> None:
    write(
        tmp_path, [*classes("train/"), *(f"test/{name}/5{at}.png" for at, name in enumerate(NAMES))]
    )
    shutil.copy(tmp_path / "train" / "cat" / "0.png", tmp_path / "test" / "cat" / "x.png")
    (tmp_path / "test" / "dog" / "bad.png").write_bytes(b"")
    mini = load("mini")
    with pytest.warns(DoubtWarning, match="are also among the images that tell the classes"):
        (found,) = feature_sets(str(tmp_path), mini, protocols=(KNN,), skip_bad_images=True)
    (doubt,) = [one.replace(f"{tmp_path}/", "") for one in found.doubts]
    assert doubt == (
        "1 of its 4 images are also among the images that tell the classes, byte by byte "
        "(test/cat/x.png and train/cat/0.png)"
    )
    assert any("1 images cannot be read and are left out" in one for one in found.notes)
    outcome = found.outcome_from(
        {one: mini.embed_images(of) for one, of in found.image_sets().items()}
    )
    assert found.change(outcome, outcome)["doubts"][0] == found.doubts[0]


def test_what_is_said_of_probe_images_and_pools_stands_in_the_notes(tmp_path: Path) -> None:
    write(tmp_path / "probe", ["1.png", "2.png", "3.png", "4.png", "5.png"])
    (tmp_path / "probe" / "readme.txt").write_text("x")
    write(tmp_path / "pool", classes())
    shutil.copy(tmp_path / "pool" / "cat" / "0.png", tmp_path / "pool" / "cat" / "0_copy.png")
    (tmp_path / "pool" / "dog" / "bad.png").write_bytes(b"")
    with pytest.warns(NoteWarning, match="copies of others, byte by byte"):
        found = compare(
            "mini",
            load("mini"),
            images=tmp_path / "probe",
            pool=tmp_path / "pool",
            skip_bad_images=True,
        )
    probe, *of_pool = [one.replace(f"{tmp_path}/", "") for one in found.notes]
    assert probe == "probe: files that are no images are passed over: 1 .txt"
    assert [one.partition(",")[0].partition(" (")[0] for one in of_pool] == [
        "pool: 1 images cannot be read and are left out",
        "pool: 1 of its 7 images are copies of others",
        "pool: 1 of its 7 images are changed copies of others by their names",
    ]
