"""The same facts written in other ways: files of names, prompts, lists, tables, tars, Arrow."""

from __future__ import annotations

import io
import json
import tarfile
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from small_sets import NAMES, TRUTH, classes, png, table, write

from driftscope.data import EncodedSet, labelled, open_dataset, open_labelled
from driftscope.data.names import read_names, read_templates
from driftscope.data.prompts import expand_templates
from driftscope.errors import DataError

ROWS = sorted(TRUTH)


def as_read(place: Path | str, split: str = "test") -> list[tuple[str, int]]:
    images = open_labelled(place, split)
    labels, names = labelled(images)
    levels = images.pixels(range(len(images)), 8)[:, 0, 0, 0].tolist()
    return sorted((names[one], level) for one, level in zip(labels, levels, strict=True))


# ---------------------------------------------------------------- names and prompts

NAMED = {
    "equals.txt": "0=cat\n1=dog\n2=emu\n",
    "brackets.txt": "[0] cat\n[1] dog\n[2] emu\n",
    "dashes.txt": "0 - cat\n1 - dog\n2 - emu\n",
    "quoted.txt": "'cat',\n'dog',\n'emu',\n",
    "comment.txt": "# the classes\ncat\ndog\nemu\n",
    "blanks.txt": "\ufeffcat \r\n dog\t\r\n\r\nemu\r\n",
    "heading.csv": "class_id,name\n0,cat\n1,dog\n2,emu\n",
    "yolo.yaml": "path: x\nnames:\n  0: cat\n  1: dog\n  2: emu\n",
    "list.yaml": "nc: 3\nnames: [cat, dog, emu]\n",
    "objects.json": json.dumps([{"id": at, "name": name} for at, name in enumerate(NAMES)]),
    "coco.json": json.dumps(
        {"categories": [{"id": at, "name": name} for at, name in enumerate(NAMES)]}
    ),
}


@pytest.mark.parametrize("name", NAMED)
def test_files_of_names_say_the_same_in_many_forms(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(NAMED[name], encoding="utf-8")
    words = read_names(tmp_path / name).words_of(("0", "1", "2"), must_fit=True)
    assert words == dict(zip("012", NAMES, strict=True))


def test_names_that_are_no_utf_8_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\ndog", encoding="utf-16")
    with pytest.raises(DataError, match=r"names\.txt: it is no UTF-8 text; save it as UTF-8$"):
        read_names(tmp_path / "names.txt")


def test_the_place_of_a_prompts_class_is_known_in_other_spellings(tmp_path: Path) -> None:
    file = tmp_path / "templates.txt"
    places = ("{}", "{c}", "{label}", "{class_name}", "{0}", "%s")
    file.write_text("".join(f"a photo of a {one}.\n" for one in places))
    assert read_templates(str(file)) == ("a photo of a {}.",) * len(places)
    for odd in ("a photo", "{} and {}", "a {thing}"):
        file.write_text(odd)
        with pytest.raises(DataError, match="neither a sentence with one"):
            expand_templates(read_templates(str(file)))


# ---------------------------------------------------------------- lists

LISTS = {
    "first.txt": "\n".join(f"{NAMES.index(one)} {one}/{level}.png" for one, level in ROWS),
    "objects.json": json.dumps({f"{one}/{level}.png": {"label": one} for one, level in ROWS}),
    "rows.json": json.dumps(
        {
            str(at): {"path": f"{one}/{level}.png", "label": one}
            for at, (one, level) in enumerate(ROWS)
        }
    ),
    "columns.json": json.dumps(
        {
            "path": {str(at): f"{one}/{level}.png" for at, (one, level) in enumerate(ROWS)},
            "label": {str(at): one for at, (one, _) in enumerate(ROWS)},
        }
    ),
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_say_the_same_in_many_forms(tmp_path: Path, name: str) -> None:
    write(tmp_path, classes())
    (tmp_path / name).write_text(LISTS[name])
    told = {str(at): one for at, one in enumerate(NAMES)} if name == "first.txt" else {}
    assert [(told.get(one, one), level) for one, level in as_read(tmp_path / name)] == ROWS


@pytest.mark.parametrize("name", ["results_20130124.token", "Flickr8k.token.txt", "captions.json"])
def test_captions_as_flickr_publishes_them_are_read(tmp_path: Path, name: str) -> None:
    write(tmp_path, [f"images/{level}.png" for _, level in ROWS])
    said = {f"{level}.png": [f"a {one}, {n} of {level}" for n in (1, 2)] for one, level in ROWS}
    lines = [f"{file}#{n}\t{text}" for file, of in said.items() for n, text in enumerate(of)]
    (tmp_path / name).write_text(json.dumps(said) if name.endswith("json") else "\n".join(lines))
    images = open_dataset(tmp_path / name, "test")
    assert isinstance(images, EncodedSet)
    images = images.by_image()
    levels = images.pixels(range(len(images)), 8)[:, 0, 0, 0].tolist()
    assert {
        f"{level}.png": list(of) for level, of in zip(levels, images.captions, strict=True)
    } == said


@pytest.mark.parametrize("mark", [";", "|"])
def test_rows_of_several_classes_are_refused_where_none_stands_alone(
    tmp_path: Path, mark: str
) -> None:
    write(tmp_path, classes())
    rows = [f"{one}/{n}.png,{one}{mark}{NAMES[(NAMES.index(one) + 1) % 3]}" for one, n in ROWS]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *rows]))
    with pytest.raises(DataError, match="has rows of several classes"):
        as_read(tmp_path / "list.csv")
    rows = [f"{one}/{n}.png,{one}{mark}x{one}" for one, n in ROWS]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *rows]))
    assert len(as_read(tmp_path / "list.csv")) == len(ROWS)


def test_a_row_without_a_path_is_named_by_its_number(tmp_path: Path) -> None:
    write(tmp_path, classes())
    (tmp_path / "list.csv").write_text("path,label\ncat/0.png,cat\n,dog\ndog/10.png,dog\n")
    with pytest.raises(DataError, match=r"no path in row 2"):
        as_read(tmp_path / "list.csv")
    assert as_read(f"{tmp_path / 'list.csv'}?bad=skip") == [("cat", 0), ("dog", 10)]


# ---------------------------------------------------------------- folders


@pytest.mark.parametrize("form", ["{name}_{split}", "{split}-{name}"])
def test_folders_that_are_named_by_class_and_split_are_both(tmp_path: Path, form: str) -> None:
    for split, copies in (("train", (0, 1)), ("test", (2,))):
        for at, name in enumerate(NAMES):
            folder = form.format(name=name, split=split)
            write(tmp_path, [f"{folder}/{10 * at + copy}.png" for copy in copies])
    assert as_read(tmp_path) == [(name, 10 * at + 2) for at, name in enumerate(NAMES)]
    assert as_read(tmp_path, "train") == ROWS
    (tmp_path / "emu_test").rename(tmp_path / "gnu_test") if form[1] == "n" else (
        tmp_path / "test-emu"
    ).rename(tmp_path / "test-gnu")
    with pytest.raises(DataError, match="several splits that 'test' may mean"):
        as_read(tmp_path)


# ---------------------------------------------------------------- tables, Arrow, tars


def test_columns_of_other_types_hold_the_same(tmp_path: Path) -> None:
    images = pa.array([png(level) for _, level in ROWS]).dictionary_encode()
    numbers = [Decimal(NAMES.index(one)).quantize(Decimal("1.00")) for one, _ in ROWS]
    parquet.write_table(pa.table({"image": images, "label": numbers}), tmp_path / "x.parquet")
    assert as_read(tmp_path / "x.parquet") == [(str(NAMES.index(one)), n) for one, n in ROWS]


@pytest.mark.parametrize("ending", ["arrow", "feather"])
def test_arrow_files_that_are_no_streams_are_read(tmp_path: Path, ending: str) -> None:
    held = table([one for one, _ in ROWS])
    with (
        pa.OSFile(str(tmp_path / f"x.{ending}"), "wb") as sink,
        pa.ipc.new_file(sink, held.schema) as file,
    ):
        file.write_table(held)
    assert as_read(tmp_path / f"x.{ending}") == ROWS


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    held = table([one for one, _ in ROWS])
    twice = held.append_column("label", held.column("label"))
    parquet.write_table(twice, tmp_path / "x.parquet")
    with pytest.raises(DataError, match="two columns 'label'; name each once"):
        as_read(tmp_path / "x.parquet")


def test_the_card_is_read_where_the_cache_of_the_hub_keeps_it(tmp_path: Path) -> None:
    snapshot = tmp_path / "datasets--x--y" / "snapshots" / "abc"
    (snapshot / "data").mkdir(parents=True)
    write(tmp_path / "datasets--x--y", ["refs/main", "blobs/"])
    numbers = table([NAMES.index(one) for one, _ in ROWS])
    parquet.write_table(numbers, snapshot / "data" / "test-00000-of-00001.parquet")
    names = "".join(f"        - {name}\n" for name in NAMES)
    (snapshot / "README.md").write_text(
        "---\ndataset_info:\n  features:\n  - name: label\n    dtype:\n      class_label:\n"
        f"        names:\n{names}---\n"
    )
    assert as_read(tmp_path / "datasets--x--y") == as_read(snapshot) == ROWS


def test_splits_whose_classes_are_numbers_here_and_words_there_are_refused(tmp_path: Path) -> None:
    parquet.write_table(table([one for one, _ in ROWS]), tmp_path / "train.parquet")
    parquet.write_table(table([NAMES.index(one) for one, _ in ROWS]), tmp_path / "test.parquet")
    with pytest.raises(DataError, match=r"numbers as label in its split test, and words .* train;"):
        as_read(tmp_path)


def test_the_tables_that_img2dataset_writes_beside_its_tars_are_none(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"caption": ["a cat"]}), tmp_path / "00000.parquet")
    with tarfile.open(tmp_path / "00000.tar", "w") as tar:
        for name, data in (
            ("0.png", png(7)),
            ("0.txt", b"a cat"),
            ("1.txt", b"a dog whose image was not found"),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    images = open_dataset(tmp_path, "test")
    assert isinstance(images, EncodedSet)
    assert images.captions == (("a cat",),)
    assert images.notes == ("1 samples without an image are left out",)
