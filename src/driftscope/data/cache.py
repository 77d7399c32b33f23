"""Decoded pixels on disk: a uint8 array a set and size, memory-mapped by every process.

An entry is one `.npy` file, written beside its place and renamed into it, so that it is whole
or absent. Writers of one entry take turns by a lock that dies with its process; the later one
finds the entry and writes nothing. Where an entry cannot be kept (the disk is full, the folder
is read-only, the set is larger than the bound) images are decoded again and nothing fails.

The folder is `$DRIFTSCOPE_CACHE`, or `driftscope` in the user's cache folder; its bound
`$DRIFTSCOPE_CACHE_GB` (20). The entry used longest ago gives way first.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from jaxtyping import UInt8
from numpy.lib import format as npy_format
from torch import Tensor

from driftscope.errors import DataError, RecordError
from driftscope.files import named_path, refuse_link_or_device, remove_leftovers, whole_file

DEFAULT_BOUND_GB = 20.0
_SUFFIX = ".pixels.npy"
_KEY = r"[0-9a-f]{32}-\d+px[a-z0-9-]*-v\d+"
_ENTRY = re.compile(rf".+--{_KEY}{re.escape(_SUFFIX)}")
_LOCK = re.compile(rf"{_KEY}{re.escape(_SUFFIX)}\.lock")


@dataclass(frozen=True)
class Key:
    """What decides every byte of an entry: the images, their framing, and how they get there."""

    images_digest: str
    framing: str
    transform_version: int

    @property
    def text(self) -> str:
        """The key as a part of a file name."""
        return f"{self.images_digest}-{self.framing}-v{self.transform_version}"


@dataclass(frozen=True)
class CacheEntry:
    """One stored set, as `driftscope cache list` shows it."""

    path: Path
    label: str
    num_images: int
    image_size: int
    num_bytes: int
    last_used: float
    """Seconds since the epoch."""


def cache_folder() -> Path:
    """Where entries lie: `$DRIFTSCOPE_CACHE`, `$XDG_CACHE_HOME/driftscope`, `~/.cache/…`."""
    if chosen := os.environ.get("DRIFTSCOPE_CACHE"):
        return named_path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "driftscope"


def bound_bytes() -> int:
    """How many bytes all entries may take together; 0 keeps none.

    Raises:
        DataError: `$DRIFTSCOPE_CACHE_GB` is no number from 0 up.
    """
    text = os.environ.get("DRIFTSCOPE_CACHE_GB", str(DEFAULT_BOUND_GB))
    try:
        num_bytes = float(text) * 1e9
    except ValueError:
        num_bytes = math.nan
    if not 0 <= num_bytes < math.inf:
        raise DataError(
            f"DRIFTSCOPE_CACHE_GB is {text!r}; give the gigabytes the pixel cache may take, "
            "such as 20, or 0 for no cache"
        )
    return int(num_bytes)


def files_of_ours(folder: Path, name: re.Pattern[str]) -> Iterator[Path]:
    """The files in a folder of the cache whose whole name is one that the cache gives.

    A link is none of ours, and nothing behind a folder that is one, nor is a pipe or a device.
    """
    if folder.is_symlink() and folder != cache_folder():  # the cache's own place is yours to name
        return
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if name.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                yield folder / entry.name


def list_entries() -> list[CacheEntry]:
    """All entries, the last used first; an unreadable file counts with 0 images."""
    entries = []
    for path in files_of_ours(cache_folder(), _ENTRY):
        with suppress(OSError):  # another process may just have removed it
            status = path.stat()
            shape = _shape_of(path) or (0, 3, 0, 0)
            label = path.name.removesuffix(_SUFFIX).rpartition("--")[0]
            entries.append(
                CacheEntry(path, label, shape[0], shape[-1], status.st_size, status.st_mtime)
            )
    return sorted(entries, key=lambda entry: -entry.last_used)


def clear() -> tuple[int, int]:
    """Removes every entry; how many there were, and their bytes.

    Processes that have one mapped keep it until they end. Nothing but the cache's own files is
    removed, whatever folder `$DRIFTSCOPE_CACHE` names.
    """
    entries = list_entries()
    folder = cache_folder()
    for entry in entries:
        entry.path.unlink(missing_ok=True)
    for lock in files_of_ours(folder, _LOCK):
        lock.unlink(missing_ok=True)
    remove_leftovers(folder)
    return len(entries), sum(entry.num_bytes for entry in entries)


def find(key: Key, shape: tuple[int, ...]) -> UInt8[Tensor, "image 3 size size"] | None:
    """A stored set, mapped into memory; None where there is none, or none that is whole."""
    of_key = re.compile(rf".+--{re.escape(key.text + _SUFFIX)}")
    for path in files_of_ours(cache_folder(), of_key):
        try:
            # copy-on-write, so that no user of the tensor can change the entry
            pixels = np.load(path, mmap_mode="c", allow_pickle=False)
        except (OSError, ValueError):
            continue
        if pixels.shape == shape and pixels.dtype == np.uint8:
            with suppress(OSError):
                os.utime(path)
            return torch.from_numpy(pixels)
    return None


def store(
    key: Key,
    shape: tuple[int, int, int, int],
    chunks: Iterable[UInt8[Tensor, "chunk 3 size size"]],
    label: str,
) -> UInt8[Tensor, "image 3 size size"] | None:
    """Writes a set's pixels, unless another process just has, and maps them.

    Args:
        key: what they are.
        shape: image, 3, size, size.
        chunks: the images in order; consumed only if this process writes.
        label: what a person calls the set.

    Returns:
        The mapped pixels; None where they cannot be kept.

    Raises:
        DataError: what `chunks` raises; no entry is left then.
    """
    num_bytes = math.prod(shape)
    if num_bytes == 0 or num_bytes > bound_bytes():
        return None
    place = cache_folder() / f"{_plain(label)}--{key.text}{_SUFFIX}"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = place.parent / f"{key.text}{_SUFFIX}.lock"
        refuse_link_or_device(lock)
        with FileLock(lock):
            if (found := find(key, shape)) is not None:
                return found
            _make_room(num_bytes)
            _write(place, shape, chunks)
    except (OSError, RecordError) as error:
        why = getattr(error, "strerror", None) or error
        warnings.warn(
            f"decoded pixels are not kept in {place.parent} ({why}); images "
            "are decoded again each time. Set DRIFTSCOPE_CACHE to a folder with space",
            stacklevel=2,
        )
        return None
    return find(key, shape)


def _write(place: Path, shape: tuple[int, ...], chunks: Iterable[Tensor]) -> None:
    """Whole or not at all."""
    with whole_file(place) as partial, partial.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        npy_format.write_array_header_1_0(file, header)
        for chunk in chunks:
            # plain writes and not a mapping: a full disk is an error here, there a crash
            file.write(chunk.numpy().data)
            file.flush()
            os.fsync(file.fileno())  # at once: the next chunk is being decoded meanwhile


def _make_room(num_bytes: int) -> None:
    """Removes entries, the one used longest ago first, until the new one fits the bound."""
    entries = list_entries()
    taken = sum(entry.num_bytes for entry in entries)
    while entries and taken + num_bytes > bound_bytes():
        oldest = entries.pop()
        oldest.path.unlink(missing_ok=True)
        taken -= oldest.num_bytes


def _shape_of(path: Path) -> tuple[int, ...] | None:
    try:
        return tuple(np.load(path, mmap_mode="r", allow_pickle=False).shape)
    except (OSError, ValueError):
        return None


def _plain(label: str) -> str:
    """A label as the readable part of a file name."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", label).strip("-.")[-60:] or "images"
