"""How long the comments of a GIF are: Pillow writes all of them anew for each of their blocks."""

from __future__ import annotations

_EXTENSION, _PICTURE, _COMMENT = 0x21, 0x2C, 0xFE
_HEADER_BYTES = 13


def comment_bytes(data: bytes) -> int:
    """The bytes of comments before a GIF's first picture; 0 of what is no GIF."""
    if data[:4] != b"GIF8" or len(data) < _HEADER_BYTES:
        return 0
    flags = data[10]
    at = _HEADER_BYTES + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
    told = 0
    while at + 1 < len(data) and data[at] != _PICTURE:
        if data[at] != _EXTENSION:  # as Pillow passes over what stands between blocks
            at += 1
            continue
        kind, at = data[at + 1], at + 2
        while at < len(data) and (length := data[at]):
            at += 1 + length
            told += length if kind == _COMMENT else 0
        at += 1
    return told
