"""MATLAB's files of form 5 (`save -v7`, `-v6`): arrays, texts, cells and structs.

scipy's reader ends the process on some damaged files, so this one is our own: every length is
checked before anything is read. The form is MathWorks' "MAT-File Format", level 5.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from driftscope.files import read_bytes
from driftscope.limits import IMAGE_ARRAYS_MB

_HEADER_BYTES = 128
_KINDS = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
"""How numbers are stored."""
_TEXTS = {16: "utf-8", 17: "utf-16", 18: "utf-32"}
_MATRIX, _PACKED = 14, 15
_CELL, _STRUCT, _OBJECT, _TEXT = 1, 2, 3, 4
_CLASSES = {
    6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8",
}  # fmt: skip
"""What kind of numbers an array is of."""
_DEEPEST = 8
"""Cells in cells."""


def read_mat(file: Path) -> dict[str, Any]:
    """The variables of a file.

    Numbers are arrays without dimensions of one, texts `str`, cells lists, structs lists of
    dictionaries; all else (complex and sparse numbers, functions) is None.

    Raises:
        OSError: it cannot be read, or is larger than is taken.
        ValueError: it is damaged, or of another form.
    """
    data = read_bytes(file, IMAGE_ARRAYS_MB)
    version = {b"\0\1IM": "<", b"\1\0MI": ">", b"\0\2IM": "", b"\2\0MI": ""}
    order = version.get(data[124:128])
    if order == "":
        raise ValueError(f"{file.name} is of MATLAB's form 7.3; save it with -v7")
    if order is None:
        raise ValueError(f"{file.name} is no file of MATLAB's form 5; save it with -v7")
    try:
        return dict(_Reader(order).variables(data[_HEADER_BYTES:]))
    except (struct.error, zlib.error, UnicodeDecodeError, IndexError) as error:
        raise ValueError(f"{file.name} is damaged ({error}); fetch it again") from None


class _Reader:
    """Reads elements of one order of bytes."""

    def __init__(self, order: str) -> None:
        self.order = order
        self.left = IMAGE_ARRAYS_MB.num_bytes

    def variables(self, data: bytes) -> Iterator[tuple[str, Any]]:
        for kind, held in self.elements(data):
            if kind == _PACKED:
                yield from self.variables(self._unpacked(held))
            elif kind == _MATRIX:
                yield self.matrix(held, _DEEPEST)

    def elements(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Each element's kind and bytes; short ones lie in their heading."""
        place = 0
        while place + 8 <= len(data):
            kind, size = struct.unpack_from(f"{self.order}II", data, place)
            start = place + 8
            if kind >> 16:
                kind, size, start = kind & 0xFFFF, kind >> 16, place + 4
                place += 8
                if size > place - start:
                    raise IndexError("a short element is too long")
            else:
                place = start + size + (-size % 8 if kind != _PACKED else 0)
            held = data[start : start + size]
            if len(held) < size:
                raise IndexError("it is cut off")
            yield kind, held

    def matrix(self, data: bytes, depth: int) -> tuple[str, Any]:
        """A variable's name and value."""
        if not data:
            return "", np.zeros(0)
        if not depth:
            raise IndexError("its cells lie too deep")
        parts = self.elements(data)
        flags, shape, name = (held for _, held in (next(parts, (0, b"")) for _ in range(3)))
        of_class = struct.unpack_from(f"{self.order}I", flags)[0] & 0xFF
        sizes = np.frombuffer(shape, f"{self.order}i4").tolist()
        if min(sizes, default=0) < 0:
            raise IndexError("an array has a size below 0")
        rest = list(parts)
        if of_class == _CELL:
            value: Any = [self.matrix(held, depth - 1)[1] for _, held in rest]
        elif of_class in (_STRUCT, _OBJECT):
            value = self._structs(rest[of_class == _OBJECT :], depth)
        elif of_class == _TEXT:
            value = self._text(*rest[0], sizes) if rest else ""
        elif of_class in _CLASSES and len(rest) == 1:
            value = self._numbers(*rest[0], sizes).astype(_CLASSES[of_class], copy=False)
        else:
            value = None
        return name.decode("latin-1"), value

    def _structs(self, parts: list[tuple[int, bytes]], depth: int) -> list[dict[str, Any]]:
        """Fields' names of one length, then the fields of one struct after the other."""
        length = struct.unpack_from(f"{self.order}i", parts[0][1])[0]
        if length <= 0:
            raise IndexError("a struct's names have no length")
        joined = parts[1][1]
        names = [
            joined[start : start + length].partition(b"\0")[0].decode("latin-1")
            for start in range(0, len(joined), length)
        ]
        values = [self.matrix(held, depth - 1)[1] for _, held in parts[2:]]
        if not names:
            return []
        if len(values) % len(names):
            raise IndexError("a struct lacks fields")
        starts = range(0, len(values), len(names))
        return [dict(zip(names, values[at : at + len(names)], strict=True)) for at in starts]

    def _text(self, kind: int, held: bytes, sizes: list[int]) -> str | list[str]:
        """A text, or the rows of several, which are stored letter by letter down the rows."""
        if kind in _TEXTS:
            suffix = {"<": "-le", ">": "-be"}[self.order] if kind != 16 else ""
            letters = held.decode(_TEXTS[kind] + suffix, "replace")
        else:
            letters = "".join(map(chr, self._stored(kind, held).tolist()))
        num_rows = sizes[0] if sizes else 1
        return letters if num_rows < 2 else [letters[row::num_rows] for row in range(num_rows)]

    def _numbers(self, kind: int, held: bytes, sizes: list[int]) -> np.ndarray[Any, Any]:
        numbers = self._stored(kind, held)
        if numbers.size != prod(sizes):
            raise IndexError("an array is of another size than it says")
        return numbers.reshape(sizes, order="F").squeeze()

    def _stored(self, kind: int, held: bytes) -> np.ndarray[Any, Any]:
        dtype = np.dtype(f"{self.order}{_KINDS.get(kind, 'V')}")
        if dtype.kind == "V" or len(held) % dtype.itemsize:
            raise IndexError("numbers are stored in a way that is not known")
        return np.frombuffer(held, dtype)

    def _unpacked(self, held: bytes) -> bytes:
        packed = zlib.decompressobj()
        data = packed.decompress(held, self.left + 1)
        self.left -= len(data)
        if self.left < 0:
            raise IndexError(f"it unpacks to more; {IMAGE_ARRAYS_MB.sentence}")
        return data
