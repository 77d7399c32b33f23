"""Image sets whose images are encoded files, wherever the bytes lie: folders, tables, the hub."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from driftscope.data import cache
from driftscope.data.depth import LOOKED_AT, WHITE, white_of
from driftscope.data.framing import Framing
from driftscope.data.pixels import TRANSFORM_VERSION, decode, greatest_value_of, to_model_size
from driftscope.data.rows import PixelRows
from driftscope.data.spellings import file_at
from driftscope.errors import DataError
from driftscope.files import read_bytes
from driftscope.limits import IMAGE_MB

T = TypeVar("T")

_CACHED_FROM_SHARE = 0.25
"""Asked for less of a set than this, it decodes what is asked for instead of the whole set."""
_DECODE_CHUNK = 64


class EncodedImages(Protocol):
    """Where the bytes of a set's images come from."""

    def __len__(self) -> int:
        """How many images."""

    def name_of(self, index: int) -> str:
        """How the user knows an image, for error sentences."""

    def read(self, indices: Sequence[int]) -> Iterator[bytes | DataError]:
        """The images' files, in the order asked for; quickest in ascending order.

        In the place of one that cannot be read stands why, in a sentence that names it.
        """


@dataclass(frozen=True)
class FilesOnDisk:
    """Images that are files of their own."""

    files: tuple[str, ...]

    def __len__(self) -> int:
        """How many images."""
        return len(self.files)

    def name_of(self, index: int) -> str:
        """The file's path."""
        return printable(self.files[index])

    def read(self, indices: Sequence[int]) -> Iterator[bytes | DataError]:
        """The files' bytes."""
        for index in indices:
            yield _file_bytes(Path(self.files[index]))


@dataclass(frozen=True)
class Selected:
    """Some of another source's images."""

    of: EncodedImages
    indices: tuple[int, ...]

    def __len__(self) -> int:
        """How many images."""
        return len(self.indices)

    def name_of(self, index: int) -> str:
        """The other source's name for it."""
        return self.of.name_of(self.indices[index])

    def read(self, indices: Sequence[int]) -> Iterator[bytes | DataError]:
        """The other source's bytes."""
        return self.of.read([self.indices[index] for index in indices])


def selected(images: EncodedImages, indices: Sequence[int]) -> EncodedImages:
    """Some of a source's images, in the order given."""
    if isinstance(images, FilesOnDisk):
        return FilesOnDisk(tuple(images.files[index] for index in indices))
    return Selected(images, tuple(indices))


@dataclass(frozen=True, eq=False)
class EncodedSet:
    """Encoded images with what is known of them; an `ImageSet`.

    `captions` holds one or more sentences an image; `groups` says which images belong together
    (a place, a patient) and must not be split across sides. `words` and `templates` are prompts
    that came with the set; the words of the classes in `given_words` are of a file that the user
    named. `notes` say what of it was passed over, `doubts` what may make a number of it mean
    something else, `unlabeled_because` why it has no labels. `white` is the value that is white in
    16-bit greyscale.
    """

    name: str
    split: str
    encoded: EncodedImages
    class_names: tuple[str, ...] | None = None
    labels: Int64[Tensor, " image"] | None = None
    captions: tuple[tuple[str, ...], ...] | None = None
    groups: tuple[str, ...] | None = None
    words: Mapping[str, str] = field(default_factory=dict)
    given_words: frozenset[str] = frozenset()
    templates: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    unlabeled_because: str = ""
    white: int = WHITE

    def __len__(self) -> int:
        """How many images."""
        return len(self.encoded)

    def __repr__(self) -> str:
        classes = f", {len(self.class_names)} classes" if self.class_names else ""
        return f"EncodedSet({self.name!r}, split {self.split!r}, {len(self):,} images{classes})"

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of all images' bytes, labels, class names and captions.

        Independent of where and how the set is stored.
        """
        digest = hashlib.blake2b(self._images_digest.encode(), digest_size=8)
        digest.update(repr((self.class_names, self.captions)).encode())
        if self.labels is not None:
            digest.update(self.labels.numpy().tobytes())
        if self.white != WHITE:
            digest.update(str(self.white).encode())
        return digest.hexdigest()

    @cached_property
    def image_digests(self) -> tuple[bytes, ...]:
        """A hash of every image's bytes."""
        return tuple(
            hashlib.blake2b(_bytes_or_raise(data), digest_size=16).digest()
            for data in self.encoded.read(range(len(self)))
        )

    @cached_property
    def _images_digest(self) -> str:
        return hashlib.blake2b(b"".join(self.image_digests), digest_size=16).hexdigest()

    def pixels(
        self, indices: Sequence[int] | Int64[Tensor, " image"], size: int | Framing
    ) -> UInt8[Tensor, "image 3 size size"]:
        """These images at a size or as a model's `framing` says: from the cache, or decoded.

        Raises:
            DataError: an image cannot be read; the sentence names it.
        """
        return self.rows(indices, size).gathered()

    def rows(
        self, indices: Sequence[int] | Int64[Tensor, " image"], size: int | Framing
    ) -> PixelRows:
        """As `pixels`, but left in the cache, which all processes map, until they are asked for.

        Raises:
            DataError: an image cannot be read; the sentence names it.
        """
        wanted = torch.as_tensor(indices, dtype=torch.int64).reshape(-1)
        self._refuse_outside(wanted)
        framing = Framing.of(size)
        stored = self._stored(framing, share=len(wanted) / max(1, len(self)))
        if stored is None:
            return PixelRows.of(self._decoded(wanted.tolist(), framing))
        return PixelRows(stored, wanted)

    def select(self, indices: Int64[Tensor, " image"]) -> EncodedSet:
        """A set of some of the images, in the order given, with what is known of them."""
        chosen = indices.tolist()
        return replace(
            self,
            encoded=selected(self.encoded, chosen),
            labels=None if self.labels is None else self.labels[indices],
            captions=None if self.captions is None else tuple(self.captions[i] for i in chosen),
            groups=None if self.groups is None else tuple(self.groups[i] for i in chosen),
        )

    def readable(self) -> tuple[EncodedSet, list[str]]:
        """The set without the images that cannot be read, and why each was left out."""
        kept: list[int] = []
        problems: list[str] = []
        for index, data in enumerate(self.encoded.read(range(len(self)))):
            try:
                decode(_bytes_or_raise(data), self.encoded.name_of(index), self.white)
                kept.append(index)
            except DataError as error:
                problems.append(str(error))
        return self.select(torch.tensor(kept, dtype=torch.int64)), problems

    def only_readable(self) -> EncodedSet:
        """The set without the images that cannot be read, and a note of how many they are.

        Raises:
            DataError: none can be read.
        """
        return self._without(*self.readable())

    def with_bytes(self) -> EncodedSet:
        """The set without the rows that hold no image, and a note of how many they are.

        Images that are files are told apart by their names, and left as they are.

        Raises:
            DataError: none holds one.
        """
        if isinstance(self.encoded, FilesOnDisk):
            return self
        kept: list[int] = []
        problems: list[str] = []
        for row, data in enumerate(self.encoded.read(range(len(self)))):
            if isinstance(data, DataError):
                problems.append(str(data))
            else:
                kept.append(row)
        return self._without(self.select(torch.tensor(kept, dtype=torch.int64)), problems)

    def _without(self, kept: EncodedSet, problems: Sequence[str]) -> EncodedSet:
        """What is kept of the set, with a note of the images that were left out.

        Raises:
            DataError: nothing is kept.
        """
        if not problems:
            return self
        if not len(kept):
            raise DataError(
                f"{self.name}: none of its {len(self):,} images can be read, such as: {problems[0]}"
            )
        said = f"{len(problems)} images cannot be read and are left out, such as: {problems[0]}"
        return replace(kept, notes=(*self.notes, said))

    def with_its_white(self) -> EncodedSet:
        """The set with the white of its 16-bit images, told by a look at some, and a note of it."""
        greatest = [value for value in self._greatest_values() if value is not None]
        white = white_of(greatest)
        if white == WHITE:
            return self
        said = (
            f"its 16-bit images have no value above {max(greatest):,} ({len(greatest)} looked at), "
            f"so {white:,} is taken for white"
        )
        return replace(self, white=white, notes=(*self.notes, said))

    def _greatest_values(self) -> Iterator[int | None]:
        """Of some images spread over the files, or the first rows; none after a first of 8 bits."""
        count = min(LOOKED_AT, len(self))
        step = len(self) // count if isinstance(self.encoded, FilesOnDisk) and count else 1
        for data in self.encoded.read(range(0, count * step, step) if count else ()):
            value = None if isinstance(data, DataError) else greatest_value_of(data)
            yield value
            if value is None:
                return

    def by_file(self) -> EncodedSet:
        """The set with the first row alone of those that name the same file; others are noted."""
        files = self.encoded.files if isinstance(self.encoded, FilesOnDisk) else ()
        first = {file: row for row, file in reversed(list(enumerate(files)))}
        repeated = len(files) - len(first)
        if not repeated:
            return self
        kept = self.select(torch.tensor(sorted(first.values()), dtype=torch.int64))
        return replace(kept, notes=(*kept.notes, repeats_left_out(repeated)))

    def by_image(self) -> EncodedSet:
        """Captioned rows as images: rows of the same image are one with all their captions.

        Rows without a caption are left out.
        """
        files = self.encoded.files if isinstance(self.encoded, FilesOnDisk) else None
        keys: Iterable[object] = files or self.image_digests
        rows: dict[object, int] = {}
        captions: dict[int, tuple[str, ...]] = {}
        for row, (key, own) in enumerate(zip(keys, self.captions or (), strict=True)):
            if own:
                first = rows.setdefault(key, row)
                captions[first] = tuple(dict.fromkeys((*captions.get(first, ()), *own)))
        images = self.select(torch.tensor(list(captions), dtype=torch.int64))
        notes = list(self.notes)
        if empty := sum(not own for own in self.captions or ()):
            notes.append(f"{empty} rows have no caption and are left out")
        return replace(images, captions=tuple(captions.values()), notes=tuple(notes))

    # ------------------------------------------------------------ inside

    def _stored(self, framing: Framing, share: float) -> UInt8[Tensor, "image 3 size size"] | None:
        """The whole set at this size from the cache, put there first if that is worth it."""
        worth_it = share >= _CACHED_FROM_SHARE
        if not worth_it and "_images_digest" not in self.__dict__:
            return None  # to find the entry would take reading every image's bytes
        seen = framing.text if self.white == WHITE else f"{framing.text}-white-{self.white}"
        key = cache.Key(self._images_digest, seen, TRANSFORM_VERSION)
        shape = (len(self), 3, framing.size, framing.size)
        found = cache.find(key, shape)
        if found is not None or not worth_it:
            return found
        try:
            return cache.store(key, shape, self._chunks(framing), label=f"{self.name} {self.split}")
        except DataError:
            return None  # the image may not be among those asked for; if it is, decoding names it

    def _chunks(self, framing: Framing) -> Iterator[UInt8[Tensor, "chunk 3 size size"]]:
        """The whole set in order; while a chunk is in use, the next is being decoded."""
        files = self.encoded.read(range(len(self)))
        with _decoding_threads() as threads:
            begun = (
                self._begin(one, files, framing, threads) for one in _chunked(range(len(self)))
            )
            for decoded in _one_ahead(begun):
                yield decoded()

    def _decoded(
        self, indices: Sequence[int], framing: Framing
    ) -> UInt8[Tensor, "image 3 size size"]:
        """In the order asked for; read in ascending order."""
        pixels = torch.empty(len(indices), 3, framing.size, framing.size, dtype=torch.uint8)
        order = sorted(range(len(indices)), key=lambda place: indices[place])
        files = self.encoded.read([indices[place] for place in order])
        with _decoding_threads() as threads:
            begun = (
                (places, self._begin([indices[place] for place in places], files, framing, threads))
                for places in _chunked(order)
            )
            for places, decoded in _one_ahead(begun):
                pixels[places] = decoded()
        return pixels

    def _begin(
        self,
        indices: Sequence[int],
        files: Iterator[bytes | DataError],
        framing: Framing,
        threads: ThreadPoolExecutor,
    ) -> Callable[[], UInt8[Tensor, "image 3 size size"]]:
        """Has the next files decoded, resized and cropped; what is returned waits for them."""
        pixels = np.empty((len(indices), 3, framing.size, framing.size), np.uint8)

        def put(place: int, index: int, data: bytes | DataError) -> None:
            image = decode(_bytes_or_raise(data), self.encoded.name_of(index), self.white)
            pixels[place] = to_model_size(image, framing).numpy()

        decoding = threads.map(put, range(len(indices)), indices, files)

        def decoded() -> Tensor:
            deque(decoding, maxlen=0)
            return torch.from_numpy(pixels)

        return decoded

    def _refuse_outside(self, wanted: Tensor) -> None:
        if len(wanted) and not 0 <= int(wanted.min()) <= int(wanted.max()) < len(self):
            raise DataError(
                f"images {int(wanted.min())}…{int(wanted.max())} asked of {self.name} "
                f"({self.split}), which holds images 0…{len(self) - 1}"
            )


def image_bytes(value: Any, name: str, folder: Path) -> bytes | DataError:
    """The encoded image that a row of a table holds: its bytes, or a file that it names.

    Args:
        value: bytes, or a struct of `bytes` and `path` as `datasets` writes it.
        name: how the user knows the image.
        folder: where relative paths start.
    """
    data = value
    if isinstance(value, dict):
        data, path = value.get("bytes"), value.get("path")
        if data is None and path:
            return _file_bytes(file_at(folder, str(path)))
    if data is None:
        return DataError(f"cannot read the image {name}: the row holds none")
    if not isinstance(data, bytes):
        return DataError(
            f"cannot read the image {name}: the row holds {type(data).__name__} and not the bytes "
            "of one encoded image"
        )
    return data


def repeats_left_out(num_rows: int) -> str:
    """What is said of rows of an image that has another row."""
    return f"{num_rows} rows name an image that another row names, and are left out"


def printable(name: str) -> str:
    r"""A name as it can be shown: bytes that are no UTF-8 as `\xe9`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _file_bytes(file: Path) -> bytes | DataError:
    try:
        return read_bytes(file, IMAGE_MB)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        if isinstance(error, FileNotFoundError) and file.is_symlink():
            reason = f"it is a link to {printable(str(file.readlink()))}, where nothing is"
        return DataError(f"cannot read the image {printable(str(file))}: {reason or error}")


def _bytes_or_raise(data: bytes | DataError) -> bytes:
    if isinstance(data, DataError):
        raise data
    return data


def _decoding_threads() -> ThreadPoolExecutor:
    """As many as torch may use; Pillow decodes and resizes outside Python's lock."""
    return ThreadPoolExecutor(torch.get_num_threads())


def _chunked(items: Sequence[int]) -> Iterator[Sequence[int]]:
    return (items[start : start + _DECODE_CHUNK] for start in range(0, len(items), _DECODE_CHUNK))


def _one_ahead(begun: Iterable[T]) -> Iterator[T]:
    """Each item only once the next has been begun, so that whoever works on them never waits."""
    waiting: deque[T] = deque()
    for item in begun:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting
