"""Datasets of the Hugging Face hub; no network is a state.

A hub name is looked for, in this order, under `$DRIFTSCOPE_DATA`, in the cache of `datasets`,
and on the hub itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from driftscope.data.address import Address
from driftscope.data.layouts import webdataset
from driftscope.data.layouts.arrow import found_dataset_dict, quiet
from driftscope.data.layouts.found import Found
from driftscope.data.layouts.tree import walk
from driftscope.errors import DataError, one_line
from driftscope.files import named_path
from driftscope.hugging_face import offline_where_unreachable
from driftscope.suites import DATA_FOLDER_VARIABLE, PRESETS, Preset, Suite, member_of


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
    preset, member = preset_of(place), member_of(place)
    hub_id = preset.hub_id if preset else place
    names = member.folders if member else (hub_id, hub_id.rpartition("/")[2], place)
    for name in names:
        folder = named_path(root) / name
        if folder.exists():
            return folder
    return None


def recognise(address: Address) -> Found:
    """A dataset of the hub by its id or short name; it is fetched if it is not here yet.

    Raises:
        DataError: it cannot be had; the sentence says where it would be looked for and how to
            point at a copy.
    """
    if member_of(address.place):
        folder = _snapshot(address.place)
        found = webdataset.recognise(walk(folder), address)
        if found is None:
            raise DataError(f"{address.place} ({folder}) holds no tar files")
        return found
    preset = preset_of(address.place)
    return found_dataset_dict(
        _load_hub(address), address.with_defaults(preset.columns) if preset else address
    )


def missing_of(suite: Suite) -> tuple[str, ...]:
    """The members of a suite that are neither here nor can be fetched."""
    with offline_where_unreachable() as offline:
        if not offline:
            return ()
        places = [one.place for one in suite.members]
        return tuple(one for one in places if local_copy(one) is None and not _is_cached(one))


def _is_cached(hub_id: str) -> bool:
    try:
        _snapshot(hub_id)
    except DataError:
        return False
    return True


def _snapshot(hub_id: str) -> Path:
    """The folder of a hub dataset as it is there: its tars, with the names and prompts beside."""
    from huggingface_hub import snapshot_download

    try:
        with _offline_where_unreachable():
            return Path(snapshot_download(hub_id, repo_type="dataset"))
    except Exception as error:  # network, hub and cache errors have no common base
        raise DataError(_not_had(hub_id, hub_id, error)) from None


def _load_hub(address: Address) -> Mapping[str, Any]:
    preset = preset_of(address.place)
    hub_id = preset.hub_id if preset else address.place
    try:
        import datasets

        with quiet(), _offline_where_unreachable():
            loaded = datasets.load_dataset(hub_id, address.options.get("config"))
    except Exception as error:  # network, hub, cache and format errors have no common base
        raise DataError(_not_had(address.place, hub_id, error)) from None
    return dict(loaded)


def _not_had(place: str, hub_id: str, error: Exception) -> str:
    from datasets import config
    from huggingface_hub.constants import HF_HUB_CACHE

    root = os.environ.get(DATA_FOLDER_VARIABLE)
    under = f"{root}/{hub_id}" if root else f"${DATA_FOLDER_VARIABLE}/{hub_id} (not set)"
    return (
        f"no dataset {place!r}: no folder of that name is here, it is not in {under}, "
        f"{config.HF_DATASETS_CACHE} or {HF_HUB_CACHE}, and the Hugging Face hub did not give it "
        f"({one_line(error)}); give the folder of a copy as the dataset, or set "
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
