"""Folders that `datasets` wrote with `save_to_disk`, and whatever it loads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from driftscope.data.address import WHOLE, Address
from driftscope.data.encoded import EncodedImages, image_bytes, printable
from driftscope.data.layouts.arrow_sizes import FORM_OF_FILES, refuse_packed
from driftscope.data.layouts.found import Found
from driftscope.data.layouts.lists import files_of
from driftscope.data.layouts.tables import FIRST_ROWS, TABLE_OPTIONS, divided, open_table
from driftscope.data.layouts.tree import Folder
from driftscope.errors import DataError, one_line

_MARKS = frozenset({"dataset_dict.json", "state.json"})
_CACHED = re.compile(r"(?P<name>.+)-(?P<split>[a-z]+)(-\d{5}-of-\d{5})?")


@dataclass(frozen=True)
class _ArrowImages:
    """The image column of a `datasets.Dataset`, which lies in mapped Arrow files."""

    dataset: Any
    column: str
    place: str

    def __len__(self) -> int:
        return len(self.dataset)

    def name_of(self, index: int) -> str:
        return f"in row {index + 1} of {self.place}"

    def read(self, indices: Sequence[int]) -> Iterator[bytes | DataError]:
        for index in indices:
            value = self.dataset[int(index)][self.column]
            yield image_bytes(value, self.name_of(index), Path(self.place))


@dataclass(frozen=True)
class _DatasetTable:
    """Loaded splits as a `Table`."""

    place: str
    splits: Mapping[str, Any]

    def columns(self, split: str) -> Sequence[str]:
        return list(self.splits[split].column_names)

    def image_columns(self, split: str) -> Sequence[str]:
        import datasets

        return self._of_type(split, datasets.Image)

    def label_names(self, split: str) -> Mapping[str, Sequence[str]]:
        import datasets

        of_values = {
            name: getattr(feature, "feature", feature)  # of lists what they hold
            for name, feature in self._features(split).items()
        }
        return {
            name: feature.names
            for name, feature in of_values.items()
            if isinstance(feature, datasets.ClassLabel)
        }

    def values(self, split: str, column: str) -> list[Any]:
        return self._few_or_all(split, column, slice(None))

    def begins(self, split: str, column: str) -> list[Any]:
        return self._few_or_all(split, column, slice(FIRST_ROWS))

    def _few_or_all(self, split: str, column: str, rows: slice) -> list[Any]:
        """Values, asked of Arrow where they are numbers and texts: `datasets` looks at every column
        for each that is asked for, and of thousands that takes minutes.
        """
        import datasets

        dataset, feature = self.splits[split], self._features(split)[column]
        is_plain = isinstance(feature, datasets.Value | datasets.ClassLabel)
        if is_plain and getattr(dataset, "_indices", 0) is None:
            values: list[Any] = dataset.data.column(column)[rows].to_pylist()
            return values
        return list(dataset.select_columns([column])[rows][column])

    def _features(self, split: str) -> Mapping[str, Any]:
        if split not in self._known:
            self._known[split] = dict(self.splits[split].features)
        return self._known[split]

    @cached_property
    def _known(self) -> dict[str, dict[str, Any]]:
        return {}

    def images(self, split: str, column: str) -> EncodedImages:
        import datasets

        dataset = self.splits[split]
        feature = dataset.features[column]
        if getattr(feature, "dtype", None) in ("string", "large_string"):
            return files_of(self.values(split, column), (Path(self.place), Path()), self.place)
        if not isinstance(feature, datasets.Image) and "binary" not in str(feature):
            raise DataError(f"the column {column!r} of {self.place} holds no images")
        if isinstance(feature, datasets.Image):
            dataset = dataset.cast_column(column, datasets.Image(decode=False))
        return _ArrowImages(dataset.select_columns([column]), column, self.place)

    def _of_type(self, split: str, kind: type) -> list[str]:
        features = self._features(split)
        return [one for one in self.columns(split) if isinstance(features[one], kind)]


def recognise(tree: Folder, address: Address) -> Found | None:
    """A folder with the marks of `save_to_disk`.

    Raises:
        DataError: it cannot be read.
    """
    if not _MARKS & set(tree.others):
        return _of_cache(tree, address)
    import datasets

    try:
        for file in tree.files(".arrow"):
            refuse_packed(file)
        with quiet():
            loaded = datasets.load_from_disk(tree.path)
    except DataError:
        raise
    except Exception as error:  # what datasets and arrow raise has no common base
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"cannot read the Arrow folder {tree.path}: {reason}") from None
    if isinstance(loaded, datasets.Dataset):
        loaded = {str(loaded.split or WHOLE): loaded}
    return found_dataset_dict(dict(loaded), address, Path(tree.path))


def recognise_file(file: Path, address: Address) -> Found:
    """One Arrow file: one split."""
    return found_dataset_dict({WHOLE: _of_files([file])}, address, file.parent)


def _of_cache(tree: Folder, address: Address) -> Found | None:
    """Arrow files by split, as the cache of `datasets` holds them: `beans-test.arrow`.

    Raises:
        DataError: there are several sets.
    """
    saved = [one for one in tree.below() if _MARKS & set(one.others)]
    files = tree.files(".arrow")
    if tree.num_images or not files:
        return None
    if saved:
        names = ", ".join(
            printable(str(Path(one.path).relative_to(tree.path))) for one in saved[:4]
        )
        raise DataError(
            f"{printable(tree.path)} holds sets that `save_to_disk` wrote ({names}); give one of "
            "them"
        )
    splits: dict[tuple[Path, str, str], list[Path]] = {}
    for file in files:
        match = _CACHED.fullmatch(file.stem)
        name, split = (match["name"], match["split"]) if match else (file.stem, WHOLE)
        splits.setdefault((file.parent, name, split), []).append(file)
    if len({(folder, name) for folder, name, _ in splits}) > 1:
        raise DataError(
            f"{printable(tree.path)} holds Arrow files of several sets; give one of its "
            f"folders, or one file, such as {printable(str(files[0]))}"
        )
    return found_dataset_dict(
        {split: _of_files(of) for (_, _, split), of in splits.items()}, address, Path(tree.path)
    )


def _of_files(files: Sequence[Path]) -> Any:
    """A `datasets.Dataset` of Arrow files.

    Raises:
        DataError: one cannot be read.
    """
    import datasets

    try:
        return datasets.concatenate_datasets([_of_file(one) for one in files])
    except DataError:
        raise
    except Exception as error:  # what datasets and arrow raise has no common base
        raise DataError(f"cannot read the Arrow file {files[0]}: {one_line(error)}") from None


def _of_file(file: Path) -> Any:
    """One Arrow file: a stream, as `datasets` writes them, or of Arrow's form of files."""
    import datasets
    import pyarrow as pa

    refuse_packed(file)
    with file.open("rb") as opened:
        is_stream = opened.read(len(FORM_OF_FILES)) != FORM_OF_FILES
    if is_stream:
        return datasets.Dataset.from_file(str(file))
    table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
    return datasets.Dataset(datasets.table.InMemoryTable(table))


def found_dataset_dict(
    splits: Mapping[str, Any], address: Address, folder: Path | None = None
) -> Found:
    """Splits that `datasets` has loaded; from the hub (no folder) there may be a `config`."""
    options = TABLE_OPTIONS if folder else (*TABLE_OPTIONS, "config")
    table = _DatasetTable(str(folder or address.place), splits)
    return Found(
        address,
        "dataset",
        divided(dict.fromkeys(splits, table)),
        open_table,
        options,
        folder=folder,
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars of `datasets`, which would break into our own display."""
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
