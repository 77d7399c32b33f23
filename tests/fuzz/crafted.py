"""Files that no chance damages so: each is right by its format, and asks for far more than it is.

Bombs (a kilobyte that unpacks to gigabytes), headers that lie, names that lead elsewhere, code in
the place of data.
"""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

LARGE = (2**16, 10**6, 2**31 - 1, 2**40, 2**63 - 1)
FAR_NAMES = (
    "../../../evil.png", "/etc/evil.png", "~/evil.png", "..", "a/../../b.png", "C:\\evil.png",
    "a\x00b.png", "x" * 3000 + ".png", "\x1b[2J.png", "", ".png", "a//b.png", "=1+1.png",
)  # fmt: skip


class Code:
    """What a pickle runs when it is read: it leaves a file."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (self.mark, "w")


def pickled(mark: str) -> bytes:
    """A pickle that leaves the file `mark` where it is read."""
    return pickle.dumps(Code(mark))


def arrays(rng: random.Random, mark: str) -> bytes:
    """Attention maps whose headers lie, that unpack to far more, or that hold code."""
    way, count = rng.randrange(5), rng.choice(LARGE)
    shape = {"descr": "<f2", "fortran_order": False, "shape": (1, 1, 1, count, 1)}
    header = repr(shape).encode()
    if way == 1:
        header = repr({**shape, "shape": (-1, 10**400)}).encode()
    elif way == 2:
        header = repr({**shape, "descr": "|O"}).encode()
    elif way == 3:
        header = b"(" * rng.choice((50, 5_000)) + header
    body = {2: pickled(mark), 4: b"\x00" * 50_000_000}.get(way, b"\x00" * 64)
    if way == 4:
        header = repr({**shape, "shape": (1, 1, 1, 25_000_000, 1)}).encode()
    one = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as members:
        for name in ("images", "pretrained", "adapted"):
            members.writestr(f"{name}.npy", one)
    return buffer.getvalue()


def tensors(rng: random.Random) -> bytes:
    """Weights whose header is absurdly long, overlaps, or promises what is not there."""
    way, count = rng.randrange(6), rng.choice(LARGE)
    if way == 0:
        return struct.pack("<Q", rng.choice((*LARGE, 2**64 - 1))) + b"{}"
    one: dict[str, Any] = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    name = "vision_model.embeddings.class_embedding"
    held: dict[str, Any] = {
        1: {name: {**one, "shape": [count], "data_offsets": [0, 4 * count]}},
        2: {name: one, "b": {**one, "data_offsets": [4, 12]}},
        3: {name: {**one, "shape": [-1]}},
        4: {name: {**one, "dtype": rng.choice(("F7", "", "F64", "BOOL"))}},
        5: {"__metadata__": {"format": "x" * 100_000}, "../" * 50: one},
    }[way]
    header = json.dumps(held).encode()
    return struct.pack("<Q", len(header)) + header + b"\x00" * 8


@cache
def _repeated(size: int, rows: int) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    values = pa.array([b"\x89PNG" + b"\x00" * size])
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), values)
    buffer = io.BytesIO()
    parquet.write_table(pa.table({"image": column, "label": np.zeros(rows, np.int64)}), buffer)
    return buffer.getvalue()


def table(rng: random.Random) -> bytes:
    """A parquet file of one long value in a dictionary, which thousands of rows name."""
    return _repeated(rng.choice((1_000, 4_000_000)), rng.choice((10, 5_000)))


def picture(rng: random.Random) -> bytes:
    """A PNG of giant sides, or one of whose parts unpacks to far more."""
    sides = (1, 8, 16_000, *LARGE[:3])
    width, height = rng.choice(sides), rng.choice(sides)
    more = b""
    if rng.random() < 0.3:
        more = _chunk(rng.choice((b"iTXt", b"zTXt", b"iCCP")), b"a\x00\x01\x00\x00\x00" + _zeros())
    bits, colour = rng.choice(((1, 0), (8, 2), (16, 6), (8, 3)))
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, rng.randrange(2))
    parts = _chunk(b"IHDR", header) + more + _chunk(b"IDAT", _zeros()) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@cache
def _zeros() -> bytes:
    return zlib.compress(b"\x00" * 20_000_000)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def archive(rng: random.Random, content: bytes) -> bytes:
    """A tar of links, devices and names that lead elsewhere, beside an honest picture."""
    buffer = io.BytesIO()
    kinds = (tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE,
             tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE, tarfile.CONTTYPE)  # fmt: skip
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in rng.sample(FAR_NAMES, 3):
            info = tarfile.TarInfo(name.replace("\x00", "") or "x.png")
            info.type, info.linkname = (
                rng.choice(kinds),
                rng.choice(("/etc/passwd", "../x", "a.png")),
            )
            tar.addfile(info)
        for name, inner in (("a.png", content), ("a.cls", b"1")):
            info = tarfile.TarInfo(name)
            info.size = len(inner)
            tar.addfile(info, io.BytesIO(inner))
    packed = bytearray(buffer.getvalue())
    if rng.random() < 0.3:  # a size of terabytes, in the base-256 of GNU, with its checksum
        packed[124:136] = b"\x80" + rng.choice(LARGE).to_bytes(11, "big")
        packed[148:156] = b" " * 8
        packed[148:156] = f"{sum(packed[:512]):06o}\0 ".encode()
    return bytes(packed)


def rows(rng: random.Random) -> bytes:
    """A list of images whose paths lead elsewhere and whose labels are formulas and markup."""
    labels = ("=HYPERLINK(1)", "@SUM(1)", "+1+1", "-2+3", "[bold]x[/bold]", "\x1b[31mred",
              "a" * 9000, "\u202egpj", "../..", "", "nan", "1e999", "9" * 400)  # fmt: skip
    lines = ["path,label"]
    for number in range(rng.randint(1, 6)):
        path = rng.choice((*FAR_NAMES, "/dev/zero", f"{number % 4}.png", f"{number % 4}.png"))
        lines.append(f'"{path}","{rng.choice(labels)}"')
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")
