"""How many scans a JPEG has: a few bytes make one, and each is a pass over the whole picture."""

from __future__ import annotations

import re

_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
"""As decoders look for one: past all other bytes, and not what stands within coded data."""
_ALONE = b"\x01\xd8"
_END, _SCAN = b"\xd9", b"\xda"


def num_scans(data: bytes) -> int:
    """The scans of a JPEG's first picture."""
    at = count = 0
    while (found := _MARKER.search(data, at)) and found[1] != _END:
        at = found.end()
        if found[1] not in _ALONE:
            at += int.from_bytes(data[at : at + 2])
        count += found[1] == _SCAN
    return count
