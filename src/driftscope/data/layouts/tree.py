"""One walk over a folder: what lies where. Layouts are recognised from it; none looks again."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from driftscope.data.encoded import printable
from driftscope.errors import DataError, one_line

_LEFT_BY_SYSTEMS = frozenset(
    {"__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini", "$RECYCLE.BIN", "lost+found",
     "System Volume Information", "__pycache__"}
)  # fmt: skip
_NO_PICTURES = frozenset(
    {".pdf", ".bufr", ".grib", ".h5", ".hdf", ".mpg", ".mpeg", ".wmf", ".emf", ".eps", ".ps",
     ".palm", ".iim"}
)  # fmt: skip
"""What Pillow lists but does not decode to a picture by itself."""
_NAMED_ALIKE = frozenset({".heic", ".heif", ".avif", ".jp2"})
"""Images even where this Pillow cannot read them: reading one says so."""
_DRAWN_OVER = re.compile(
    r"(?i)^(?P<image>[^\n]+)[_-](mask|seg|segmentation|trimap|bbox|annotation|gt)(_?\d+)?\.\w+$",
    re.MULTILINE,
)
"""Pictures that were drawn over the image of the name before: `1_mask.png` beside `1.png`."""
NO_CLASSES = re.compile(
    r"(?i).*(annotation|mask|segmentation|segment|trimap|label|devkit|depth|bbox|ground_?truth)s?"
    r"(class|object)?|gt|docs?"
)
"""Folders that lie beside images and hold what was drawn over them."""
_SHOWN = 4
NO_ENDING = "without an ending"


@cache
def image_suffixes() -> frozenset[str]:
    """The endings of files that Pillow decodes."""
    from PIL import Image

    known = Image.registered_extensions()
    readable = {suffix for suffix, kind in known.items() if kind in Image.OPEN}
    return frozenset(readable - _NO_PICTURES | _NAMED_ALIKE)


def is_image(name: str) -> bool:
    """Whether a file of this name is one that Pillow decodes."""
    return name[name.rfind(".") :].lower() in image_suffixes()


@dataclass(frozen=True)
class Folder:
    """A folder with what is below it, by name; hidden entries are left out.

    `num_images` counts the images in it and in all its folders. `drawn_over` are pictures that were
    drawn over its images, `dead` links that lead nowhere.
    """

    path: str
    images: tuple[str, ...]
    others: tuple[str, ...]
    folders: tuple[Folder, ...]
    num_images: int
    drawn_over: tuple[str, ...] = ()
    dead: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its own name."""
        return self.path.rstrip(os.sep).rpartition(os.sep)[2]

    @property
    def with_images(self) -> tuple[Folder, ...]:
        """Its folders that hold images, however deep."""
        return tuple(one for one in self.folders if one.num_images)

    def below(self) -> Iterator[Folder]:
        """The folder and all below it."""
        yield self
        for folder in self.folders:
            yield from folder.below()

    def files(self, *suffixes: str) -> list[Path]:
        """The files below it that are no images and end so, by path."""
        return sorted(
            Path(folder.path, name)
            for folder in self.below()
            for name in folder.others
            if name.lower().endswith(suffixes)
        )

    def image_files(self) -> Iterator[str]:
        """The paths of all images below it: of each folder its own and its folders', by name."""
        entries = [(name, None) for name in self.images] + [(one.name, one) for one in self.folders]
        for name, folder in sorted(entries, key=lambda entry: entry[0]):
            if folder is None:
                yield f"{self.path}{os.sep}{name}"
            else:
                yield from folder.image_files()

    def other_kinds(self, but: Collection[str] = ()) -> str:
        """The other files below it, counted by kind: `2 .txt, 1 .json`; "" where there are none.

        Args:
            but: names of files that are not counted.
        """
        kinds = Counter(
            Path(name).suffix.lower() or NO_ENDING
            for folder in self.below()
            for name in folder.others
            if name not in but
        )
        return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(_SHOWN))

    def drawn(self, depth: int = 2) -> str:
        """The tree in one line: `data/ {train/ {cat/ (3 images), dog/ (2 images)}, …}`."""
        own = f"{printable(self.name)}/"
        if not self.num_images:
            return f"{own} (no images)"
        if not self.with_images or not depth:
            return f"{own} ({self.num_images:,} images)"
        parts = [one.drawn(depth - 1) for one in self.folders[:_SHOWN]]
        if len(self.folders) > _SHOWN:
            parts.append(f"… {len(self.folders) - _SHOWN} more")
        if self.images:
            parts.append(f"{len(self.images):,} loose images")
        return f"{own} {{{', '.join(parts)}}}"


def walk(root: Path | str, above: frozenset[tuple[int, int]] = frozenset()) -> Folder:
    """A folder and all below it, each entry looked at once; links are followed, circles are not.

    Raises:
        DataError: a folder cannot be looked into; the sentence names it.
    """
    path = os.fspath(root)
    images, others, folders, dead = [], [], [], []
    suffixes = image_suffixes()
    try:
        status = Path(path).stat()
        here = above | {(status.st_dev, status.st_ino)}
        with os.scandir(path) as entries:
            for entry in entries:
                name = entry.name
                if name[0] == "." or name in _LEFT_BY_SYSTEMS:
                    continue
                if entry.is_dir():
                    if not _is_above(entry, here):
                        folders.append(entry.path)
                elif name[name.rfind(".") :].lower() in suffixes:
                    images.append(name)
                elif entry.is_file():  # a pipe would be waited for, a device never ends
                    others.append(name)
                elif entry.is_symlink():
                    dead.append(name)
    except OSError as error:
        raise DataError(
            f"cannot look into the folder {printable(path)}: {one_line(error)}"
        ) from None
    below = tuple(walk(one, here) for one in sorted(folders))
    drawn_over = _drawn_over(images)
    if drawn_over:
        images = [name for name in images if name not in drawn_over]
    count = len(images) + sum(one.num_images for one in below)
    return Folder(
        path,
        tuple(sorted(images)),
        tuple(sorted(others)),
        below,
        count,
        tuple(sorted(drawn_over)),
        tuple(sorted(dead)),
    )


def _drawn_over(images: Sequence[str]) -> set[str]:
    """Those of a folder's images that were drawn over others beside them."""
    found = list(_DRAWN_OVER.finditer("\n".join(images)))
    if not found:
        return set()
    stems = {name.rpartition(".")[0] for name in images}
    return {match[0] for match in found if match["image"] in stems}


def _is_above(entry: os.DirEntry[str], above: frozenset[tuple[int, int]]) -> bool:
    if not entry.is_symlink():
        return False
    status = entry.stat()
    return (status.st_dev, status.st_ino) in above


def is_text(name: str) -> bool:
    """Whether a name is UTF-8, so that a tokenizer, a page or JSON can hold it."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
