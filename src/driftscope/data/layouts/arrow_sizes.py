"""What a packed Arrow file would unpack to, read from its messages before anything is unpacked.

pyarrow unpacks whole batches and does not say their sizes. A message tells where its buffers lie
(Arrow's `Message.fbs`, in the binary form of FlatBuffers), and a packed buffer begins with its
size.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from driftscope.data.encoded import printable
from driftscope.errors import DataError
from driftscope.limits import IMAGE_ARRAYS_MB, IMAGE_MB

FORM_OF_FILES = b"ARROW1"
"""What begins an Arrow file that is no stream; a stream follows it."""
_MOST_SHRUNK = 100
_HEADER, _DATA, _BUFFERS, _COMPRESSION = 2, 1, 2, 3
"""Fields of a message, of a batch of a dictionary, and of a batch of rows, by their numbers."""


def refuse_packed(file: Path) -> None:
    """Raises `DataError` where a file would unpack to more than images do, or than is taken."""
    import pyarrow as pa

    with pa.memory_map(str(file)) as source:
        if source.read(len(FORM_OF_FILES)) != FORM_OF_FILES:
            source.seek(0)
        else:
            source.seek(8)
        unpacked = 0
        for message in pa.ipc.MessageReader.open_stream(source):
            if message.type in ("record batch", "dictionary"):
                metadata = memoryview(message.metadata)
                unpacked += sum(_sizes(metadata, message.type, memoryview(message.body)))
    size = file.stat().st_size
    if unpacked > min(IMAGE_ARRAYS_MB.num_bytes, max(IMAGE_MB.num_bytes, _MOST_SHRUNK * size)):
        raise DataError(
            f"cannot read {printable(str(file))}: it would unpack from {size / 1e6:,.1f} to "
            f"{unpacked / 1e6:,.0f} MB, which images do not; {IMAGE_ARRAYS_MB.sentence}"
        )


def _sizes(metadata: memoryview, kind: str, body: memoryview) -> Iterator[int]:
    """The unpacked sizes of a batch's packed buffers; none of a batch that is not packed."""
    (root,) = struct.unpack_from("<I", metadata, 0)
    batch = _table_at(metadata, root, _HEADER)
    if kind == "dictionary":
        batch = _table_at(metadata, batch, _DATA)
    if not _place(metadata, batch, _COMPRESSION):
        return
    buffers = _table_at(metadata, batch, _BUFFERS)
    (count,) = struct.unpack_from("<I", metadata, buffers)
    for number in range(count):
        start, length = struct.unpack_from("<qq", metadata, buffers + 4 + 16 * number)
        if length >= 8:
            yield max(0, struct.unpack_from("<q", body, start)[0])  # -1 is one that is not packed


def _place(metadata: memoryview, table: int, field: int) -> int:
    """Where a table's field lies; 0 where it has none of that number."""
    (back,) = struct.unpack_from("<i", metadata, table)
    (size,) = struct.unpack_from("<H", metadata, table - back)
    if 4 + 2 * field >= size:
        return 0
    (offset,) = struct.unpack_from("<H", metadata, table - back + 4 + 2 * field)
    return table + offset if offset else 0


def _table_at(metadata: memoryview, table: int, field: int) -> int:
    """Where what a field refers to lies."""
    place = _place(metadata, table, field)
    (offset,) = struct.unpack_from("<I", metadata, place)
    return place + int(offset)
