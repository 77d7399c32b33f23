"""Parquet files in the layout of the Hugging Face hub, read where they lie.

Rows are streamed: nothing is copied into the cache of `datasets`, no row group is in memory as a
whole, and no import of `datasets` is needed.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet
from pydantic_core import from_json

from driftscope.data.address import WHOLE, Address, split_kind
from driftscope.data.encoded import EncodedImages, image_bytes, printable
from driftscope.data.layouts.card import (
    class_names_of,
    features_of,
    info_of,
    noted_beside,
    read_card,
    told_of,
    type_of,
)
from driftscope.data.layouts.found import Found
from driftscope.data.layouts.lists import files_of
from driftscope.data.layouts.tables import FIRST_ROWS, TABLE_OPTIONS, divided, open_table
from driftscope.data.layouts.tree import Folder
from driftscope.data.other_kinds import kind_of_file
from driftscope.errors import DataError, did_you_mean, one_line
from driftscope.limits import IMAGE_MB, LIST_MB

_SHARD = re.compile(r"^(?P<split>\w[\w.]*?)(-(?P<number>\d+)-of-(?P<count>\d+))?(-[0-9a-f]{16})?$")
"""`train`, `train-00000-of-00002`, `train-00000-of-00001-8a1b…`: a split and its part."""
_PACKED = re.compile(r"\.(snappy|gz|gzip|zstd|lz4|brotli)$")
_PART = re.compile(r"[-_.](\d{5,}|0\d{2,})$")
"""Numbers of parts where no name says of how many, as in `part-00000` and `test_000`."""
_BATCH_ROWS = 32
_MOST_SHRUNK = 100
_MOST_ROWS = 1_024


@dataclass(frozen=True)
class _RowGroup:
    """Consecutive rows of one file that are stored together."""

    file: Path
    number: int
    first_row: int
    num_rows: int


@dataclass(frozen=True)
class _ParquetImages:
    """The image column of parquet files."""

    column: str
    groups: tuple[_RowGroup, ...]

    def __len__(self) -> int:
        return self.groups[-1].first_row + self.groups[-1].num_rows if self.groups else 0

    def name_of(self, index: int) -> str:
        return f"in row {index + 1} of {self._group(index).file}"

    def read(self, indices: Sequence[int]) -> Iterator[bytes | DataError]:
        rows: Iterator[Any] = iter(())
        group, row = None, 0
        for index in indices:
            wanted = self._group(index)
            if wanted is not group or index < row:
                group, row, rows = wanted, wanted.first_row, self._rows(wanted)
            while row < index:
                next(rows)
                row += 1
            row += 1
            yield image_bytes(next(rows).as_py(), self.name_of(index), wanted.file.parent)

    def _group(self, index: int) -> _RowGroup:
        return self.groups[bisect_right(self._first_rows, index) - 1]

    @cached_property
    def _first_rows(self) -> list[int]:
        return [group.first_row for group in self.groups]

    def _rows(self, group: _RowGroup) -> Iterator[Any]:
        try:
            with parquet.ParquetFile(group.file, memory_map=True) as file:
                rows, most = _rows_at_a_time(file, group, self.column)
                for batch in file.iter_batches(
                    rows, row_groups=[group.number], columns=[self.column]
                ):
                    most -= _bytes_written_out(batch.column(0))
                    if most < 0:
                        raise DataError(
                            f"cannot read {group.file}: rows of its column {self.column!r} name "
                            f"the same bytes again and again; {IMAGE_MB.sentence}"
                        )
                    yield from batch.column(0)
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(group.file, error) from None


@dataclass(frozen=True)
class _ParquetTable:
    """The files of every split as a `Table`; `noted` is what a card says of the columns."""

    place: str
    root: Path
    files: Mapping[str, Sequence[Path]]
    noted: Mapping[str, Any]

    def columns(self, split: str) -> Sequence[str]:
        """The columns of all its files.

        Raises:
            DataError: a file has others, two of one name, or is unreadable.
        """
        first, *others = self.files[split]
        schema = _schema(first)
        if twice := [name for name, count in Counter(schema.names).items() if count > 1]:
            raise DataError(f"{first} has two columns {twice[0]!r}; name each once")
        for file in others:
            other = _schema(file)
            if more := sorted(set(other.names) - set(schema.names)):
                raise DataError(
                    f"{first} has no column {more[0]!r}, but {file} has: the files of {split} do "
                    "not belong together"
                )
            for field in schema:
                at = other.get_field_index(field.name)
                if at < 0 or _is_text(other.field(at).type) != _is_text(field.type):
                    what = f"no column {field.name!r}" if at < 0 else f"{field.name!r} of a type"
                    raise DataError(
                        f"{file} has {what}, but {first} has{'' if at < 0 else ' another'}: the "
                        f"files of {split} do not belong together"
                    )
        names: list[str] = schema.names
        return names

    def image_columns(self, split: str) -> Sequence[str]:
        schema = _schema(self.files[split][0])
        there = set(schema.names)
        noted = [
            name
            for name, one in self._features(self.files[split][0]).items()
            if type_of(one) == "Image" and name in there
        ]
        return noted or [field.name for field in schema if _is_bytes(field.type)]

    def label_names(self, split: str) -> Mapping[str, Sequence[str]]:
        """The classes noted of each column of class numbers.

        Raises:
            DataError: two files of the split note different classes.
        """
        first, *others = self.files[split]
        names = class_names_of(self._features(first))
        for file in others:
            own = class_names_of(self._features(file))
            if own != names:
                raise DataError(
                    f"{file} and {first} note different classes of the same column: the files of "
                    f"{split} do not belong together"
                )
        there = set(_schema(first).names)
        return {name: of for name, of in names.items() if name in there}

    def values(self, split: str, column: str) -> list[Any]:
        return [value for file in self.files[split] for value in _column(file, column)]

    def begins(self, split: str, column: str) -> list[Any]:
        file = self.files[split][0]
        if file not in self._begun:  # of all columns at once: to open a file takes as long
            self._begun[file] = _beginnings(file)
        return self._begun[file].get(column, [])

    @cached_property
    def _begun(self) -> dict[Path, Mapping[str, list[Any]]]:
        return {}

    def images(self, split: str, column: str) -> EncodedImages:
        files = self.files[split]
        kind = _schema(files[0]).field(column).type
        if _is_text(kind):
            starts = (*(file.parent for file in files), self.root)
            return files_of(self.values(split, column), starts, self.place)
        if not _is_bytes(kind):
            raise DataError(
                f"the column {column!r} of {self.place} holds {kind}, which is no image: an image "
                "column holds one encoded image a row (bytes, or a struct of bytes and path), or "
                "its path"
            )
        return _ParquetImages(column, tuple(_row_groups(files)))

    def _features(self, file: Path) -> Mapping[str, Any]:
        noted = (_schema(file).metadata or {}).get(b"huggingface")
        if not noted:
            return self.noted
        try:
            return dict(from_json(noted)["info"]["features"])
        except (ValueError, KeyError, TypeError):
            return self.noted


def recognise_file(file: Path, address: Address) -> Found:
    """One file: one split."""
    told = told_of(read_card(file.parent))
    return _found(address, file.parent, {WHOLE: [file]}, told[0] if len(told) == 1 else {})


def recognise(tree: Folder, address: Address) -> Found | None:
    """A folder with parquet files: `data/train-00000-of-00001.parquet`, `train/0000.parquet`, ….

    Raises:
        DataError: there are several configurations, and the address names none of them.
    """
    files = tree.files(".parquet")
    if not files or _is_beside_tars(files):
        return None
    root = _folder_of_card(tree, files)
    card = read_card(root)
    configurations = _declared(root, files, card) or _by_folder(root, files)
    asked = address.options.get("config")
    only = next(iter(configurations)) if len(configurations) == 1 else None
    name = asked or only or _default_configuration(card)
    if name not in configurations:
        said = f"no configuration {asked!r}" if asked else "several configurations"
        choices = did_you_mean(asked or "", configurations)
        raise DataError(f"{address.place} has {said}; add ?config=NAME, {choices}")
    told = [] if asked else told_of(card)
    info = info_of(card, name) or (told[0] if len(told) == 1 and only else {})
    info = info or noted_beside(root, name, is_only=only is not None)
    found = _found(address, root, configurations[name], info, options=("config",))
    if tree.num_images and any(table.image_columns(split) for split, table in found.splits.items()):
        said = f"{tree.num_images:,} images beside the parquet files are passed over"
        return replace(found, passed_over=(said,))
    return found


def _folder_of_card(tree: Folder, files: Sequence[Path]) -> Path:
    """The folder, or the one below that holds all files and the card, as in the hub's cache."""
    below = [Path(one.path) for one in tree.below() if "README.md" in one.others]
    whole = [one for one in below if all(file.is_relative_to(one) for file in files)]
    return whole[0] if len(whole) == 1 else Path(tree.path)


def _is_beside_tars(files: Sequence[Path]) -> bool:
    """Whether each tells of the tar of its name, as what img2dataset writes does."""
    return all(file.with_suffix(".tar").is_file() for file in files)


def _found(
    address: Address,
    root: Path,
    splits: Mapping[str, list[Path]],
    info: Mapping[str, Any],
    options: Sequence[str] = (),
) -> Found:
    table = _ParquetTable(address.place, root, splits, features_of(info))
    doubts = [*_missing_shards(splits), *_other_counts(splits, info)]
    return Found(
        address,
        "parquet table",
        divided(dict.fromkeys(splits, table)),
        open_table,
        options=(*TABLE_OPTIONS, *options),
        doubts=tuple(doubts),
        folder=root,
    )


# ---------------------------------------------------------------- which files


def _declared(
    root: Path, files: Iterable[Path], card: Mapping[str, Any]
) -> dict[str, dict[str, list[Path]]]:
    """The configurations whose files a card's `configs` lists, as far as they are here."""
    found: dict[str, dict[str, list[Path]]] = {}
    relative = {file: file.relative_to(root) for file in files}
    for one in card.get("configs") or ():
        splits: dict[str, list[Path]] = {}
        try:
            for split, pattern in _patterns(one["data_files"]):
                whole = PurePosixPath(one.get("data_dir") or "", pattern)
                fitting = [file for file, path in relative.items() if _fits(path, whole)]
                splits.setdefault(split, []).extend(fitting)
            name = str(one["config_name"])
        except (KeyError, TypeError):
            return {}  # a card of another form says nothing about files
        if splits := {split: of for split, of in splits.items() if of}:
            found[name] = splits
    return found


def _fits(path: PurePath, pattern: PurePath) -> bool:
    """Whether a pattern gives a path from its first part on; `**` stands for any number of parts.

    So read cards `datasets`. `PurePath.full_match` (Python 3.13) is the same; a regular expression
    of a whole pattern may take for ever.
    """
    ends = {0}
    for part in pattern.parts:
        if part == "**":
            ends = set(range(min(ends), len(path.parts) + 1))
        else:
            rest = (end for end in ends if end < len(path.parts))
            ends = {end + 1 for end in rest if fnmatchcase(path.parts[end], part)}
        if not ends:
            return False
    return len(path.parts) in ends


def _patterns(listed: Any) -> Iterator[tuple[str, str]]:
    """The splits of a card's `data_files` with their patterns; a pattern alone is of `train`."""
    for entry in [listed] if isinstance(listed, str) else listed:
        split, paths = (
            ("train", entry) if isinstance(entry, str) else (str(entry["split"]), entry["path"])
        )
        for pattern in [paths] if isinstance(paths, str) else paths:
            yield split, pattern


def _default_configuration(card: Mapping[str, Any]) -> str | None:
    """The configuration that a card takes where none is named: so marked, or called `default`."""
    listed = [one for one in card.get("configs") or () if isinstance(one, dict)]
    marked = [one for one in listed if one.get("default") is True]
    named = [one for one in listed if one.get("config_name") == "default"]
    return next((str(one.get("config_name")) for one in (*marked, *named)), None)


def _by_folder(root: Path, files: Iterable[Path]) -> dict[str, dict[str, list[Path]]]:
    """Folders that are no splits are configurations; files that lie in none are another."""
    found: dict[str, dict[str, list[Path]]] = {}
    for file in files:
        folders = [part for part in file.relative_to(root).parts[:-1] if part != "data"]
        if divided := next((part for part in folders if "=" in part), None):
            raise DataError(
                f"{printable(str(root))} is divided into folders by a column "
                f"({printable(divided)}/); write it to one file with that column first: "
                "pyarrow.parquet.read_table(FOLDER) and write_table"
            )
        stem = _PACKED.sub("", file.stem)
        match = _SHARD.match(stem)
        split = _PART.sub("", match["split"] if match else stem)
        if split.isdecimal() or not split:
            split = folders.pop() if folders else WHOLE
        name = next((part for part in folders if not split_kind(part)), "default")
        found.setdefault(name, {}).setdefault(split, []).append(file)
    for splits in found.values():
        for split, of_split in splits.items():
            folders = sorted({str(file.parent.relative_to(root)) for file in of_split})
            if len(folders) > 1:
                raise DataError(
                    f"{root} holds files of its split {split} in several folders "
                    f"({', '.join(folders)}), which may be the same images twice; give one of "
                    "these folders as the dataset"
                )
    return found


def _missing_shards(splits: Mapping[str, Sequence[Path]]) -> Iterator[str]:
    """A split of which the files' names tell of others that are not here."""
    for split, files in splits.items():
        parts = [match for file in files if (match := _SHARD.match(file.stem)) and match["count"]]
        count = max((int(match["count"]) for match in parts), default=0)
        numbers = {int(match["number"]) for match in parts}
        if count > len(numbers):
            missing = count - len(numbers)
            yield f"{missing} of the {count} files of its split {split} are missing"
        if len(parts) > len(numbers) or len({match["count"] for match in parts}) > 1:
            yield f"the files of its split {split} are numbered twice, as those of two uploads are"


def _other_counts(splits: Mapping[str, Sequence[Path]], info: Mapping[str, Any]) -> Iterator[str]:
    """A split that has other many rows than the card says."""
    for one in info.get("splits") or ():
        noted = one.get("num_examples") if isinstance(one, dict) else None
        if isinstance(noted, int) and one.get("name") in splits:
            here = sum(_metadata(file).num_rows for file in splits[one["name"]])
            if here != noted:
                yield f"its split {one['name']} has {here:,} rows, but its card says {noted:,}"


def _metadata(file: Path) -> Any:
    try:
        return parquet.read_metadata(file)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(file, error) from None


def _row_groups(files: Iterable[Path]) -> Iterator[_RowGroup]:
    first = 0
    for file in files:
        metadata = _metadata(file)
        for number in range(metadata.num_row_groups):
            num_rows = metadata.row_group(number).num_rows
            if num_rows:
                yield _RowGroup(file, number, first, num_rows)
            first += num_rows


def _column(file: Path, column: str) -> Iterator[Any]:
    """The values of a column that is no image: class numbers, names, captions.

    Raises:
        DataError: it cannot be read, or is larger than is taken.
    """
    try:
        with parquet.ParquetFile(file) as opened:
            yield from _values(opened, file, column, _MOST_ROWS, _largest_chunks(opened))
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(file, error) from None


def _beginnings(file: Path) -> Mapping[str, list[Any]]:
    """The first rows of every column that holds no bytes.

    Raises:
        DataError: one cannot be read, or is larger than is taken.
    """
    try:
        with parquet.ParquetFile(file) as opened:
            sizes = _largest_chunks(opened)
            names = [one.name for one in opened.schema_arrow if not _is_bytes(one.type)]
            return {
                name: list(islice(_values(opened, file, name, FIRST_ROWS, sizes), FIRST_ROWS))
                for name in names
            }
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(file, error) from None


def _largest_chunks(opened: parquet.ParquetFile) -> Mapping[str, int]:
    """The bytes of every column's largest part, unpacked, as the file says."""
    sizes: dict[str, int] = {}
    for number in range(opened.num_row_groups):
        group = opened.metadata.row_group(number)
        for chunk in map(group.column, range(group.num_columns)):
            name = chunk.path_in_schema.split(".")[0]
            sizes[name] = max(sizes.get(name, 0), chunk.total_uncompressed_size)
    return sizes


def _values(
    opened: parquet.ParquetFile, file: Path, column: str, most: int, sizes: Mapping[str, int]
) -> Iterator[Any]:
    """The values of a column, so many rows at a time, or fewer where they may be large.

    Raises:
        DataError: it is larger than is taken, in the file or written out: thousands of rows may
            name one long text, which lies in the file once.
    """
    fitting = LIST_MB.num_bytes // (2 * max(1, sizes.get(column, 1)))  # were each row all of it
    num_bytes = 0
    for batch in opened.iter_batches(max(1, min(most, fitting)), columns=[column]):
        values = batch.column(0).to_pylist()
        num_bytes += sum(map(_num_bytes, values))
        if num_bytes > LIST_MB.num_bytes:
            raise DataError(
                f"cannot read {file}: its column {column!r} unpacks to more than "
                f"{LIST_MB.value:,} MB; {LIST_MB.sentence}"
            )
        yield from values


def _num_bytes(value: Any) -> int:
    """What a value takes, about: a number eight bytes, a text or a list what is in it."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, list | dict):
        return 8 + sum(map(_num_bytes, value.values() if isinstance(value, dict) else value))
    return 8


def _bytes_written_out(images: pa.Array) -> int:
    """What rows take, each with its own bytes: a dictionary holds equal ones once."""
    if not pa.types.is_dictionary(images.type):
        return int(images.nbytes)
    lengths = pc.fill_null(pc.binary_length(images.dictionary), 0)
    return int(pc.sum(lengths.take(images.indices.drop_null())).as_py() or 0)


def _rows_at_a_time(file: parquet.ParquetFile, group: _RowGroup, column: str) -> tuple[int, int]:
    """How many rows may be unpacked together, by what the file says before anything is.

    And the most bytes that all its rows may be, written out.

    Raises:
        DataError: its rows are too large. Encoded images are packed already, so a column that
            shrinks a hundredfold holds none.
    """
    chunks = file.metadata.row_group(group.number)
    packed = unpacked = 0
    for number in range(chunks.num_columns):
        chunk = chunks.column(number)
        if chunk.path_in_schema.split(".")[0] == column:
            packed += chunk.total_compressed_size
            unpacked += chunk.total_uncompressed_size
    most = IMAGE_MB.num_bytes
    if unpacked > most * group.num_rows or unpacked > max(most, _MOST_SHRUNK * packed):
        raise DataError(
            f"cannot read {group.file}: its column {column!r} would unpack from "
            f"{packed / 1e6:.1f} to {unpacked / 1e6:,.1f} MB, which {group.num_rows} images "
            f"do not ({IMAGE_MB.sentence})"
        )
    rows = max(1, min(_BATCH_ROWS, 2 * most // max(1, unpacked)))
    return rows, max(most, _MOST_SHRUNK * packed)


# ---------------------------------------------------------------- what the columns are


def _schema(file: Path) -> pa.Schema:
    try:
        return parquet.read_schema(file)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(file, error) from None


def _is_bytes(kind: pa.DataType) -> bool:
    """Whether a column of it may hold encoded images, or structs of them or of their paths."""
    if pa.types.is_struct(kind):
        return any(kind.get_field_index(name) >= 0 for name in ("bytes", "path"))
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_kind = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return any(one(kind) for one in is_kind)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_kind = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(one(kind) for one in is_kind)


def _unreadable(file: Path, error: Exception) -> DataError:
    kind = kind_of_file(file)
    reason = f"it is {kind}" if kind else one_line(error)
    return DataError(f"cannot read {file}: {reason}")
