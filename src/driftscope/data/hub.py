"""Datasets of the Hugging Face hub and folders that `datasets` wrote; no network is a state.

A hub name is looked for, in this order, under `$DRIFTSCOPE_DATA`, in the cache of `datasets`,
and on the hub itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driftscope.data.address import WHOLE, Address, choose_split
from driftscope.data.columns import (
    as_sentences,
    labels_from_numbers,
    labels_of_split,
    needed_column,
    optional_column,
)
from driftscope.data.encoded import EncodedSet
from driftscope.errors import DataError
from driftscope.hugging_face import offline_where_unreachable

DATA_FOLDER_VARIABLE = "DRIFTSCOPE_DATA"


@dataclass(frozen=True)
class Preset:
    """A hub dataset that driftscope knows by a short name."""

    hub_id: str
    image: str
    label: str

    @property
    def columns(self) -> dict[str, str]:
        """Its columns, as an address gives them."""
        return {"image": self.image, "label": self.label}


PRESETS: Mapping[str, Preset] = {
    "eurosat": Preset("tanganke/eurosat", "image", "label"),
    "pets": Preset("timm/oxford-iiit-pet", "image", "label"),
    "cifar100": Preset("uoft-cs/cifar100", "img", "fine_label"),
    "cifar10": Preset("uoft-cs/cifar10", "img", "label"),
}
"""The paper's datasets (4.1) and CIFAR-10."""


@dataclass(frozen=True)
class HubImages:
    """The image column of a `datasets.Dataset`, which lies in mapped Arrow files."""

    dataset: Any
    column: str
    place: str

    def __len__(self) -> int:
        """How many images."""
        return len(self.dataset)

    def name_of(self, index: int) -> str:
        """Its row."""
        return f"in row {index + 1} of {self.place}"

    def read(self, indices: Sequence[int]) -> Iterator[bytes]:
        """The images' files."""
        for index in indices:
            value = self.dataset[int(index)][self.column]
            data, path = value.get("bytes"), value.get("path")
            if data is None and path and Path(path).is_file():
                data = Path(path).read_bytes()
            yield data or b""


def preset_of(place: str) -> Preset | None:
    """The preset that a short name or hub id names."""
    by_id = {preset.hub_id: preset for preset in PRESETS.values()}
    return PRESETS.get(place) or by_id.get(place)


def looks_like_hub_id(place: str) -> bool:
    """Whether it may be `owner/name` on the hub, and is no path."""
    owner, _, name = place.partition("/")
    return bool(owner and name) and "/" not in name and not place.startswith((".", "~"))


def local_copy(place: str) -> Path | None:
    """A copy of a named dataset under `$DRIFTSCOPE_DATA`: owner/name, name, or short name."""
    root = os.environ.get(DATA_FOLDER_VARIABLE)
    if not root:
        return None
    preset = preset_of(place)
    hub_id = preset.hub_id if preset else place
    for name in (hub_id, hub_id.rpartition("/")[2], place):
        folder = Path(root).expanduser() / name
        if folder.exists():
            return folder
    return None


def open_hub(split: str, address: Address) -> EncodedSet:
    """A dataset of the hub by its id or short name.

    Raises:
        DataError: it cannot be had; the sentence says where it would be looked for and how to
            point at a copy.
    """
    return _open_dataset_dict(_load_hub(address), split, address)


def hub_splits(address: Address) -> tuple[str, ...]:
    """The names of a hub dataset's splits; it is fetched if it is not here yet."""
    return tuple(_load_hub(address))


def open_arrow(folder: Path, split: str, address: Address) -> EncodedSet:
    """A folder that `save_to_disk` of `datasets` wrote.

    Raises:
        DataError: unreadable, or no such split.
    """
    return _open_dataset_dict(_load_arrow(folder), split, address)


def is_arrow(folder: Path) -> bool:
    """Whether `datasets` wrote the folder with `save_to_disk`."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def arrow_splits(folder: Path) -> tuple[str, ...]:
    """The names of an Arrow folder's splits."""
    return tuple(_load_arrow(folder))


# ---------------------------------------------------------------- loading


def _load_hub(address: Address) -> Mapping[str, Any]:
    preset = preset_of(address.place)
    hub_id = preset.hub_id if preset else address.place
    try:
        import datasets

        with _quiet(), _offline_where_unreachable():
            loaded = datasets.load_dataset(hub_id, address.options.get("config"))
    except Exception as error:  # network, hub, cache and format errors have no common base
        raise DataError(_not_had(address.place, hub_id, error)) from None
    return dict(loaded)


def _load_arrow(folder: Path) -> Mapping[str, Any]:
    import datasets

    try:
        with _quiet():
            loaded = datasets.load_from_disk(str(folder))
    except Exception as error:  # what datasets and arrow raise has no common base
        raise DataError(f"cannot read the Arrow folder {folder}: {_one_line(error)}") from None
    if isinstance(loaded, datasets.Dataset):
        return {str(loaded.split or WHOLE): loaded}
    return dict(loaded)


def _not_had(place: str, hub_id: str, error: Exception) -> str:
    from datasets import config
    from huggingface_hub.constants import HF_HUB_CACHE

    root = os.environ.get(DATA_FOLDER_VARIABLE)
    under = f"{root}/{hub_id}" if root else f"${DATA_FOLDER_VARIABLE}/{hub_id} (not set)"
    return (
        f"no dataset {place!r}: no folder of that name is here, it is not in {under}, "
        f"{config.HF_DATASETS_CACHE} or {HF_HUB_CACHE}, and the Hugging Face hub did not give it "
        f"({_one_line(error)}); give the folder of a copy as the dataset, or set "
        f"{DATA_FOLDER_VARIABLE} to the folder that holds {hub_id}"
    )


@contextmanager
def _offline_where_unreachable() -> Iterator[None]:
    """`datasets` keeps a copy of the hub's switch."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    with offline_where_unreachable() as offline:
        datasets.config.HF_HUB_OFFLINE = before or offline
        try:
            yield
        finally:
            datasets.config.HF_HUB_OFFLINE = before


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars of `datasets`, which would break into our own display."""
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


# ---------------------------------------------------------------- what the columns are


def _open_dataset_dict(splits: Mapping[str, Any], split: str, address: Address) -> EncodedSet:
    import datasets

    chosen = choose_split(split, splits, address)
    dataset = splits[chosen]
    features, columns = dataset.features, dataset.column_names
    images = [name for name in columns if isinstance(features[name], datasets.Image)]
    label_columns = [name for name in columns if isinstance(features[name], datasets.ClassLabel)]
    image = needed_column("image", columns, address, images)
    label = optional_column("label", columns, address, label_columns)
    caption = optional_column("caption", columns, address)
    group = optional_column("group", columns, address)
    labels, class_names = None, None
    if label and label in label_columns:
        class_names = tuple(features[label].names)
        labels = labels_from_numbers(dataset[label][:], class_names, address.place, label)
    elif label:
        values = {name: list(part[label]) for name, part in splits.items()}
        labels, class_names = labels_of_split(values, chosen, address.place, label)
    if not isinstance(features[image], datasets.Image):
        raise DataError(f"the column {image!r} of {address.place} holds no images")
    dataset = dataset.cast_column(image, datasets.Image(decode=False))
    return EncodedSet(
        name=address.place,
        split=chosen,
        encoded=HubImages(dataset.select_columns([image]), image, address.place),
        class_names=class_names if labels is not None else None,
        labels=labels,
        captions=tuple(as_sentences(value) for value in dataset[caption]) if caption else None,
        groups=tuple(str(value) for value in dataset[group]) if group else None,
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
