"""Datasets as people have them: the right images under the right classes, or what to change."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from small_sets import NAMES, TRUTH, classes, png, table, write, write_tar

from driftscope.data import EncodedSet, labelled, open_dataset, open_labelled
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


# ---------------------------------------------------------------- tables


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    return write(tmp_path, [f"{level}.png" for _, level in TRUTH])


def test_columns_of_one_1_a_row_are_classes(flat: Path) -> None:
    rows = [
        f"{level},0,{','.join('1.0' if one == label else '0.0' for one in NAMES)}"
        for label, level in TRUTH
    ]
    header = f"image,is_train,{','.join(NAMES)}"
    assert as_read(of_list(flat / "list.csv", rows, header)) == TRUTH
    assert "1 of its 7 rows say yes to several" in refused(
        of_list(flat / "list.csv", [*rows, "0,0,1,1,0"], header)
    )


@pytest.mark.parametrize("header", ["Filename;ClassId", "id;species", "ImageId;PredictionString"])
def test_usual_columns_are_found_whatever_joins_their_words(flat: Path, header: str) -> None:
    rows = [f"{level}.png;{label}" for label, level in TRUTH]
    assert as_read(of_list(flat / "list.csv", rows, header)) == TRUTH


def test_labels_of_imagenets_boxes_are_its_ids(flat: Path) -> None:
    rows = ["0,n01440764 1 2 3 4 n01440764 5 6 7 8 ", "10,n01443537 85 1 499 272 "]
    place = of_list(flat / "LOC_val_solution.csv", rows, "ImageId,PredictionString")
    assert as_read(place) == {("tench", 0), ("goldfish", 10)}


def test_a_number_is_one_class_in_whatever_form_and_raw_bytes_are_none(flat: Path) -> None:
    assert as_read(of_list(flat / "a.csv", ["0.png,1.0", "1.png,1", "10.png,2.00"])) == {
        ("1", 0), ("1", 1), ("2", 10)
    }  # fmt: skip
    assert "1 in two spellings as label, 01 and 1" in refused(
        of_list(flat / "b.csv", ["0.png,1", "1.png,01", "10.png,2"])
    )
    assert "bytes that are no text" in refused(
        of_list(flat / "c.csv", ["0.png,\x00", "1.png,\x01"])
    )


def test_labels_that_another_column_tells_otherwise_are_noted(flat: Path) -> None:
    rows = [f"{level}.png,{'pet' if label != 'emu' else 'wild'},{label}" for label, level in TRUTH]
    place = of_list(flat / "list.csv", rows, "path,class,target")
    assert any("?label=target" in note for note in open_labelled(place, "test").notes)
    assert as_read(f"{place}?label=target") == TRUTH
    same = [f"{level}.png,{NAMES.index(label)},{label}" for label, level in TRUTH]
    noted = open_labelled(of_list(flat / "list.csv", same, "path,label,label_name"), "test").notes
    assert not any("?label" in note for note in noted)


# ---------------------------------------------------------------- names beside the images


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "0 cat\n1 dog\n2 emu"),
        ("classes.txt", "cat,0\ndog,1\nemu,2"),
        ("classes.txt", "1. dog\n2. emu\n0. cat"),
        ("labels.txt", "cat\ndog\nemu"),
        ("class_to_idx.json", '{"emu": 2, "cat": 0, "dog": 1}'),
        ("id2label.json", '{"0": "cat", "1": "dog", "2": "emu"}'),
    ],
)
def test_a_file_of_numbers_and_names_names_classes_by_their_number(
    tmp_path: Path, name: str, text: str
) -> None:
    place = write(tmp_path / "set", classes(names=("0", "1", "2")))
    (place / name).write_text(text)
    assert as_read(place) == TRUTH


@pytest.mark.parametrize(
    ("folders", "text"),
    [
        (("0", "1", "2"), "1 cat\n2 dog\n3 emu"),
        (("n01440764", "n01443537", "n01484850"), "goldfish\nshark\ntench"),
    ],
)
def test_names_of_other_numbers_or_in_another_order_are_passed_over(
    tmp_path: Path, folders: tuple[str, ...], text: str
) -> None:
    place = write(tmp_path / "set", classes(names=folders))
    own = {words for words, _ in as_read(place)}
    (place / "classes.txt").write_text(text)
    assert {words for words, _ in as_read(place)} == own
    notes = open_labelled(place, "test").notes
    assert any("classes.txt names none of its classes" in note for note in notes)


# ---------------------------------------------------------------- flat images


PLAIN_LISTS = {
    "annotations/test.txt": ("images/{name}_{level}.jpg", "#Image CLASS\n{name}_{level} 1 1 1"),
    "val.txt": ("val/{level}.png", "val/{level}.png {number}"),
    "images_variant_test.txt": ("images/00{level}.jpg", "00{level} {name}"),
    "meta/test.txt": ("images/{name}/{level}.jpg", "{name}/{level}"),
    "images.txt": ("images/{name}/{level}.jpg", "{level} {name}/{level}.jpg"),
}
"""As Oxford's pets, ImageNet, FGVC-Aircraft, Food-101 and CUB publish them: files and lines."""


@pytest.mark.parametrize("name", PLAIN_LISTS)
def test_a_published_list_without_a_header_is_read_and_named_beside_flat_images(
    tmp_path: Path, name: str
) -> None:
    file, line = PLAIN_LISTS[name]
    place, rows = tmp_path / "set", []
    for label, level in sorted(TRUTH):
        known = {"name": label, "level": level, "number": NAMES.index(label)}
        path = place / file.format(**known)
        write(place, [file.format(**known)])
        path.write_bytes(png(level))
        rows.append(line.format(**known))
    (place / name).parent.mkdir(exist_ok=True)
    (place / name).write_text("\n".join(rows))
    (place / "classes.txt").write_text("\n".join(NAMES))
    assert as_read(place / name) == TRUTH
    if "{name}/" in file:
        said = open_labelled(place, "test").notes
        assert any(f"{place / name} lists its test images" in note for note in said) == (
            name == "meta/test.txt"
        )
    else:
        assert as_read(place) == TRUTH
        assert f"{place / name} tells their classes: give that file" in refused(
            (place / file).parent
        )


@pytest.mark.parametrize(
    ("beside", "text", "said"),
    [
        ("imagelabels.mat", "", r"scipy\.io\.loadmat\(FILE\)\['labels'\]"),
        ("ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", "1\n2", "meta.mat"),
        ("captions.txt", "image,caption\n0.png,a cat\n", "give that file as the set of --retr"),
        ("GT-final_test.csv", "Filename;ClassId\n0.png;0", "if .*test.csv tells their classes"),
    ],
)
def test_the_file_that_tells_of_flat_images_is_named_with_its_use(
    tmp_path: Path, beside: str, text: str, said: str
) -> None:
    place = write(tmp_path / "set", [f"jpg/{level}.png" for _, level in TRUTH])
    (place / beside).parent.mkdir(parents=True, exist_ok=True)
    (place / beside).write_text(text)
    for pointed_at in (place, place / "jpg"):
        sentence = refused(pointed_at)
        assert str(place / beside) in sentence
        assert re.search(said, sentence)


def test_names_that_tell_classes_are_told_and_lists_of_answers_to_give_are_not(
    tmp_path: Path,
) -> None:
    place = write(tmp_path / "train", [f"{name}.{at}.png" for name in NAMES for at in (1, 2)])
    (tmp_path / "sampleSubmission.csv").write_text("id,label\n1,0\n")
    assert "cat.1.png), move those into folders named so (cat/, dog/" in refused(place)


def test_a_list_of_captions_beside_the_images_is_read(tmp_path: Path) -> None:
    place = write(tmp_path, ["Images/1.jpg", "Images/2.jpg"])
    (place / "captions.txt").write_text('image,caption\n1.jpg,a cat\n2.jpg,"a dog, x"\n1.jpg,one\n')
    images = open_dataset(place / "captions.txt", "test")
    assert isinstance(images, EncodedSet)
    assert images.by_image().captions == (("a cat", "one"), ("a dog, x",))


# ---------------------------------------------------------------- tars


def test_further_images_of_a_samples_tar_are_counted_or_refused(tmp_path: Path) -> None:
    """`s00.seg.png` beside `s00.png` is another image of it; with a label of its own it is not."""
    tar = write_tar(tmp_path / "0.tar", "cls", str)
    for name in ("s00.seg.png", "s01.png"):
        add_to(tar, name, png(99))
    assert as_read(tar) == TRUTH
    (note,) = open_labelled(tar, "test").notes
    assert note == "2 further images of samples that have one are passed over: s01.png"
    add_to(tar, "s00.seg.cls", b"cat")
    assert "such as s00_seg.png" in refused(tar)


def add_to(tar: Path, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    with tarfile.open(tar, "a") as opened:
        opened.addfile(entry, io.BytesIO(data))


# ---------------------------------------------------------------- JSON, Parquet, Arrow, arrays


JSON_FORMS: dict[str, Callable[[str, str], tuple[str, object]]] = {
    "nested.jsonl": lambda path, label: ("", {"image": {"path": path}, "label": {"name": label}}),
    "by_path.json": lambda path, label: (path, label),
    "data.json": lambda path, label: ("data", {"path": path, "label": label}),
}


@pytest.mark.parametrize("name", JSON_FORMS)
def test_json_is_read_however_its_objects_are_nested(tmp_path: Path, name: str) -> None:
    place = write(tmp_path, classes())
    told = [JSON_FORMS[name](f"{label}/{level}.png", label) for label, level in sorted(TRUTH)]
    if name == "nested.jsonl":
        (place / name).write_text("\n".join(json.dumps(one) for _, one in told))
    else:
        rows = dict(told) if name == "by_path.json" else {"data": [one for _, one in told]}
        (place / name).write_text(json.dumps(rows))
    assert as_read(place / name) == TRUTH


def test_metadata_of_captions_leaves_the_class_folders_and_of_other_classes_is_doubted(
    tmp_path: Path,
) -> None:
    place = write(tmp_path / "set", classes())
    paths = [f"{label}/{level}.png" for label, level in sorted(TRUTH)]
    of_list(place / "metadata.csv", [f"{one},a pet" for one in paths], "file_name,text")
    assert as_read(place) == TRUTH
    of_list(place / "metadata.csv", [f"{a},{b}" for a, b in zip(paths, "xyzxyz", strict=True)])
    assert not open_labelled(place, "test").doubts
    rows = [f"{one},{NAMES[(NAMES.index(one[:3]) + 1) % 3]}" for one in paths]
    of_list(place / "metadata.csv", rows)
    (doubt,) = open_labelled(place, "test").doubts
    assert "another class than the folder for 6 of its 6 images" in doubt


@pytest.mark.parametrize("form", ["part-{:05}.snappy.parquet", "{:04}.parquet", "{:05}-x.arrow"])
def test_numbered_parts_are_one_split(tmp_path: Path, form: str) -> None:
    place = tmp_path / "set"
    place.mkdir()
    for number, (label, level) in enumerate(sorted(TRUTH)):
        rows = table([label], [png(level)])
        if form.endswith("arrow"):
            file = place / f"beans-test-{number:05}-of-00006.arrow"
            with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, rows.schema) as stream:
                stream.write_table(rows)
        else:
            parquet.write_table(rows, place / form.format(number))
    assert as_read(place) == TRUTH


def test_what_holds_no_image_files_is_told_with_the_way_out(tmp_path: Path) -> None:
    of_column = tmp_path / "hive" / "label=cat"
    of_column.mkdir(parents=True)
    parquet.write_table(table(["x"], [png(1)]), of_column / "0.parquet")
    assert "divided into folders by a column (label=cat/)" in refused(tmp_path / "hive")
    arrays = ("camelyon.h5", "test_batch", "x.npy", "a.tfrecord-0-of-1")
    for name in arrays:
        place = tmp_path / name.partition(".")[0]
        place.mkdir()
        (place / name).write_bytes(b"x")
        assert f"{name} holds arrays; write each image to a file" in refused(place)
        assert f"{name} holds arrays" in refused(place / name)


def test_sets_with_splits_and_shares_of_the_images_are_no_classes(tmp_path: Path) -> None:
    """`v1/train/cat`, and HAM10000's `images_part_1` beside its list."""
    sets = [f"{above}/{part}/" for above in ("v1", "v2") for part in ("train", "test")]
    versions = write(tmp_path / "sets", [file for above in sets for file in classes(above)])
    assert "not plain which of its folders are classes" in refused(versions)
    assert as_read(versions / "v1") == TRUTH
    files = [f"images_part_{1 + level % 2}/{level}.png" for _, level in TRUTH]
    shares = write(tmp_path / "shares", files)
    rows = [f"{level},{label}" for label, level in TRUTH]
    listed = of_list(shares / "meta.csv", rows, "image_id,label")
    assert f"if {listed} tells their classes, give that file" in refused(shares)
    assert as_read(listed) == TRUTH


def test_json_of_splits_names_no_classes(tmp_path: Path) -> None:
    place = write(tmp_path, [*classes("a/"), *classes("b/", ("cat", "dog"))])
    held = {"test": classes("a/"), "train": classes("b/", ("cat", "dog"))}
    (place / "split.json").write_text(json.dumps(held))
    assert as_read(place / "split.json") == TRUTH
    (place / "captions.json").write_text(json.dumps({one: f"no {one}" for one in classes("a/")}))
    assert "it tells of captions: give it as the set of --retrieval" in refused(
        place / "captions.json"
    )
