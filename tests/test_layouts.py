"""Every layout opens to the same images, labels and names; what is ambiguous is asked about."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import array_sets
import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet
from small_sets import NAMES, TRUTH, classes, png, table, write, write_tar

from driftscope.data import EncodedSet, labelled, look, open_dataset, open_labelled
from driftscope.data.splits import open_train_and_test
from driftscope.errors import DataError

# ---------------------------------------------------------------- what each layout writes


def class_folders(root: Path) -> str:
    return str(write(root, classes()))


def list_of_paths(root: Path, separator: str = ",", name: str = "list.csv") -> str:
    write(root, classes())
    rows = [f"{label}/{level}.png{separator}{label}" for label, level in sorted(TRUTH)]
    (root / name).write_text("\n".join([f"path{separator}label", *rows]))
    return str(root / name)


def json_lines(root: Path) -> str:
    write(root, classes())
    rows = [{"file_name": f"{label}/{level}.png", "label": label} for label, level in sorted(TRUTH)]
    (root / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(root / "list.jsonl")


def folder_with_metadata(root: Path) -> str:
    write(root, [f"test/{level}.png" for _, level in TRUTH])
    rows = [f"{level}.png,{label}" for label, level in TRUTH]
    (root / "test" / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    return str(root)


def coop_split(root: Path) -> str:
    write(root, [f"jpg/{level}.png" for _, level in TRUTH])
    rows = [[f"{level}.png", NAMES.index(label), label] for label, level in TRUTH]
    (root / "split_zhou_Animals.json").write_text(json.dumps({"train": rows, "test": rows}))
    return str(root)


def parquet_file(root: Path) -> str:
    root.mkdir()
    parquet.write_table(table([label for label, _ in sorted(TRUTH)]), root / "x.parquet")
    return str(root / "x.parquet")


def parquet_of_paths(root: Path) -> str:
    write(root, classes())
    paths = [f"{label}/{level}.png" for label, level in sorted(TRUTH)]
    parquet.write_table(table([one for one, _ in sorted(TRUTH)], paths), root / "x.parquet")
    return str(root / "x.parquet")


def hub_layout(root: Path) -> str:
    (root / "data").mkdir(parents=True)
    numbers = [NAMES.index(label) for label, _ in sorted(TRUTH)]
    parquet.write_table(table(numbers), root / "data" / "test-00000-of-00001.parquet")
    names = "".join(f"          '{at}': {name}\n" for at, name in enumerate(NAMES))
    (root / "README.md").write_text(
        "---\ndataset_info:\n  features:\n  - name: label\n    dtype:\n      class_label:\n"
        f"        names:\n{names}---\n"
    )
    return str(root)


def arrow(root: Path) -> str:
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES))}
    )
    rows = {
        "image": [{"bytes": png(level), "path": None} for _, level in sorted(TRUTH)],
        "label": [NAMES.index(label) for label, _ in sorted(TRUTH)],
    }
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(root))
    return str(root)


def webdataset(root: Path) -> str:
    (root / "test").mkdir(parents=True)
    (root / "classnames.txt").write_text("\n".join(NAMES))
    write_tar(root / "test" / "0.tar", "cls", lambda label: str(NAMES.index(label)))
    return str(root)


def webdataset_of_json(root: Path) -> str:
    root.mkdir()
    (root / "classnames.txt").write_text("\n".join(NAMES))
    write_tar(root / "0.tar", "json", lambda label: json.dumps({"label": NAMES.index(label)}))
    return str(root)


def windows_paths(root: Path) -> str:
    place = list_of_paths(root)
    Path(place).write_text(Path(place).read_text().replace("/", "\\"))
    return place


def ids_of_files_below(root: Path) -> str:
    write(root, classes("images_part_1/all/"))
    rows = [f"{level},{label}" for label, level in sorted(TRUTH)]
    (root / "list.csv").write_text("\n".join(["image_id,Label", *rows]))
    return str(root / "list.csv")


def json_objects(root: Path) -> str:
    write(root, classes())
    rows = [{"path": f"{label}/{level}.png", "label": label} for label, level in sorted(TRUTH)]
    (root / "list.json").write_text(json.dumps(rows))
    return str(root / "list.json")


def coco_categories(root: Path) -> str:
    write(root, [*classes("images/"), "annotations/"])
    held = {
        "images": [{"id": level, "file_name": f"{one}/{level}.png"} for one, level in TRUTH],
        "annotations": [
            {"image_id": level, "category_id": 7 + NAMES.index(one)} for one, level in TRUTH
        ],
        "categories": [{"id": 7 + at, "name": name} for at, name in enumerate(NAMES)],
    }
    (root / "annotations" / "val.json").write_text(json.dumps(held))
    return str(root / "annotations" / "val.json")


def column_of_splits(root: Path) -> str:
    root.mkdir()
    labels = [label for label, _ in sorted(TRUTH)]
    rows = table([*labels, "cat"], [*(png(level) for _, level in sorted(TRUTH)), png(99)])
    parts = pa.array([*["test"] * len(TRUTH), "train"])
    parquet.write_table(rows.append_column("Data Set", parts), root / "x.parquet")
    return str(root / "x.parquet")


def bytes_and_lists_of_one(root: Path) -> str:
    root.mkdir()
    labels: list[object] = [[label.encode()] for label, _ in sorted(TRUTH)]
    parquet.write_table(table(labels), root / "x.parquet")
    return str(root / "x.parquet")


def views_of_bytes(root: Path) -> str:
    root.mkdir()
    images = pa.array([png(level) for _, level in sorted(TRUTH)], pa.binary_view())
    labels = [label for label, _ in sorted(TRUTH)]
    parquet.write_table(pa.table({"image": images, "label": labels}), root / "x.parquet")
    return str(root / "x.parquet")


def tiny_imagenet(root: Path) -> str:
    """Words of ids as the set publishes them; `test` hides its labels."""
    ids = [f"n9999999{at}" for at in range(len(NAMES))]
    write(root, [f"train/{one}/images/{100 + at}.png" for at, one in enumerate(ids)])
    write(root, [*(f"val/images/{level}.png" for _, level in TRUTH), "test/images/7.png"])
    rows = [f"{level}.png\t{ids[NAMES.index(label)]}\t0\t0\t7\t7" for label, level in TRUTH]
    (root / "val" / "val_annotations.txt").write_text("\n".join(rows))
    words = [f"{one}\t{name}, another word" for one, name in zip(ids, NAMES, strict=True)]
    (root / "words.txt").write_text("\n".join([*words, "n00000001\tentity"]))
    return str(root)


def list_of_splits_in_paths(root: Path) -> str:
    write(root, [*classes("test/"), *classes("train/", ("cat",))])
    rows = [f"./test/{label}/{level}.png,{label}" for label, level in sorted(TRUTH)]
    (root / "list.csv").write_text("\n".join(["path,label", *rows, "./train/cat/0.png,cat"]))
    return str(root / "list.csv")


def column_of_yes_and_no(root: Path) -> str:
    root.mkdir()
    labels = [label for label, _ in sorted(TRUTH)]
    rows = table([*labels, "cat"], [*(png(level) for _, level in sorted(TRUTH)), png(99)])
    flags = pa.array([*[False] * len(TRUTH), True])
    parquet.write_table(rows.append_column("is_train", flags), root / "x.parquet")
    return str(root / "x.parquet")


def lists_of_one_as_text(root: Path) -> str:
    place = list_of_paths(root)
    rows = [f"{one}/{level}.png,{said}" for one, level in sorted(TRUTH)
            for said in [f"['{one}']" if level % 2 else f"b'{one}'"]]  # fmt: skip
    Path(place).write_text("\n".join(["path,label", *rows]))
    return place


LAYOUTS: dict[str, Callable[[Path], str]] = {
    "class folders": class_folders,
    "csv": list_of_paths,
    "tsv": lambda root: list_of_paths(root, "\t", "list.tsv"),
    "semicolons": lambda root: list_of_paths(root, ";"),
    "json lines": json_lines,
    "metadata beside images": folder_with_metadata,
    "CoOp's split file": coop_split,
    "parquet file": parquet_file,
    "parquet of paths": parquet_of_paths,
    "hub layout": hub_layout,
    "arrow": arrow,
    "webdataset": webdataset,
    "webdataset of JSON": webdataset_of_json,
    "paths of Windows": windows_paths,
    "ids of files somewhere below": ids_of_files_below,
    "JSON objects": json_objects,
    "COCO's categories": coco_categories,
    "a column of splits": column_of_splits,
    "bytes and lists of one as labels": bytes_and_lists_of_one,
    "views of bytes": views_of_bytes,
    "splits in a list's paths": list_of_splits_in_paths,
    "a column of yes and no": column_of_yes_and_no,
    "lists of one and bytes, written out": lists_of_one_as_text,
    "CIFAR-10 for Python": array_sets.cifar10,
    "CIFAR-10 in binary": array_sets.cifar10_binary,
    "STL-10": array_sets.stl10,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_images_labels_and_names(tmp_path: Path, layout: str) -> None:
    images = open_dataset(LAYOUTS[layout](tmp_path / "set"), "test")
    labels, names = labelled(images)
    levels = images.pixels(range(len(images)), 8)[:, 0, 0, 0].tolist()
    assert names == NAMES
    found = {(names[label], level) for label, level in zip(labels.tolist(), levels, strict=True)}
    assert found == TRUTH
    assert len(images) == len(TRUTH)
    reversed_levels = images.pixels(list(range(len(images)))[::-1], 8)[:, 0, 0, 0].tolist()
    assert reversed_levels == levels[::-1]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_refuses_options_that_mean_nothing_there(tmp_path: Path, layout: str) -> None:
    place = LAYOUTS[layout](tmp_path / "set")
    option = "level=1" if layout != "class folders" else "label=coarse"
    with pytest.raises(DataError, match=rf"takes the options .*\?{option[:5]}"):
        look(f"{place}?{option}")


# ---------------------------------------------------------------- which level the classes are


SPLITS = [*classes("train/"), *classes("test/")]
UNDERSTOOD = {
    "one level too high": [*classes("2750/"), "split_zhou_EuroSAT.json"],
    "many levels too high": classes("a/b/c/"),
    "annotations beside": [*classes("101_ObjectCategories/"), "Annotations/cat/1.mat"],
    "masks beside": [*classes("images/"), *classes("segmentations/")],
    "splits": SPLITS,
    "an empty folder beside splits": [*SPLITS, "devkit/"],
    "a picture beside splits": [*SPLITS, "logo.png"],
    "a third part beside splits": [*SPLITS, *classes("extra/")],
    "capitals": [*classes("Train/"), *classes("Test/")],
    "years": [*classes("train2017/"), *classes("val2017/")],
    "a name before": [*classes("cars_train/"), *classes("cars_test/")],
    "wrapped splits": [*classes("seg_train/seg_train/"), *classes("seg_test/seg_test/")],
    "flat predictions beside": [
        *classes("seg_train/seg_train/"),
        *classes("seg_test/seg_test/"),
        "seg_pred/seg_pred/7.png",
    ],
    "sets": [*classes("training_set/"), *classes("test_set/")],
    "hold out": [*classes("train/"), *classes("hold_out/")],
    "images and masks in splits": [
        *(f for split in ("train", "test") for f in classes(f"{split}/images/")),
        *(f for split in ("train", "test") for f in classes(f"{split}/masks/")),
    ],
    "train alone": classes("train/"),
    "splits within classes": [
        f"{name}/{split}/{10 * at + copy}.png"
        for at, name in enumerate(NAMES)
        for copy in (0, 1)
        for split in ("train", "test")
    ],
    "a folder of unknown test images": [
        *classes("train/"),
        *classes("val/"),
        "test/unknown/7.png",
    ],
    "unlabeled test": [*classes("train/"), *classes("val/"), "test/7.png"],
    "masks named like the images": [*classes(), "cat/0_mask.png", "dog/10_seg_1.png"],
    "masks within classes": [
        f"{name}/{kind}/{10 * at + copy}.png"
        for at, name in enumerate(NAMES)
        for copy in (0, 1)
        for kind in ("images", "masks")
    ],
    "older pictures in folders": ["cat/0.png", "cat/old/1.png", *classes()[2:]],
}


@pytest.mark.parametrize("tree", UNDERSTOOD)
def test_the_level_of_the_classes_is_found(tmp_path: Path, tree: str) -> None:
    images = open_labelled(write(tmp_path / "set", UNDERSTOOD[tree]), "test")
    labels, names = labelled(images)
    levels = images.pixels(range(len(images)), 8)[:, 0, 0, 0].tolist()
    assert names == NAMES
    assert {(names[one], level) for one, level in zip(labels, levels, strict=True)} == TRUTH
    assert len(images) == len(TRUTH)


ASKED_ABOUT = {
    "superclasses": (
        [*classes("animals/"), *classes("things/", ("bus", "car"))],
        r"animals/ \{cat/",
    ),
    "domains": ([*classes("real/"), *classes("sketch/")], r"\?level=2"),
    "train and test beside classes": (classes("", ("train", "test", "cat")), "not plain"),
    "one class": (classes("", ("cat",)), "all in one folder, cat"),
    "no classes": (["images/1.png", "images/2.png"], "all in one folder, images"),
    "a list beside": (["images/1.png", "labels.csv"], "labels.csv tells their classes"),
    "flat splits": (["train/1.png", "test/1.png"], "folder of its own"),
    "a flat test split": ([*classes("train/"), "test/1.png"], r"add \?split=train"),
}


@pytest.mark.parametrize("tree", ASKED_ABOUT)
def test_what_is_ambiguous_is_read_as_images_but_not_scored_on(tmp_path: Path, tree: str) -> None:
    files, reason = ASKED_ABOUT[tree]
    images = open_dataset(write(tmp_path / "set", files), "test")
    assert len(images) > 0
    with pytest.raises(DataError, match=rf"has no labels.*{reason}") as refusal:
        labelled(images)
    assert "\n" not in str(refusal.value)


def test_a_level_is_said_by_a_word(tmp_path: Path) -> None:
    place = write(
        tmp_path / "set", [*classes("a/", ("cat", "dog")), *classes("b/", ("cat", "emu"))]
    )
    assert open_dataset(f"{place}?level=2", "test").class_names == NAMES
    images = open_dataset(f"{place}?level=1", "test")
    assert images.class_names == ("a", "b")
    assert len(open_dataset(f"{place}?level=2", "test")) == len(images) == 8
    with pytest.raises(DataError, match="is no level"):
        look(f"{place}?level=deep")
    with pytest.raises(DataError, match=r"no folders of images so deep as \?level=3.*a/ \{cat"):
        look(f"{place}?level=3")
    with pytest.raises(DataError, match="has the option level twice"):
        look(f"{place}?level=1&level=2")


def test_the_published_layout_of_tiny_imagenet_is_read(tmp_path: Path) -> None:
    place = tiny_imagenet(tmp_path / "set")
    images = open_labelled(place, "test")
    labels, ids = labelled(images)
    assert isinstance(images, EncodedSet)
    words = [images.words[one] for one in ids]
    levels = images.pixels(range(len(images)), 8)[:, 0, 0, 0].tolist()
    assert {(words[one], level) for one, level in zip(labels, levels, strict=True)} == TRUTH
    assert "the split test has no labels, so val is scored on" in images.notes
    train = open_dataset(place, "train")
    assert (train.class_names, len(train)) == (ids, 3)
    assert train.pixels(range(3), 8)[:, 0, 0, 0].tolist() == [100, 101, 102]
    annotations = tmp_path / "set" / "val" / "val_annotations.txt"
    annotations.write_text("\n".join(annotations.read_text().splitlines()[1:]))
    with pytest.raises(DataError, match="names no class of the image"):
        look(place)


def test_what_is_passed_over_is_counted(tmp_path: Path) -> None:
    place = write(tmp_path / "set", [*SPLITS, "notes.txt", "more.txt", "devkit/", "extra/7.png"])
    write(place, ["test/cat/0_mask.png"])
    (place / "gone").symlink_to(place / "nowhere")
    images = open_dataset(place, "test")
    assert isinstance(images, EncodedSet)
    said = "; ".join(images.notes)
    for part in (
        "2 .txt", "devkit", "beside its splits extra", "1 links that lead nowhere",
        "1 pictures drawn over images beside them are passed over, such as 0_mask.png",
    ):  # fmt: skip
        assert part in said


def test_the_split_that_is_read_for_another_is_named(tmp_path: Path) -> None:
    images = open_labelled(write(tmp_path / "set", classes("train/")), "test")
    assert isinstance(images, EncodedSet)
    assert images.notes == ("it has no split test, so train is read",)


@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz", "set.7z"])
def test_what_is_packed_is_to_be_unpacked(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04")
    for place in (tmp_path, tmp_path / name):
        with pytest.raises(DataError, match=r"packed.*unpack it, and give the folder"):
            look(place)


@pytest.mark.parametrize("keys", [("im.0", "im.1"), ("im0", "im.1")])
def test_a_tar_whose_names_have_dots_says_so(tmp_path: Path, keys: tuple[str, ...]) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for label, key in enumerate(keys):
            for ending, data in (("cls", str(label).encode()), ("png", png(9))):
                entry = tarfile.TarInfo(f"{key}.{ending}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    with pytest.raises(DataError, match=r"holds im\.\d\.png.* without dots .*such as im_\d\.png"):
        labelled(open_dataset(tmp_path, "test"))


def test_a_class_named_in_no_text_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path / "set", classes())
    odd = os.fsencode(tmp_path / "set") + b"/caf\xe9"
    Path(tmp_path / "set" / "cat").rename(os.fsdecode(odd))
    with pytest.raises(DataError, match=r"caf\\xe9 is not UTF-8"):
        labelled(open_dataset(tmp_path / "set", "test"))


def test_validation_stands_in_for_a_test_split_that_hides_its_labels(tmp_path: Path) -> None:
    place = write(tmp_path / "set", UNDERSTOOD["unlabeled test"])
    train, test = open_train_and_test(str(place), 0)
    assert (train.split, test.split) == ("train", "val")
    assert isinstance(test, EncodedSet)
    assert any("the split test has no labels" in note for note in test.notes)
    assert len(open_dataset(place, "test")) == 1  # as images it can be read
