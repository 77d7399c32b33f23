"""Every layout opens to the same images, labels and names; what is ambiguous is asked about."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from driftscope.data import EncodedSet, labelled, look, open_dataset, open_labelled
from driftscope.data.splits import open_train_and_test
from driftscope.errors import DataError

NAMES = ("cat", "dog", "emu")
TRUTH = {(name, 10 * number + copy) for number, name in enumerate(NAMES) for copy in range(2)}
"""Class and grey level of every image."""


def png(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (level,) * 3).save(file, "PNG")
    return file.getvalue()


def write(root: Path, files: Iterable[str]) -> Path:
    """Files by path; an image shows the number in its name, a name that ends in / is a folder."""
    for name in files:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            file.mkdir()
        elif file.suffix in (".png", ".jpg"):
            file.write_bytes(png(int("".join(filter(str.isdigit, file.stem)) or 0)))
        else:
            file.write_text("{}")
    return root


def classes(above: str = "", names: Iterable[str] = NAMES) -> list[str]:
    return [
        f"{above}{name}/{10 * at + copy}.png" for at, name in enumerate(names) for copy in (0, 1)
    ]


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


def table(labels: list[object], images: list[object] | None = None) -> pa.Table:
    return pa.table(
        {"image": images or [png(level) for _, level in sorted(TRUTH)], "label": labels}
    )


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
    with tarfile.open(root / "test" / "0.tar", "w") as tar:
        for label, level in sorted(TRUTH):
            for kind, data in (("png", png(level)), ("cls", str(NAMES.index(label)).encode())):
                entry = tarfile.TarInfo(f"s{level:02}.{kind}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    return str(root)


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
    "unlabeled test": [*classes("train/"), *classes("val/"), "test/7.png"],
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


def test_what_is_passed_over_is_counted(tmp_path: Path) -> None:
    place = write(tmp_path / "set", [*SPLITS, "notes.txt", "more.txt", "devkit/", "extra/7.png"])
    images = open_dataset(place, "test")
    assert isinstance(images, EncodedSet)
    said = "; ".join(images.notes)
    for part in ("2 .txt", "devkit", "beside its splits extra"):
        assert part in said


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


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([-1, 0, 1, 2, 1, 0], "no class but '-1'"),
        ([float("nan"), 0.0, 1.0, 2.0, 1.0, 0.0], "no class but 'nan'"),
        (["cat", "NA", "dog", "dog", "cat", "emu"], "no class but 'NA' as label in 1 of 6"),
        (["cat", None, "dog", "dog", "cat", "emu"], "no label in 1 of 6"),
        ([[0, 1]] * 6, "holds lists"),
        (["cat", "dog", "cat|dog", "dog", "cat", "cat"], "rows of several classes"),
    ],
)
def test_what_is_no_label_is_no_class(tmp_path: Path, labels: list[object], reason: str) -> None:
    parquet.write_table(table(labels), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=reason.replace("|", r"\|")):
        open_dataset(tmp_path / "x.parquet", "test")


def test_numbers_that_a_table_holds_as_fractions_are_numbers(tmp_path: Path) -> None:
    parquet.write_table(table([0.0, 0.0, 1.0, 1.0, 2.0, 2.0]), tmp_path / "x.parquet")
    assert open_dataset(tmp_path / "x.parquet", "test").class_names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (["https://a.b/c.jpg"] * 6, "addresses such as .https"),
        (["data:image/png;base64,AAAA"] * 6, "written out as text"),
        ([[{"bytes": b"x"}]] * 6, "which is no image"),
        ([[[1, 2], [3, 4]]] * 6, "which is no image"),
    ],
)
def test_image_columns_of_another_kind_are_answered_in_a_sentence(
    tmp_path: Path, column: list[object], reason: str
) -> None:
    parquet.write_table(pa.table({"image": column}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=reason):
        open_dataset(tmp_path / "x.parquet", "test")


def test_a_row_without_an_image_is_named_and_can_be_left_out(tmp_path: Path) -> None:
    place = tmp_path / "x.parquet"
    images = [png(1), None, png(3), png(4), png(5), png(6)]
    parquet.write_table(table(list("aabbcc"), images), place)
    with pytest.raises(DataError, match=r"row 2 of .*holds none"):
        open_dataset(place, "test").pixels(range(6), 8)
    kept = open_dataset(f"{place}?bad=skip", "test")
    assert isinstance(kept, EncodedSet)
    assert kept.pixels(range(5), 8)[:, 0, 0, 0].tolist() == [1, 3, 4, 5, 6]
    assert kept.notes[0].startswith("1 images cannot be read and are left out")


def test_configurations_below_data_are_told_apart_with_their_own_names(tmp_path: Path) -> None:
    card = "---\ndataset_info:\n"
    for configuration, names in (("one", NAMES), ("two", NAMES[::-1])):
        (tmp_path / "data" / configuration).mkdir(parents=True)
        numbers = [names.index(label) for label, _ in sorted(TRUTH)]
        file = tmp_path / "data" / configuration / "test-00000-of-00001.parquet"
        parquet.write_table(table(numbers), file)
        listed = "".join(f"          '{at}': {name}\n" for at, name in enumerate(names))
        card += (
            f"- config_name: {configuration}\n  features:\n  - name: label\n    dtype:\n"
            f"      class_label:\n        names:\n{listed}"
        )
    (tmp_path / "README.md").write_text(f"{card}---\n")
    with pytest.raises(DataError, match=r"several configurations; add .*one, two"):
        open_dataset(tmp_path, "test")
    for configuration in ("one", "two"):
        images = open_dataset(f"{tmp_path}?config={configuration}", "test")
        labels, names = labelled(images)
        assert [names[one] for one in labels] == [label for label, _ in sorted(TRUTH)]


def test_a_cards_configurations_say_which_files_are_theirs(tmp_path: Path) -> None:
    for name, label in (("a", "x"), ("b", "y")):
        parquet.write_table(
            table([label, "z"], [png(1), png(2)]), tmp_path / f"{name}-train.parquet"
        )
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: first\n  data_files:\n  - split: train\n    path: a-*\n"
        "- config_name: second\n  data_files:\n  - split: train\n    path: b-*\n---\n"
    )
    assert open_dataset(f"{tmp_path}?config=second", "train").class_names == ("y", "z")


def test_files_that_do_not_belong_together_are_refused_and_missing_ones_doubted(
    tmp_path: Path,
) -> None:
    parquet.write_table(table(["x"], [png(1)]), tmp_path / "test-00000-of-00003.parquet")
    parquet.write_table(pa.table({"image": [png(2)]}), tmp_path / "test-00001-of-00003.parquet")
    with pytest.raises(DataError, match=r"00001-of-00003\.parquet has no column 'label'"):
        open_dataset(tmp_path, "test")
    parquet.write_table(table(["y"], [png(2)]), tmp_path / "test-00001-of-00003.parquet")
    images = open_dataset(tmp_path, "test")
    assert isinstance(images, EncodedSet)
    assert images.doubts == ("1 of the 3 files of its split test are missing",)


def test_other_counts_than_the_cards_are_doubted(tmp_path: Path) -> None:
    parquet.write_table(table(["x", "y"], [png(1), png(2)]), tmp_path / "test.parquet")
    (tmp_path / "README.md").write_text(
        "---\ndataset_info:\n  splits:\n  - name: test\n    num_examples: 50\n---\n"
    )
    images = open_dataset(tmp_path, "test")
    assert isinstance(images, EncodedSet)
    assert images.doubts == ("its split test has 2 rows, but its card says 50",)
