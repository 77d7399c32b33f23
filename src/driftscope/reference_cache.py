"""What is known of a pretrained model on given images: computed once, shared through a cache.

An entry is named by its content: the weights, the images, the code that reads them, and the
surroundings that decide bits. So an entry never goes stale; it is only no longer asked for. Where
entries cannot be kept (a full disk, a read-only folder, `DRIFTSCOPE_CACHE_GB=0`) they are computed
anew and nothing fails.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from jaxtyping import Float
from torch import Tensor

from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.weights import encoder_fingerprint
from driftscope.data import PixelSource
from driftscope.data.cache import bound_bytes, cache_folder
from driftscope.reading import TENSORS, Reading
from driftscope.reading_pass import images_fingerprint
from driftscope.tensor_files import DamagedFileError, read_tensors, write_tensors

REFERENCES_FOLDER = "references"
_SUFFIX = ".safetensors"
_SHARE_OF_BOUND = 0.1
_DECIDING_CODE = (
    "signals",
    "backbones",
    "sources",
    "reading_pass.py",
    "reading.py",
    "metrics.py",
    "assess.py",
)


@dataclass(frozen=True)
class Encoded:
    """Some images through an encoder: the reading of the first, the embeddings of all."""

    reading: Reading
    embeddings: Float[Tensor, "image dim"]


@dataclass(frozen=True)
class ReferenceEntry:
    """One stored reference, as `driftscope cache list` counts it."""

    path: Path
    num_bytes: int
    last_used: float
    """Seconds since the epoch."""


def cached_encoding(
    model: VisionLanguageModel, images: str, compute: Callable[[], Encoded]
) -> Encoded:
    """A pretrained model's `Encoded`, from the cache or computed and kept.

    Args:
        model: the pretrained model.
        images: names all images, their order, and what is read of them.
        compute: reads them.
    """

    def tensors() -> tuple[dict[str, Tensor], dict[str, str]]:
        return _packed(compute())

    return _unpacked(*_cached(_key("encoding", model, images), tensors))


def cached_embeddings(
    model: VisionLanguageModel, pixels: PixelSource
) -> Float[Tensor, "image dim"]:
    """A pretrained model's unnormalised image embeddings, from the cache or computed and kept."""

    def tensors() -> tuple[dict[str, Tensor], dict[str, str]]:
        return {"embeddings": model.embed_images(pixels).float().cpu()}, {}

    key = _key("embeddings", model, images_fingerprint(pixels))
    return _cached(key, tensors)[0]["embeddings"]


def list_references() -> list[ReferenceEntry]:
    """All entries, the last used first."""
    entries = []
    for path in (cache_folder() / REFERENCES_FOLDER).glob(f"*{_SUFFIX}"):
        with suppress(OSError):  # another process may just have removed it
            status = path.stat()
            entries.append(ReferenceEntry(path, status.st_size, status.st_mtime))
    return sorted(entries, key=lambda entry: -entry.last_used)


def clear_references() -> tuple[int, int]:
    """Removes every entry; how many there were, and their bytes.

    Whoever waits for one to be computed finds none and computes it. Nothing but the cache's own
    files is removed.
    """
    entries = list_references()
    for entry in entries:
        entry.path.unlink(missing_ok=True)
    folder = cache_folder() / REFERENCES_FOLDER
    for lock in folder.glob("*.lock"):
        lock.unlink(missing_ok=True)
    with suppress(OSError):  # not there, or something of someone else's is in it
        folder.rmdir()
    return len(entries), sum(entry.num_bytes for entry in entries)


def _key(kind: str, model: VisionLanguageModel, images: str) -> str:
    device = model.device
    surroundings = (
        *(version(name) for name in ("torch", "transformers")),
        torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        str(torch.get_num_threads()),
    )
    convention = (str(model.mean), str(model.std))
    parts = (kind, encoder_fingerprint(model), images, _code_digest(), *convention, *surroundings)
    return hashlib.blake2b("/".join(parts).encode(), digest_size=16).hexdigest()


@lru_cache(maxsize=1)
def _code_digest() -> str:
    """Changes with any line of the code that decides an entry's content."""
    root = Path(__file__).parent
    digest = hashlib.blake2b(digest_size=8)
    for name in _DECIDING_CODE:
        place = root / name
        for path in sorted(place.glob("*.py")) if place.is_dir() else [place]:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _cached(
    key: str, compute: Callable[[], tuple[dict[str, Tensor], dict[str, str]]]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The entry of a key; computed by one process while others that want it wait."""
    if bound_bytes() == 0:
        return compute()
    path = cache_folder() / REFERENCES_FOLDER / f"{key}{_SUFFIX}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock"))
        lock.acquire()
    except OSError as error:
        _warn_not_kept(path, error)
        return compute()
    try:
        with suppress(DamagedFileError):
            found = read_tensors(path)
            path.touch()
            return found
        entry = compute()
        try:
            write_tensors(path, *entry)
            _make_room()
        except OSError as error:
            _warn_not_kept(path, error)
        return entry
    finally:
        lock.release()


def _make_room() -> None:
    """Removes the entries used longest ago until the rest fits its share of the cache's bound."""
    entries = list_references()
    taken = sum(entry.num_bytes for entry in entries)
    for entry in reversed(entries[1:]):
        if taken <= _SHARE_OF_BOUND * bound_bytes():
            break
        taken -= entry.num_bytes
        entry.path.unlink(missing_ok=True)
        entry.path.with_suffix(".lock").unlink(missing_ok=True)


def _warn_not_kept(path: Path, error: OSError) -> None:
    warnings.warn(
        f"the pretrained reference is not kept in {path.parent} ({error.strerror or error}); it is "
        "computed anew each time. Set DRIFTSCOPE_CACHE to a folder with space",
        stacklevel=3,
    )


_PER_IMAGE = "per_image."


def _packed(encoded: Encoded) -> tuple[dict[str, Tensor], dict[str, str]]:
    reading = encoded.reading
    tensors = {"embeddings": encoded.embeddings}
    for name in TENSORS:
        if (tensor := getattr(reading, name)) is not None:
            tensors[f"reading.{name}"] = tensor
    for name, tensor in (reading.per_image or {}).items():
        tensors[_PER_IMAGE + name] = tensor
    return tensors, {"numbers": json.dumps(reading.to_dict())}


def _unpacked(tensors: dict[str, Tensor], metadata: dict[str, str]) -> Encoded:
    held: dict[str, Any] = {name: tensors.get(f"reading.{name}") for name in TENSORS}
    reading = replace(
        Reading.from_dict(json.loads(metadata["numbers"])),
        **held,
        per_image={
            name.removeprefix(_PER_IMAGE): tensor
            for name, tensor in tensors.items()
            if name.startswith(_PER_IMAGE)
        },
    )
    return Encoded(reading, tensors["embeddings"])
