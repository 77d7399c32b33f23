"""Datasets as people have them: the right images under the right classes, or what to change."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_sets import NAMES, TRUTH, classes, write

from driftscope.data import EncodedSet, labelled, open_labelled
from driftscope.data.prompts import words_of
from driftscope.errors import DataError


def as_read(place: Path | str, split: str = "test") -> set[tuple[str, int]]:
    """The words of the class and the grey level of every image of a set."""
    images = open_labelled(place, split)
    assert isinstance(images, EncodedSet)
    labels, class_names = labelled(images)
    words = words_of(class_names, dict(images.words))
    levels = images.pixels(range(len(images)), 8).float().mean((1, 2, 3)).round().int()
    return {(words[k], g) for k, g in zip(labels.tolist(), levels.tolist(), strict=True)}


def of_list(place: Path, rows: list[str], header: str = "path,label") -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("\n".join([header, *rows]))
    return place


def refused(place: Path | str) -> str:
    with pytest.raises(DataError) as error:
        as_read(place)
    return str(error.value)


# ---------------------------------------------------------------- levels


def test_classes_at_several_depths_are_never_merged_or_left_out(tmp_path: Path) -> None:
    """As SUN397 has them: `a/abbey`, but `b/bakery/shop`."""
    files = ["a/abbey/1.png", "a/attic/2.png", "b/bakery/shop/3.png", "b/bakery/kitchen/4.png"]
    place = write(tmp_path / "set", files)
    for level in (2, 3):
        assert "?level=deepest" in refused(f"{place}?level={level}")
    assert "?level=deepest for abbey, attic, bakery kitchen" in refused(place)
    assert as_read(f"{place}?level=deepest") == {
        ("abbey", 1), ("attic", 2), ("bakery shop", 3), ("bakery kitchen", 4)
    }  # fmt: skip


def test_the_levels_that_may_be_meant_are_advised_with_the_likeliest_first(tmp_path: Path) -> None:
    domains = write(tmp_path / "domains", [*classes("art/"), *classes("photo/")])
    assert "?level=2 for cat, dog, emu, ?level=1 for art, photo" in refused(domains)
    assert as_read(f"{domains}?level=2") == TRUTH
    videos = [f"{name}/v_{name}_{clip}/{clip}.png" for name in NAMES for clip in (1, 2)]
    assert "?level=1 for cat, dog, emu, ?level=2 for v_cat_1" in refused(
        write(tmp_path / "ucf", videos)
    )


def test_drawings_over_images_that_lie_deeper_are_no_classes(tmp_path: Path) -> None:
    """`segmentations/` beside `CUB/images/`, and `Meta/` beside splits of which one is flat."""
    birds = write(tmp_path / "birds", [*classes("CUB/images/"), *classes("segmentations/")])
    assert as_read(birds) == TRUTH
    signs = write(tmp_path / "signs", [*classes("Train/"), "Test/7.png", "Meta/0.png"])
    assert as_read(f"{signs}?split=Train") == TRUTH


def test_one_folder_under_two_names_is_refused_and_folders_in_classes_are_noted(
    tmp_path: Path,
) -> None:
    place = write(tmp_path / "set", [*classes(), "cat/aug/90.png", "$RECYCLE.BIN/8.png"])
    assert as_read(place) == TRUTH | {("cat", 90)}
    assert any("cat/aug" in note for note in open_labelled(place, "test").notes)
    (place / "kitty").symlink_to(place / "cat")
    assert "cat and kitty are one by a link" in refused(place)


# ---------------------------------------------------------------- where a list's images lie


def test_a_list_beside_masks_names_the_images(tmp_path: Path) -> None:
    """As the pets have it: `annotations/list.csv`, `annotations/trimaps/`, `images/`."""
    place = tmp_path / "pets"
    write(place, [f"images/{level}.jpg" for _, level in TRUTH])
    masks = write(place / "annotations" / "trimaps", [f"{level}.png" for _, level in TRUTH])
    for mask in masks.iterdir():
        mask.write_bytes((place / "images" / "0.jpg").read_bytes())
    ids = [f"{level},{label}" for label, level in TRUTH]
    assert as_read(of_list(place / "annotations" / "list.csv", ids, "image_id,label")) == TRUTH
    assert as_read(of_list(place / "list.csv", ids, "image_id,label")) == TRUTH
    rows = [f"images/{level}.jpg,{label}" for label, level in TRUTH]
    assert as_read(of_list(place / "csv" / "list.csv", rows)) == TRUTH


def test_a_name_that_two_guessed_folders_hold_is_not_guessed(tmp_path: Path) -> None:
    """`train/1.png` and `test/1.png` are two images, of which a list of names says nothing."""
    place = write(tmp_path, [f"{part}/{at}.png" for part in ("train", "test") for at in range(3)])
    rows = [f"{at}.png,{NAMES[at]}" for at in range(3)]
    assert "2 of that name" in refused(of_list(place / "list.csv", rows))
