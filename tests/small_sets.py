"""Small sets of images for tests: an image is all of one grey level, the number in its name."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
from PIL import Image

NAMES = ("cat", "dog", "emu")
TRUTH = {(name, 10 * number + copy) for number, name in enumerate(NAMES) for copy in range(2)}
"""Class and grey level of every image."""


def png(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (level,) * 3).save(file, "PNG")
    return file.getvalue()


def write(root: Path, files: Iterable[str]) -> Path:
    """Files by path; an image shows the number in its name, a name that ends in / is a folder."""
    for name in files:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            file.mkdir()
        elif file.suffix in (".png", ".jpg"):
            file.write_bytes(png(int("".join(filter(str.isdigit, file.stem)) or 0)))
        else:
            file.write_text("{}")
    return root


def classes(above: str = "", names: Iterable[str] = NAMES) -> list[str]:
    return [
        f"{above}{name}/{10 * at + copy}.png" for at, name in enumerate(names) for copy in (0, 1)
    ]


def table(labels: list[object], images: list[object] | None = None) -> pa.Table:
    return pa.table(
        {"image": images or [png(level) for _, level in sorted(TRUTH)], "label": labels}
    )


def write_tar(file: Path, kind: str, said: Callable[[str], str]) -> Path:
    """A webdataset of `TRUTH`: of every sample the image, and what is said of its class."""
    with tarfile.open(file, "w") as tar:
        for label, level in sorted(TRUTH):
            for ending, data in (("png", png(level)), (kind, said(label).encode())):
                entry = tarfile.TarInfo(f"s{level:02}.{ending}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    return file
