"""Parquet files in the layout of the Hugging Face hub, read where they lie.

Only the row groups that are asked for are in memory, one at a time: nothing is copied into the
cache of `datasets`, and no import of it is needed.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from pyarrow import parquet

from driftscope.data.address import SPLIT_NAMES, WHOLE, Address, choose_split
from driftscope.data.columns import (
    as_sentences,
    labels_from_numbers,
    labels_of_split,
    needed_column,
    optional_column,
)
from driftscope.data.encoded import EncodedSet
from driftscope.errors import DataError, did_you_mean

_SHARD = re.compile(r"^(?P<split>\w[\w.]*?)(-\d+-of-\d+)?(-[0-9a-f]{16})?$")
"""`train`, `train-00000-of-00002`, `train-00000-of-00001-8a1b…`: a split and its part."""


@dataclass(frozen=True)
class RowGroup:
    """Consecutive rows of one file that are read together."""

    file: Path
    number: int
    first_row: int
    num_rows: int


@dataclass(frozen=True)
class ParquetImages:
    """The image column of parquet files."""

    column: str
    groups: tuple[RowGroup, ...]

    def __len__(self) -> int:
        """How many images."""
        return self.groups[-1].first_row + self.groups[-1].num_rows if self.groups else 0

    def name_of(self, index: int) -> str:
        """Its row, counted over all files of the split."""
        return f"in row {index + 1} of {self._group(index).file}"

    def read(self, indices: Sequence[int]) -> Iterator[bytes]:
        """The images' files; a row group is read anew when another was between."""
        group, values = None, None
        for index in indices:
            wanted = self._group(index)
            if wanted is not group:
                group, values = wanted, self._values(wanted)
            value = values[index - wanted.first_row].as_py() if values is not None else None
            yield _image_bytes(value, wanted.file.parent)

    def _group(self, index: int) -> RowGroup:
        return self.groups[bisect_right(self._first_rows, index) - 1]

    @cached_property
    def _first_rows(self) -> list[int]:
        return [group.first_row for group in self.groups]

    def _values(self, group: RowGroup) -> pa.ChunkedArray:
        try:
            table = parquet.ParquetFile(group.file).read_row_group(group.number, [self.column])
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"cannot read {group.file}: {_one_line(error)}") from None
        return table.column(self.column)


def parquet_splits(place: Path, address: Address) -> dict[str, list[Path]]:
    """The parquet files of a file or folder by split, as the hub names them.

    `data/train-00000-of-00001.parquet`, `train.parquet`, `train/0000.parquet`; of several
    configurations (folders beside each other) the one that the address names.
    """
    if place.is_file():
        return {WHOLE: [place]}
    splits: dict[str, list[Path]] = {}
    for file in _of_configuration(parquet_files(place), place, address):
        splits.setdefault(_split_of(file), []).append(file)
    return splits


def parquet_files(folder: Path) -> list[Path]:
    """The parquet files below a folder, by name, without hidden ones (`datasets`' own cache)."""
    return sorted(
        file
        for file in folder.rglob("*.parquet")
        if not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )


def open_parquet(place: Path, split: str, address: Address) -> EncodedSet:
    """One split of parquet files; image, label, caption and group columns by type and name.

    Raises:
        DataError: unreadable, no such split, no plain image column, rows without a class.
    """
    splits = parquet_splits(place, address)
    chosen = choose_split(split, splits, address)
    files = splits[chosen]
    schema = _schema(files[0])
    features = _features(schema, place)
    columns = schema.names
    image = needed_column("image", columns, address, _image_columns(schema, features))
    label = optional_column("label", columns, address, _label_columns(features))
    caption = optional_column("caption", columns, address)
    group = optional_column("group", columns, address)
    read = [name for name in (label, caption, group) if name]
    values = _columns(files, read)
    labels, class_names = None, None
    if label:
        names = _class_names(features.get(label, {}))
        if names:
            labels = labels_from_numbers(values[label], names, address.place, label)
            class_names = tuple(names) if labels is not None else None
        else:
            by_split = {name: _columns(of, [label])[label] for name, of in splits.items()}
            labels, class_names = labels_of_split(by_split, chosen, address.place, label)
    return EncodedSet(
        name=address.place,
        split=chosen,
        encoded=ParquetImages(image, tuple(_row_groups(files))),
        class_names=class_names,
        labels=labels,
        captions=tuple(as_sentences(value) for value in values[caption]) if caption else None,
        groups=tuple(str(value) for value in values[group]) if group else None,
    )


# ---------------------------------------------------------------- files


def _of_configuration(files: list[Path], place: Path, address: Address) -> list[Path]:
    """Files of one configuration, where top-level folders are configurations."""
    tops = {file.relative_to(place).parts[0] for file in files if file.parent != place}
    configurations = sorted(tops - SPLIT_NAMES - {"data"})
    wanted = address.options.get("config")
    if wanted is None and len(configurations) < 2:
        return files
    if wanted not in configurations:
        said = f"no configuration {wanted!r}" if wanted else "several configurations"
        choices = did_you_mean(wanted or "", configurations)
        raise DataError(f"{address.place} has {said}; add ?config=NAME, {choices}")
    return [file for file in files if file.relative_to(place).parts[0] == wanted]


def _split_of(file: Path) -> str:
    match = _SHARD.match(file.stem)
    name = match["split"] if match else file.stem
    return file.parent.name if name.isdecimal() else name


def _schema(file: Path) -> pa.Schema:
    try:
        return parquet.read_schema(file)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot read {file}: {_one_line(error)}") from None


def _row_groups(files: Iterable[Path]) -> Iterator[RowGroup]:
    first = 0
    for file in files:
        metadata = parquet.read_metadata(file)
        for number in range(metadata.num_row_groups):
            num_rows = metadata.row_group(number).num_rows
            yield RowGroup(file, number, first, num_rows)
            first += num_rows


def _columns(files: Iterable[Path], names: Sequence[str]) -> dict[str, list[Any]]:
    values: dict[str, list[Any]] = {name: [] for name in names}
    for file in files:
        try:
            table = parquet.ParquetFile(file).read(columns=list(names))
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"cannot read {file}: {_one_line(error)}") from None
        for name in names:
            values[name].extend(table.column(name).to_pylist())
    return values


# ---------------------------------------------------------------- what the columns are


def _features(schema: pa.Schema, place: Path) -> Mapping[str, Any]:
    """What `datasets` noted about the columns, in the file or in the folder's README."""
    noted = (schema.metadata or {}).get(b"huggingface")
    if noted:
        return dict(json.loads(noted).get("info", {}).get("features", {}))
    readme = (place if place.is_dir() else place.parent) / "README.md"
    return _features_of_readme(readme) if readme.is_file() else {}


def _features_of_readme(readme: Path) -> dict[str, Any]:
    """The features in a dataset card's front matter, in the form that files note them in."""
    parts = readme.read_text(encoding="utf-8", errors="replace").split("---", 2)
    try:
        info = (yaml.safe_load(parts[1]) if len(parts) == 3 else None) or {}
        info = info.get("dataset_info", {})
        listed = (info[0] if isinstance(info, list) else info).get("features", [])
        return {entry["name"]: _feature(entry["dtype"]) for entry in listed if "dtype" in entry}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, IndexError):
        return {}  # a card of another form says nothing about columns


def _feature(dtype: Any) -> dict[str, Any]:
    if dtype == "image":
        return {"_type": "Image"}
    if isinstance(dtype, dict) and "class_label" in dtype:
        names = dtype["class_label"]["names"]
        ordered = (
            [names[key] for key in sorted(names, key=int)] if isinstance(names, dict) else names
        )
        return {"_type": "ClassLabel", "names": ordered}
    return {"_type": "Value"}


def _image_columns(schema: pa.Schema, features: Mapping[str, Any]) -> list[str]:
    noted = [name for name, feature in features.items() if _type(feature) == "Image"]
    return noted or [
        field.name
        for field in schema
        if pa.types.is_binary(field.type)
        or pa.types.is_large_binary(field.type)
        or (pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0)
    ]


def _label_columns(features: Mapping[str, Any]) -> list[str]:
    return [name for name, feature in features.items() if _type(feature) == "ClassLabel"]


def _class_names(feature: Any) -> list[str]:
    return list(feature.get("names", [])) if _type(feature) == "ClassLabel" else []


def _type(feature: Any) -> str | None:
    return feature.get("_type") if isinstance(feature, dict) else None


def _image_bytes(value: Any, folder: Path) -> bytes:
    """The bytes of a hub image: as they are, or in the file that the row names."""
    if not isinstance(value, dict):
        return bytes(value or b"")
    beside = folder / str(value.get("path") or "")
    if value.get("bytes") is None and beside.is_file():
        return beside.read_bytes()
    return bytes(value.get("bytes") or b"")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
