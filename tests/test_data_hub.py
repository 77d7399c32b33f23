from __future__ import annotations

import io
import json
import re
import socket
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from driftscope.data import EncodedSet, available_splits, labelled, notes_of, open_dataset
from driftscope.data.layouts import hub
from driftscope.errors import DataError
from driftscope.suites import PRESETS

SHARED_IMAGES = Path(__file__).parents[2] / "shared" / "images"


def png(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (level, level, level)).save(file, "PNG")
    return file.getvalue()


def level_of(images: Any, index: int) -> int:
    return int(images.pixels([index], 8)[0, 0, 0, 0])


def write_parquet(
    file: Path,
    columns: dict[str, list[Any]],
    features: dict[str, Any] | None = None,
    rows_a_group: int = 3,
) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if features is not None:
        noted = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": noted})
    parquet.write_table(table, file, row_group_size=rows_a_group)
    return file


def images_of(levels: list[int]) -> list[dict[str, Any]]:
    return [{"bytes": png(level), "path": f"{level}.png"} for level in levels]


NOTED = {
    "img": {"_type": "Image"},
    "coarse_label": {"_type": "ClassLabel", "names": ["animal"]},
    "fine_label": {"_type": "ClassLabel", "names": ["cat", "dog"]},
}


def hub_layout(root: Path) -> Path:
    for split, levels in (("train", list(range(10))), ("test", [100, 101])):
        columns = {
            "img": images_of(levels),
            "coarse_label": [0] * len(levels),
            "fine_label": [level % 2 for level in levels],
        }
        write_parquet(root / "data" / f"{split}-00000-of-00001.parquet", columns, NOTED)
    return root


def test_parquet_in_hub_layout_is_read_by_what_it_notes_of_its_columns(tmp_path: Path) -> None:
    folder = hub_layout(tmp_path)
    assert available_splits(folder) == ("test", "train")
    images = open_dataset(folder, "train")
    labels, names = labelled(images)
    assert (names, labels.tolist()) == (("cat", "dog"), [0, 1] * 5)
    assert images.pixels([9, 0, 4, 9], 8)[:, 0, 0, 0].tolist() == [9, 0, 4, 9]
    assert open_dataset(f"{folder}?label=coarse_label", "test").class_names == ("animal",)


@pytest.mark.parametrize(
    "names",
    [
        ("train.parquet", "test.parquet"),
        ("train/0000.parquet", "test/0000.parquet"),
        ("default/train/0000.parquet", "default/test/0000.parquet"),
        ("train-00000-of-00001-8a1b2c3d4e5f6071.parquet", "test-00000-of-00001.parquet"),
    ],
)
def test_every_layout_the_hub_uses_gives_its_splits(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        write_parquet(tmp_path / name, {"image": images_of([1]), "label": ["x"]})
    assert sorted(available_splits(tmp_path)) == ["test", "train"]


def test_shards_of_a_split_follow_each_other(tmp_path: Path) -> None:
    for shard, levels in enumerate(([1, 2, 3, 4], [5, 6])):
        name = f"train-{shard:05}-of-00002.parquet"
        write_parquet(tmp_path / name, {"image": images_of(levels)})
    images = open_dataset(tmp_path, "train")
    assert images.pixels(range(6), 8)[:, 0, 0, 0].tolist() == [1, 2, 3, 4, 5, 6]
    assert images.labels is None


def test_several_configurations_must_be_told_apart(tmp_path: Path) -> None:
    for configuration, level in (("rgb", 1), ("infrared", 2)):
        write_parquet(
            tmp_path / configuration / "train-00000-of-00001.parquet", {"image": images_of([level])}
        )
    with pytest.raises(
        DataError, match=r"several configurations; add \?config=NAME.*infrared, rgb"
    ):
        open_dataset(tmp_path, "train")
    assert level_of(open_dataset(f"{tmp_path}?config=rgb", "train"), 0) == 1


def test_class_names_come_from_the_readme_where_the_file_notes_none(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", {"image": images_of([1, 2]), "label": [1, 0]})
    (tmp_path / "README.md").write_text(
        "---\ndataset_info:\n  features:\n  - name: image\n    dtype: image\n  - name: label\n"
        "    dtype:\n      class_label:\n        names:\n          '0': cat\n          '1': dog\n"
        "---\n# A card\n"
    )
    labels, names = labelled(open_dataset(tmp_path, "train"))
    assert (names, labels.tolist()) == (("cat", "dog"), [1, 0])


def test_names_as_labels_are_numbered_alike_in_all_splits(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", {"image": images_of([1, 2]), "label": ["a", "c"]})
    write_parquet(tmp_path / "test.parquet", {"image": images_of([3, 4]), "label": ["c", "b"]})
    labels, names = labelled(open_dataset(tmp_path, "test"))
    assert (names, labels.tolist()) == (("a", "b", "c"), [2, 1])
    assert labelled(open_dataset(tmp_path, "train"))[0].tolist() == [0, 2]


def test_labels_that_hide_the_answer_make_a_split_unlabeled(tmp_path: Path) -> None:
    columns = {"image": images_of([1, 2]), "label": [-1, -1]}
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["a"]}}
    write_parquet(tmp_path / "test.parquet", columns, features)
    assert open_dataset(tmp_path, "test").labels is None
    write_parquet(tmp_path / "test.parquet", {**columns, "label": [0, 7]}, features)
    with pytest.raises(
        DataError, match=r"1 rows whose label is none of its 1 classes \(row 2 has 7"
    ):
        open_dataset(tmp_path, "test")


def test_captions_and_groups_come_along(tmp_path: Path) -> None:
    columns = {
        "image": images_of([1, 2]),
        "caption": [["a cat", "a tabby"], ["a dog"]],
        "patient": [7, 9],
    }
    write_parquet(tmp_path / "train.parquet", columns)
    images = open_dataset(f"{tmp_path}?group=patient", "train")
    assert isinstance(images, EncodedSet)
    assert images.captions == (("a cat", "a tabby"), ("a dog",))
    assert images.groups == ("7", "9")


def test_a_bad_image_in_a_table_is_named_by_row_and_file(tmp_path: Path) -> None:
    rows = [*images_of([1, 2, 3]), {"bytes": b"broken", "path": None}]
    file = write_parquet(tmp_path / "train.parquet", {"image": rows})
    with pytest.raises(DataError, match=rf"in row 4 of {re.escape(str(file))}: it is not an image"):
        open_dataset(tmp_path, "train").pixels([3], 8)


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(DataError, match=r"cannot read .*train\.parquet"):
        open_dataset(tmp_path, "train")


def test_a_table_without_images_lists_its_columns(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", {"words": ["a"], "more": ["b"]})
    with pytest.raises(DataError, match=r"no column that is plainly the image.*words, more"):
        open_dataset(tmp_path, "train")


# ---------------------------------------------------------------- datasets and the hub


def a_dataset(levels: list[int]) -> datasets.Dataset:
    return datasets.Dataset.from_dict(
        {
            "image": [Image.new("RGB", (8, 8), (level,) * 3) for level in levels],
            "label": [level % 2 for level in levels],
        },
        features=datasets.Features(
            {"image": datasets.Image(), "label": datasets.ClassLabel(names=["even", "odd"])}
        ),
    )


def test_folders_saved_by_datasets_are_read(tmp_path: Path) -> None:
    splits = datasets.DatasetDict({"train": a_dataset([1, 2, 3]), "test": a_dataset([4])})
    splits.save_to_disk(tmp_path / "several")
    splits["train"].save_to_disk(tmp_path / "one")
    assert available_splits(tmp_path / "several") == ("train", "test")
    for folder in (tmp_path / "several", tmp_path / "one"):
        images = open_dataset(folder, "train")
        labels, names = labelled(images)
        assert (names, labels.tolist()) == (("even", "odd"), [1, 0, 1])
        assert images.pixels([2, 0], 8)[:, 0, 0, 0].tolist() == [3, 1]


def test_the_same_images_have_the_same_fingerprint_in_every_format(tmp_path: Path) -> None:
    levels = [1, 2, 3]
    names = ["even", "odd"]
    for level in levels:
        file = tmp_path / "folder" / names[level % 2] / f"{level}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(level))
    order = [2, 1, 3]  # a folder's images come class by class
    columns = {"image": images_of(order), "label": [level % 2 for level in order]}
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    write_parquet(tmp_path / "parquet" / "train.parquet", columns, features)
    loaded = datasets.Dataset.from_parquet(
        str(tmp_path / "parquet" / "train.parquet"), cache_dir=str(tmp_path / "cache")
    )
    loaded.save_to_disk(tmp_path / "arrow")
    prints = {
        open_dataset(tmp_path / kind, "train").fingerprint
        for kind in ("folder", "parquet", "arrow")
    }
    assert len(prints) == 1


def typed_as_classes(column: str) -> dict[str, Any]:
    return {"image": {"_type": "Image"}, column: {"_type": "ClassLabel", "names": ["a", "b"]}}


def test_a_column_called_label_comes_before_one_of_class_numbers_of_no_usual_name(
    tmp_path: Path,
) -> None:
    columns = {"image": images_of([1, 2]), "domain": [0, 1], "label": ["dog", "cat"]}
    write_parquet(tmp_path / "train.parquet", columns, typed_as_classes("domain"))
    images = open_dataset(tmp_path, "train")
    assert images.class_names == ("cat", "dog")
    assert not notes_of(images)
    asked_for = open_dataset(f"{tmp_path}?label=domain", "train")
    assert (asked_for.class_names, notes_of(asked_for)) == (("a", "b"), ())


@pytest.mark.parametrize(("column", "is_told"), [("sex", True), ("Category", False)])
def test_the_only_column_of_class_numbers_is_named_where_its_name_is_not_usual(
    tmp_path: Path, column: str, is_told: bool
) -> None:
    columns = {"image": images_of([1, 2]), "dx": ["nv", "mel"], column: [0, 1]}
    write_parquet(tmp_path / "train.parquet", columns, typed_as_classes(column))
    images = open_dataset(tmp_path, "train")
    assert images.class_names == ("a", "b")
    assert any("labels are those of the column sex" in one for one in notes_of(images)) == is_told


def test_a_hub_name_uses_its_presets_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load(hub_id: str, configuration: str | None) -> datasets.DatasetDict:
        asked.append(hub_id)
        renamed = a_dataset([1, 2]).rename_columns({"image": "img", "label": "fine_label"})
        return datasets.DatasetDict({"test": renamed})

    monkeypatch.setattr(datasets, "load_dataset", load)
    for name in ("cifar100", "uoft-cs/cifar100"):
        assert labelled(open_dataset(name, "test"))[1] == ("even", "odd")
    assert asked == ["uoft-cs/cifar100"] * 2


def test_a_hub_name_without_a_network_says_where_it_was_looked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DRIFTSCOPE_DATA", raising=False)
    with pytest.raises(DataError) as refusal:
        open_dataset("eurosat", "train")
    sentence = str(refusal.value)
    assert "\n" not in sentence
    for part in ("no dataset 'eurosat'", "tanganke/eurosat", "DRIFTSCOPE_DATA", "datasets", "copy"):
        assert part in sentence
    monkeypatch.setenv("DRIFTSCOPE_DATA", str(tmp_path))
    with pytest.raises(DataError, match=re.escape(f"not in {tmp_path}/tanganke/eurosat")):
        open_dataset("eurosat", "train")


def test_without_a_way_to_the_hub_the_cache_is_asked_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from huggingface_hub import constants

    for variable in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    seen: list[bool] = []

    def no_network(*_: object) -> None:
        raise OSError("Name or service not known")

    def load(*_: object) -> None:
        seen.append(constants.HF_HUB_OFFLINE and datasets.config.HF_HUB_OFFLINE)
        raise ConnectionError("nothing cached")

    monkeypatch.setattr(socket, "create_connection", no_network)
    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError, match="nothing cached"):
        open_dataset("someone/something", "train")
    assert seen == [True]
    assert not constants.HF_HUB_OFFLINE
    assert not datasets.config.HF_HUB_OFFLINE


@pytest.mark.parametrize("place", ["tanganke/eurosat", "eurosat"])
def test_a_copy_under_the_data_folder_stands_in_for_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str
) -> None:
    write_parquet(
        tmp_path / place / "train-00000-of-00001.parquet",
        {"image": images_of([5]), "label": ["River"]},
    )
    monkeypatch.setenv("DRIFTSCOPE_DATA", str(tmp_path))
    for name in ("eurosat", "tanganke/eurosat"):
        if name == place or place == "tanganke/eurosat":
            assert level_of(open_dataset(name, "train"), 0) == 5


def test_presets_are_known_by_short_name_and_id() -> None:
    for name, preset in PRESETS.items():
        assert hub.preset_of(name) == hub.preset_of(preset.hub_id) == preset
    assert not hub.looks_like_hub_id("./a/b")
    assert not hub.looks_like_hub_id("a/b/c")


# ---------------------------------------------------------------- the real entries


@pytest.mark.parametrize(
    ("name", "split", "num_images", "num_classes", "some_class"),
    [
        ("cifar100", "test", 10_000, 100, "aquarium_fish"),
        ("oxford-iiit-pet", "train", 370, 37, "abyssinian"),
        ("rsscn7", "train", 2_100, 7, "RiverLake"),
    ],
)
def test_copies_of_real_hub_entries_open(
    name: str, split: str, num_images: int, num_classes: int, some_class: str
) -> None:
    if not (SHARED_IMAGES / name).is_dir():
        pytest.skip(f"needs {SHARED_IMAGES / name}")
    images = open_dataset(SHARED_IMAGES / name, split)
    labels, names = labelled(images)
    assert (len(images), len(names)) == (num_images, num_classes)
    assert some_class in names
    assert np.ptp(np.bincount(labels.numpy())) == 0
    assert images.pixels([0, num_images - 1], 32).shape == (2, 3, 32, 32)


def test_the_real_captions_open() -> None:
    if not (SHARED_IMAGES / "captions").is_dir():
        pytest.skip(f"needs {SHARED_IMAGES / 'captions'}")
    images = open_dataset(SHARED_IMAGES / "captions", "test")
    assert isinstance(images, EncodedSet)
    assert images.captions is not None
    assert len(images.captions) == len(images) == 32
    assert images.labels is None
