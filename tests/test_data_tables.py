"""What rows of tables and lists say of images, and what they do not."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from pyarrow import parquet
from small_sets import NAMES, TRUTH, classes, png, table, write, write_tar

from driftscope.data import EncodedSet, labelled, open_dataset, open_labelled
from driftscope.data.layouts.labels import words_by_number
from driftscope.data.prompts import words_of
from driftscope.errors import DataError


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ([-1, 0, 1, 2, 1, 0], "no class but '-1'"),
        ([float("nan"), 0.0, 1.0, 2.0, 1.0, 0.0], "no class but 'nan'"),
        (["cat", "NA", "dog", "dog", "cat", "emu"], "no class but 'NA' as label in 1 of 6"),
        (["cat", None, "dog", "dog", "cat", "emu"], "no label in 1 of 6"),
        ([[0, 1]] * 6, "holds lists"),
        (["['cat', 'dog']"] * 6, "holds lists"),
        (["[0 1 0]"] * 6, "holds lists"),
        ([-100, 0, 1, 2, 1, 0], "no class but '-100'"),
        ([float("inf"), 0.0, 1.0, 2.0, 1.0, 0.0], "no class but 'inf'"),
        (["cat", "Unlabeled", "dog", "dog", "cat", "emu"], "no class but 'Unlabeled'"),
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


def test_a_text_that_thousands_of_rows_name_is_told_by_what_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions = [["a " + "long " * 10_000 + "way"], ["short"], None] * 10
    images = [png(0)] * len(captions)
    parquet.write_table(pa.table({"image": images, "caption": captions}), tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 100_000  # ten times 50 kB are there once
    found = open_dataset(tmp_path)
    assert found.captions == tuple(tuple(one or ()) for one in captions)
    monkeypatch.setattr("driftscope.limits.Megabytes.num_bytes", 400_000)
    with pytest.raises(DataError, match=r"column 'caption' unpacks to more than .* raises this"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("form", [pa.ipc.new_stream, pa.ipc.new_file])
def test_a_packed_arrow_file_is_read_up_to_what_images_unpack_to(
    tmp_path: Path, form: Callable[..., Any]
) -> None:
    def written(name: str, image: bytes) -> Path:
        rows = pa.table({"image": [image] * 4, "label": pa.array(["a", "b"] * 2)})
        rows = rows.set_column(1, "label", rows["label"].dictionary_encode())
        packed = pa.ipc.IpcWriteOptions(compression="zstd")
        with (tmp_path / name).open("wb") as file, form(file, rows.schema, options=packed) as out:
            out.write_table(rows)
        return tmp_path / name

    assert len(open_dataset(written("honest.arrow", png(0)))) == 4
    bomb = written("bomb.arrow", bytes(30_000_000))
    with pytest.raises(DataError, match=r"would unpack from 0.0 to 120 MB, which images do not"):
        open_dataset(bomb)


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


def test_a_column_that_the_first_file_lacks_is_refused_too(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"image": [png(1)]}), tmp_path / "test-00000-of-00002.parquet")
    parquet.write_table(table(["x"], [png(2)]), tmp_path / "test-00001-of-00002.parquet")
    with pytest.raises(DataError, match=r"00000-of-00002\.parquet has no column 'label'"):
        open_dataset(tmp_path, "test")


def test_the_same_split_in_two_folders_or_uploads_is_not_pooled_in_silence(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    rows = table(["x", "y"], [png(1), png(2)])
    for name in ("test-00000-of-00001-" + "a" * 16, "test-00000-of-00001-" + "b" * 16):
        parquet.write_table(rows, tmp_path / "data" / f"{name}.parquet")
    images = open_dataset(tmp_path, "test")
    assert isinstance(images, EncodedSet)
    assert images.doubts == (
        "the files of its split test are numbered twice, as those of two uploads are",
    )
    (tmp_path / "default" / "test").mkdir(parents=True)
    parquet.write_table(rows, tmp_path / "default" / "test" / "0000.parquet")
    with pytest.raises(DataError, match=r"several folders \(data, default/test\)"):
        open_dataset(tmp_path, "test")


def test_other_counts_than_the_cards_are_doubted(tmp_path: Path) -> None:
    parquet.write_table(table(["x", "y"], [png(1), png(2)]), tmp_path / "test.parquet")
    (tmp_path / "README.md").write_text(
        "---\ndataset_info:\n  splits:\n  - name: test\n    num_examples: 50\n---\n"
    )
    images = open_dataset(tmp_path, "test")
    assert isinstance(images, EncodedSet)
    assert images.doubts == ("its split test has 2 rows, but its card says 50",)


# ---------------------------------------------------------------- lists


def a_list(root: Path, header: str, *rows: str) -> Path:
    write(root, ["1.png", "2.png", "3.png", "a/4.png", "b/4.png"])
    (root / "list.csv").write_text("\n".join([header, *rows]))
    return root / "list.csv"


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (("path,label,label", "1.png,x,y"), "two columns 'label'"),
        (("1.png 0", "2.png 1"), "has no header.*such as path,label"),
        (
            ("1.png#0\tA cat.", "1.png#1\tA dog."),
            "such as path,caption.*cut what stands from the #",
        ),
        (("#Image CLASS SPECIES", "cat_1 1 1", "dog_2 2 2"), "has spaces between its values"),
        (("path,label", "1.png,x", "2.png,y", "1.png,y"), r"1\.png under several classes"),
        (("path,label", "1.png,x", "2.png,y", "3.png,x;y"), "rows of several classes"),
        (("path,label", "4.png,x", "2.png,y"), "there are 2 of that name"),
        (("path,finding", "1.png,x"), r"none of its columns \(path, finding\).*\?label=COLUMN"),
    ],
)
def test_a_list_that_would_mean_something_else_is_refused(
    tmp_path: Path, rows: tuple[str, ...], reason: str
) -> None:
    place = a_list(tmp_path, *rows)
    if "4.png" in rows[1]:
        place.write_text(place.read_text().replace("2.png", "nowhere.png"))
    with pytest.raises(DataError, match=reason):
        labelled(open_dataset(place, "test"))


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_list_in_another_encoding_is_to_be_saved_anew(tmp_path: Path, encoding: str) -> None:
    place = a_list(tmp_path, "path,label")
    place.write_bytes("path,label\n1.png,caf\u00e9\n".encode(encoding))
    with pytest.raises(DataError, match="save it as UTF-8"):
        open_dataset(place, "test")


def test_an_image_of_several_rows_is_one_image(tmp_path: Path) -> None:
    place = a_list(tmp_path, "path,label", "1.png,x", "2.png,y", "1.png,x")
    images = open_dataset(place, "test")
    assert isinstance(images, EncodedSet)
    assert len(images) == 2
    assert images.notes == ("1 rows name an image that another row names, and are left out",)


def test_rows_of_captions_stay_rows_until_labels_are_asked_for(tmp_path: Path) -> None:
    rows = ("1.png,x,one", "1.png,x,two", "2.png,y,three")
    place = a_list(tmp_path, "path,label,caption", *rows)
    images = open_dataset(place, "test")
    assert isinstance(images, EncodedSet)
    assert images.captions == (("one",), ("two",), ("three",))
    assert images.pixels([2], 8)[0, 0, 0, 0] == 2
    labelled_images = open_labelled(place, "test")
    assert len(labelled_images) == 2
    assert labelled_images.pixels([0, 1], 8)[:, 0, 0, 0].tolist() == [1, 2]
    grouped = images.by_image()
    assert grouped.captions == (("one", "two"), ("three",))


def test_words_of_class_numbers_come_from_the_column_beside(tmp_path: Path) -> None:
    rows = ("1.png,0,cat,pet", "2.png,1,dog,pet", "3.png,0,cat,pet")
    images = open_dataset(a_list(tmp_path, "path,label,label_name,category", *rows), "test")
    assert isinstance(images, EncodedSet)
    assert images.class_names == ("0", "1")
    assert images.words == {"0": "cat", "1": "dog"}  # and not of their category, which both share


@pytest.mark.parametrize("column", ["ClassName", "label_name"])
def test_words_beside_class_numbers_are_written_as_class_names_are(
    tmp_path: Path, column: str
) -> None:
    names = ("AnnualCrop", "red_fox")
    rows = [f"{at}.png,{at},{name}" for at, name in enumerate(names)]
    images = open_dataset(a_list(tmp_path, f"Filename,Label,{column}", *rows), "test")
    assert isinstance(images, EncodedSet)
    assert [images.words[one] for one in "01"] == words_of(names, {})


@pytest.mark.parametrize("name", ["Split", "subset", "Data Set", "usage"])
def test_a_column_of_splits_divides_a_list_whatever_its_name(tmp_path: Path, name: str) -> None:
    rows = ("1.png,x,Training", "2.png,y,Training", "3.png,x,Testing")
    place = a_list(tmp_path, f"path,label,{name}", *rows)
    test, train = (open_labelled(place, split) for split in ("test", "train"))
    assert (test.split, len(test), train.split, len(train)) == ("Testing", 1, "Training", 2)
    assert test.class_names == train.class_names == ("x", "y")


def test_rows_that_say_no_split_are_counted(tmp_path: Path) -> None:
    rows = ("1.png,x,train", "2.png,y,", "3.png,x,test", "1.png,y,test", "3.png,x, ")
    images = open_labelled(a_list(tmp_path, "path,label,split", *rows), "test")
    assert isinstance(images, EncodedSet)
    assert (len(images), images.split) == (2, "test")
    assert images.notes == ("2 rows that say no split are passed over",)


def test_images_that_no_row_names_are_counted(tmp_path: Path) -> None:
    write(tmp_path, ["1.png", "2.png", "3.png"])
    (tmp_path / "metadata.csv").write_text("file_name,label\n1.png,x\n2.png,y\n")
    images = open_dataset(tmp_path, "test")
    assert isinstance(images, EncodedSet)
    assert images.notes == ("1 images that no row names are passed over",)


# ---------------------------------------------------------------- captions


def karpathy(root: Path) -> Path:
    rows = [
        {
            "filename": f"{level}.png",
            "split": split,
            "sentences": [{"raw": f"a {one}"}, {"raw": ""}],
        }
        for one, level in sorted(TRUTH)
        for split in ("train" if level % 2 else "test",)
    ]
    (root / "dataset_animals.json").write_text(json.dumps({"images": rows}))
    return root


def coco_captions(root: Path) -> Path:
    (root / "annotations").mkdir()
    told = [(one, level) for one, level in sorted(TRUTH) if not level % 2]
    held = {
        "images": [{"id": str(level), "file_name": f"{level}.png"} for _, level in told],
        "annotations": [{"image_id": str(level), "caption": f"a {one}"} for one, level in told],
    }
    (root / "annotations" / "captions_test.json").write_text(json.dumps(held))
    return root


def numbered_columns(root: Path) -> Path:
    rows = [f"{level}.png,a {one}," for one, level in sorted(TRUTH) if not level % 2]
    (root / "list.csv").write_text("\n".join(["image,caption_0,caption_1", *rows]))
    return root / "list.csv"


@pytest.mark.parametrize("write_captions", [karpathy, coco_captions, numbered_columns])
def test_every_form_of_captions_gives_the_same(tmp_path: Path, write_captions: object) -> None:
    write(tmp_path, [f"all/{level}.png" for _, level in TRUTH])
    assert callable(write_captions)
    images = open_dataset(write_captions(tmp_path), "test")
    assert isinstance(images, EncodedSet)
    levels = images.pixels(range(len(images)), 8)[:, 0, 0, 0].tolist()
    expected = {(level, (f"a {one}",)) for one, level in TRUTH if not level % 2}
    assert set(zip(levels, images.captions or (), strict=True)) == expected


def test_lines_of_a_tars_text_are_captions_of_their_own(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", "txt", lambda label: f"a {label}\nthe {label}\n")
    images = open_dataset(tmp_path, "test")
    assert isinstance(images, EncodedSet)
    assert images.captions is not None
    assert images.captions[0] == ("a cat", "the cat")


def test_things_of_several_categories_make_no_class(tmp_path: Path) -> None:
    held = {
        "images": [{"id": 1, "file_name": "1.png"}],
        "annotations": [{"image_id": 1, "category_id": one} for one in (1, 2, 1)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(held))
    with pytest.raises(DataError, match="several categories in 1 of its 1 images"):
        open_dataset(tmp_path / "instances.json", "test")
    (tmp_path / "other.json").write_text('{"images": 3}')
    with pytest.raises(DataError, match="no list of images that is known"):
        open_dataset(tmp_path / "other.json", "test")


# ---------------------------------------------------------------- shards


def test_a_card_says_which_configuration_is_meant_by_default(tmp_path: Path) -> None:
    for name, label in (("a", "x"), ("b", "y")):
        parquet.write_table(table([label, "z"], [png(1), png(2)]), tmp_path / f"{name}.parquet")
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: first\n  data_files: a.parquet\n"
        "- config_name: second\n  default: true\n  data_files:\n  - b.parquet\n---\n"
    )
    assert open_dataset(tmp_path, "train").class_names == ("y", "z")
    assert open_dataset(f"{tmp_path}?config=first", "train").class_names == ("x", "z")


LAID_OUT = (
    "train.parquet",
    "small/train.parquet",
    "small/more/train.parquet",
    "small/test.parquet",
)


@pytest.mark.parametrize(
    "pattern",
    [
        "train.parquet", "./train.parquet", "*/train.parquet", "small/*", "small/**", "**", "*",
        "**/train.parquet", "small/**/*.parquet", "**/more/*", "s[a-m]all/t?*.parquet",
    ],
)  # fmt: skip
def test_a_cards_patterns_give_the_files_that_the_hubs_own_glob_gives(
    tmp_path: Path, pattern: str
) -> None:
    for at, name in enumerate(LAID_OUT):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table(["x", "y"], [png(at), png(at)]), tmp_path / name)
    (tmp_path / "README.md").write_text(
        f"---\nconfigs:\n- config_name: default\n  data_files: '{pattern}'\n"
        "- config_name: small\n  data_files: small/test.parquet\n---\n"
    )
    system = fsspec.filesystem("file")
    given = set(map(Path, system.glob(f"{tmp_path}/{pattern}")))
    expected = [at for at, name in enumerate(LAID_OUT) if tmp_path / name in given]
    images = open_dataset(tmp_path, "train")
    assert sorted({*images.pixels(range(len(images)), 8)[:, 0, 0, 0].tolist()}) == expected
    assert len(images) == 2 * len(expected)


def test_the_patterns_of_a_configuration_start_at_its_folder(tmp_path: Path) -> None:
    for at, name in enumerate(LAID_OUT):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table(["x", "y"], [png(at), png(at)]), tmp_path / name)
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files: train.parquet\n"
        "- config_name: small\n  data_dir: small\n  data_files: train.parquet\n---\n"
    )
    images = open_dataset(f"{tmp_path}?config=small", "train")
    assert images.pixels(range(len(images)), 8)[:, 0, 0, 0].tolist() == [1, 1]


def test_shards_whose_labels_are_of_two_types_do_not_belong_together(tmp_path: Path) -> None:
    parquet.write_table(table(["x"], [png(1)]), tmp_path / "test-00000-of-00002.parquet")
    parquet.write_table(table([3], [png(2)]), tmp_path / "test-00001-of-00002.parquet")
    with pytest.raises(DataError, match=r"has 'label' of a type, but .* has another"):
        open_dataset(tmp_path, "test")


def test_a_single_file_has_no_configurations(tmp_path: Path) -> None:
    parquet.write_table(table(["x", "y"], [png(1), png(2)]), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"\?config=… is given"):
        open_dataset(f"{tmp_path / 'x.parquet'}?config=one", "test")


@pytest.mark.parametrize("name", ["test.parquet", "0.tar", "cat/1.png"])
def test_a_pointer_of_git_lfs_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path, classes()[2:])
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n")
    place = file if file.suffix != ".png" else tmp_path
    with pytest.raises(DataError, match=r"it is a Git LFS pointer.*git lfs pull"):
        open_dataset(place, "test").pixels(range(3), 8)


def test_a_tar_that_is_cut_off_or_joined_is_refused(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "0.tar", "cls", lambda label: label)
    whole = file.read_bytes()
    assert len(open_dataset(file, "test")) == len(TRUTH)
    for end in (len(whole) // 2 - 300, 1024 * len(TRUTH)):
        file.write_bytes(whole[:end])
        with pytest.raises(DataError, match=r"cut off|unexpected end"):
            open_dataset(file, "test")
    file.write_bytes(whole + whole)
    with pytest.raises(DataError, match="goes on behind its first end"):
        open_dataset(file, "test")


def test_names_lie_beside_the_folder_of_a_tar_too(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "classnames.txt").write_text("\n".join(NAMES))
    write_tar(tmp_path / "test" / "0.tar", "cls", lambda label: str(NAMES.index(label)))
    for place in (tmp_path, tmp_path / "test", tmp_path / "test" / "0.tar"):
        assert open_dataset(place, "test").class_names == NAMES


def test_what_is_written_out_as_text_is_named(tmp_path: Path) -> None:
    import base64

    coded = base64.b64encode(png(1))
    parquet.write_table(pa.table({"image": [coded] * 4}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="written out as base64 text"):
        open_dataset(tmp_path / "x.parquet", "test").pixels([0], 8)


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_table_of_a_thousand_columns_is_read_at_once(form: str, tmp_path: Path) -> None:
    """Each column was looked for in all of the file: 3,000 took many minutes."""
    images = [{"bytes": one, "path": None} for one in (png(shade) for shade in range(4))]
    wide = {f"feature {number}": [0, 1, 1, 0] for number in range(1_200)}
    table = pa.table({"image": images, "label": ["cat", "dog"] * 2, **wide})
    place = tmp_path / f"wide.{form}"
    if form == "parquet":
        parquet.write_table(table, place)
    else:
        with pa.ipc.new_file(place, table.schema) as file:
            file.write_table(table)
    started = time.process_time()
    labels, names = labelled(open_dataset(place, "all"))
    assert time.process_time() - started < 8
    assert [names[label] for label in labels.tolist()] == ["cat", "dog"] * 2


def test_thousands_of_columns_of_yes_and_no_are_no_classes(tmp_path: Path) -> None:
    images = [{"bytes": png(shade), "path": None} for shade in range(4)]
    flags = {f"flag {number}": [0, 1, 1, 0] for number in range(1_001)}
    parquet.write_table(pa.table({"image": images, **flags}), tmp_path / "wide.parquet")
    found = open_dataset(tmp_path / "wide.parquet", "all")
    assert "has 1,001 columns of yes and no, and at most 1,000" in str(found.unlabeled_because)


@pytest.mark.parametrize("form", ["parquet", "webdataset"])
def test_numbers_from_1_of_names_from_0_are_told_so(tmp_path: Path, form: str) -> None:
    def numbered(label: str) -> int:
        return NAMES.index(label) + 1

    if form == "parquet":
        labels: list[object] = [numbered(label) for label, _ in sorted(TRUTH)]
        write_typed(tmp_path / "test.parquet", labels)
    else:
        write_tar(tmp_path / "0.tar", "cls", lambda label: str(numbered(label)))
        (tmp_path / "classnames.txt").write_text("\n".join(NAMES))
    with pytest.raises(DataError, match=r"from 1 to 3 .* from 0, 'cat'; subtract 1"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("labels", "is_doubted"),
    [([1, 1, 2, 2], True), ([0, 1, 2, 2], False), ([2, 2, 2, 2], False), ([0, 0, 2, 2], False)],
)
def test_a_first_class_that_alone_has_no_rows_is_a_doubt(
    tmp_path: Path, labels: list[object], is_doubted: bool
) -> None:
    write_typed(tmp_path / "test.parquet", labels)
    images = open_dataset(tmp_path)
    assert isinstance(images, EncodedSet)
    assert any("its first class, 'cat'" in doubt for doubt in images.doubts) == is_doubted


def write_typed(file: Path, labels: list[object]) -> None:
    """A table of class numbers whose names it notes."""
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": NAMES}}
    noted = {b"huggingface": json.dumps({"info": {"features": features}})}
    held = table(labels, [png(level) for level in range(len(labels))])
    parquet.write_table(held.replace_schema_metadata(noted), file)


@pytest.mark.parametrize("above", ["", "images/"])
@pytest.mark.parametrize(
    ("file", "folder"),
    [
        ("annotations/instances_val2017.json", "val2017"),
        ("annotations/instances_train2017.json", "train2017"),
        ("instances_val2017.json", "val2017"),
        ("instances_val.json", "val2017"),
        ("val.csv", "val2017"),
        ("annotations/val_list.csv", "val2017"),
        ("labels_train2017.csv", "train2017"),
    ],
)
def test_a_lists_own_name_says_which_splits_images_it_means(
    tmp_path: Path, file: str, folder: str, above: str
) -> None:
    levels = {"val2017": (0, 10), "train2017": (50, 60)}
    for name, (cat, dog) in levels.items():
        (tmp_path / above / name).mkdir(parents=True)
        (tmp_path / above / name / "0.png").write_bytes(png(cat))
        (tmp_path / above / name / "1.png").write_bytes(png(dog))
    held = {
        "images": [{"id": at, "file_name": f"{at}.png"} for at in (0, 1)],
        "annotations": [{"image_id": at, "category_id": at} for at in (0, 1)],
        "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
    }
    (tmp_path / file).parent.mkdir(exist_ok=True)
    as_table = "file_name,label\n0.png,cat\n1.png,dog\n"
    (tmp_path / file).write_text(as_table if file.endswith(".csv") else json.dumps(held))
    images = open_dataset(tmp_path / file)
    assert images.pixels([0, 1], 8)[:, 0, 0, 0].tolist() == list(levels[folder])


@pytest.mark.parametrize("name", ["labels.csv", "train_test_split.csv"])
def test_a_list_of_names_that_two_splits_have_is_never_taken_for_one_of_them(
    tmp_path: Path, name: str
) -> None:
    write(tmp_path, ["train/0.png", "train/1.png", "val/0.png", "val/1.png"])
    (tmp_path / name).write_text("file_name,label\n0.png,cat\n1.png,dog\n")
    with pytest.raises(DataError, match=r"names the image 0.png, and there are 2 of that name"):
        open_dataset(tmp_path / name)


CARD = """---
dataset_info:
  features:
  - name: image
    dtype: image
  - name: label
    dtype:
      class_label:
        names:
          '0': cat
          '1': dog
          '2': emu
---
"""


def test_rows_of_another_split_show_that_class_numbers_count_from_0(tmp_path: Path) -> None:
    write_typed(tmp_path / "test.parquet", [1, 1, 2, 2])
    write_typed(tmp_path / "train.parquet", [0, 1, 2, 2])
    images = open_dataset(tmp_path)
    assert isinstance(images, EncodedSet)
    assert images.doubts == ()


def test_a_card_names_class_numbers_beside_a_split_that_hides_its_own(tmp_path: Path) -> None:
    write(tmp_path, [f"{split}/{at}.png" for split in ("train", "test") for at in (0, 1)])
    for split, rows in (("train", "0.png,2\n1.png,0"), ("test", "0.png,-1\n1.png,-1")):
        (tmp_path / split / "metadata.csv").write_text(f"file_name,label\n{rows}")
    (tmp_path / "README.md").write_text(CARD)
    numbers, class_names = labelled(open_dataset(tmp_path, "train"))
    assert [class_names[number] for number in numbers] == ["emu", "cat"]
    hidden = open_dataset(tmp_path, "test")
    assert isinstance(hidden, EncodedSet)
    assert hidden.labels is None


@pytest.mark.parametrize(
    ("labels", "names"), [("2 0", ["emu", "cat"]), ("emu yak", ["emu", "yak"])]
)
def test_a_card_names_the_class_numbers_of_metadata(
    tmp_path: Path, labels: str, names: list[str]
) -> None:
    write(tmp_path, ["test/0.png", "test/1.png"])
    rows = [f"{at}.png,{label}" for at, label in enumerate(labels.split())]
    (tmp_path / "test" / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    (tmp_path / "README.md").write_text(CARD)
    numbers, class_names = labelled(open_dataset(tmp_path))
    assert [class_names[number] for number in numbers] == names


def save_lists_of_classes(root: Path, form: str, column: str, labels: list[list[int]]) -> None:
    """Images with lists of class numbers, whose names `datasets` notes or a card."""
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), column: datasets.List(datasets.ClassLabel(names=list(NAMES)))}
    )
    held = {"image": [png(level) for level in range(len(labels))], column: labels}
    dataset = datasets.Dataset.from_dict(held, features=features)
    if form == "saved":
        dataset.save_to_disk(str(root))
        return
    parquet.write_table(pa.table(held), root / "test.parquet")
    if form == "noted":
        dataset.to_parquet(str(root / "test.parquet"))
    else:
        classes_of_card = f"{{class_label: {{names: {json.dumps(list(NAMES))}}}}}"
        info = f"{{features: [{{name: image, dtype: image}}, {{name: {column}, {form}: "
        info += f"{classes_of_card}}}]}}"
        (root / "README.md").write_text(f"---\ndataset_info: {info}\n---\n")


@pytest.mark.parametrize("form", ["saved", "noted", "list", "sequence"])
def test_lists_of_one_class_number_each_have_its_name(tmp_path: Path, form: str) -> None:
    save_lists_of_classes(tmp_path, form, "label", [[2], [0], [1]])
    labels, names = labelled(open_dataset(tmp_path))
    assert [names[label] for label in labels.tolist()] == ["emu", "cat", "dog"]


@pytest.mark.parametrize("form", ["saved", "noted", "list"])
def test_lists_of_classes_under_another_name_are_no_labels(tmp_path: Path, form: str) -> None:
    save_lists_of_classes(tmp_path, form, "things", [[2, 1], [0], []])
    images = open_dataset(tmp_path)
    assert images.labels is None
    with pytest.raises(DataError, match="holds lists"):
        open_dataset(f"{tmp_path}?label=things")


def test_words_beside_numbers_have_one_order_in_every_process() -> None:
    numbers, words = ["10", "2", "1"], ["zebra", "cat", "mole"]
    found = words_by_number(numbers, words, "a place", "label")
    assert list(found.items()) == [("1", "mole"), ("10", "zebra"), ("2", "cat")]
