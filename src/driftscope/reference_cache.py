"""What is known of a pretrained model on given images: computed once, shared through a cache.

An entry is named by its content: the weights, the images, the code that reads them, and the
surroundings that decide bits. So an entry never goes stale; it is only no longer asked for. Where
entries cannot be kept (a full disk, a read-only folder, `DRIFTSCOPE_CACHE_GB=0`) they are computed
anew and nothing fails.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path

import torch
from filelock import FileLock
from jaxtyping import Float, UInt8
from torch import Tensor

from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.relation import function_facts
from driftscope.backbones.weights import buffers_digest, encoder_fingerprint, text_fingerprint
from driftscope.data import PixelSource
from driftscope.data.cache import bound_bytes, cache_folder, files_of_ours
from driftscope.errors import RecordError
from driftscope.files import inner_folder, refuse_link_or_device, remove_leftovers
from driftscope.reading import TENSORS, Reading
from driftscope.reading_pass import images_fingerprint, read
from driftscope.tensor_files import DamagedFileError, read_tensors, write_tensors

REFERENCES_FOLDER = "references"
_SUFFIX = ".safetensors"
_KEY = "[0-9a-f]{32}"
_ENTRY = re.compile(_KEY + re.escape(_SUFFIX))
_LOCK = re.compile(rf"{_KEY}\.lock")
_SHARE_OF_BOUND = 0.1
_DECIDING_CODE = (
    "signals",
    "backbones",
    "sources",
    "reading_pass.py",
    "reading.py",
    "metric.py",
    "metrics.py",
    "assess.py",
)


@dataclass(frozen=True)
class ReferenceEntry:
    """One stored reference, as `driftscope cache list` counts it."""

    path: Path
    num_bytes: int
    last_used: float
    """Seconds since the epoch."""


@dataclass(frozen=True, eq=False)
class CachedModel:
    """A pretrained model whose outputs are computed once, and then come from the cache."""

    model: VisionLanguageModel

    @cached_property
    def fingerprint(self) -> str:
        """Of its image encoder's weights."""
        return encoder_fingerprint(self.model)

    @cached_property
    def _text_fingerprint(self) -> str:
        return text_fingerprint(self.model)

    def reading(
        self, pixels: UInt8[Tensor, "image 3 size size"], *, maps: bool, shown: Sequence[int]
    ) -> Reading:
        """The model's `reading_pass.read` of the images."""
        asked = f"{images_fingerprint(pixels)}-maps={maps}-shown={list(shown)}"
        key = self._key("reading", self.fingerprint, asked)
        return _unpacked(
            *_cached(key, lambda: _packed(read(self.model, pixels, maps=maps, shown=shown)))
        )

    def embeddings(self, pixels: PixelSource) -> Float[Tensor, "image dim"]:
        """The images' projected, unnormalised embeddings."""
        key = self._key("embeddings", self.fingerprint, images_fingerprint(pixels))
        return _tensor(key, lambda: self.model.embed_images(pixels))

    def texts(self, texts: Sequence[str]) -> Float[Tensor, "text dim"]:
        """The texts' projected, unnormalised embeddings.

        Raises:
            ModelError: the model came without a tokenizer.
        """
        tokens = self.model.tokenised(texts)["input_ids"].tolist()
        key = self._key("texts", self._text_fingerprint, json.dumps(tokens))
        return _tensor(key, lambda: self.model.embed_texts(texts))

    def _key(self, kind: str, weights: str, content: str) -> str:
        """Names an entry by everything that decides its numbers."""
        parts = (kind, weights, content, _code_digest(), *self._function)
        text = json.dumps([*parts, *_surroundings(self.model)], sort_keys=True, default=str)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @cached_property
    def _function(self) -> tuple[object, ...]:
        """What decides its outputs beside the weights: a module in memory may have been changed."""
        model, config = self.model, self.model.plain.config
        towers = (getattr(config, name, config) for name in ("vision_config", "text_config"))
        attention = [one._attn_implementation for one in towers]
        pixels = (model.mean, model.std)
        return (*pixels, config.to_dict(), attention, function_facts(model), buffers_digest(model))


def list_references() -> list[ReferenceEntry]:
    """All entries, the last used first."""
    entries = []
    for path in files_of_ours(cache_folder() / REFERENCES_FOLDER, _ENTRY):
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
    for lock in files_of_ours(folder, _LOCK):
        lock.unlink(missing_ok=True)
    if not folder.is_symlink():
        remove_leftovers(folder)
    with suppress(OSError):  # not there, or something of someone else's is in it
        folder.rmdir()
    return len(entries), sum(entry.num_bytes for entry in entries)


def _surroundings(model: VisionLanguageModel) -> Iterator[object]:
    """What of this process and machine decides bits."""
    yield from (torch.__version__, version("transformers"), torch.get_num_threads())
    yield torch.backends.cpu.get_cpu_capability()
    yield torch.backends.mkldnn.enabled
    yield from (torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled())
    yield next(model.module.parameters()).dtype
    device = model.device
    yield device.type
    if torch.is_autocast_enabled(device.type):
        yield torch.get_autocast_dtype(device.type)
    if device.type == "cuda":
        yield from (torch.cuda.get_device_name(device), torch.version.cuda)
        yield torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        yield torch.backends.cudnn.allow_tf32


@lru_cache(maxsize=1)
def _code_digest() -> str:
    """Changes with any line of the code that decides an entry's content."""
    root = Path(__file__).parent
    digest = hashlib.blake2b(digest_size=8)
    for name in _DECIDING_CODE:
        place = root / name
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
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
        cache_folder().mkdir(parents=True, exist_ok=True)
        inner_folder(cache_folder(), REFERENCES_FOLDER)
        refuse_link_or_device(path.with_suffix(".lock"))
        lock = FileLock(path.with_suffix(".lock"))
        lock.acquire()
    except (OSError, RecordError) as error:
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
        except (OSError, RecordError) as error:
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


def _warn_not_kept(path: Path, error: OSError | RecordError) -> None:
    why = getattr(error, "strerror", None) or error
    warnings.warn(
        f"the pretrained reference is not kept in {path.parent} ({why}); it is "
        "computed anew each time. Set DRIFTSCOPE_CACHE to a folder with space",
        stacklevel=3,
    )


_PER_IMAGE = "per_image."


def _tensor(key: str, compute: Callable[[], Tensor]) -> Tensor:
    return _cached(key, lambda: ({"found": compute().float().cpu()}, {}))[0]["found"]


def _packed(reading: Reading) -> tuple[dict[str, Tensor], dict[str, str]]:
    held = {name: getattr(reading, name) for name in TENSORS}
    tensors = {name: tensor for name, tensor in held.items() if tensor is not None}
    tensors |= {_PER_IMAGE + name: one for name, one in (reading.per_image or {}).items()}
    return tensors, {"numbers": json.dumps(reading.to_dict())}


def _unpacked(tensors: dict[str, Tensor], metadata: dict[str, str]) -> Reading:
    reading = Reading.from_dict(json.loads(metadata["numbers"]))
    for name in TENSORS:
        setattr(reading, name, tensors.get(name))
    reading.per_image = {
        name.removeprefix(_PER_IMAGE): tensor
        for name, tensor in tensors.items()
        if name.startswith(_PER_IMAGE)
    }
    return reading
