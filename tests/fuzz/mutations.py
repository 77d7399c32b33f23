"""How a whole file becomes a damaged one: by bytes, by lines, or by values."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

HOSTILE: tuple[Any, ...] = (
    None, True, [], {}, "", "x", -1, 0, 1e308, -1e308, 10**400, float("nan"), float("inf"), 2**63,
    "9" * 5000, "a" * 3000, "../../etc/passwd", "~nobody/x", "/dev/zero", "\ud83d", "\x00", "\r\n",
    "=HYPERLINK(1)", "</script><script>", "{}", "%s%n", "(a+)+$", [1], [[1, 2], [3]],
    {"kind": "lora"}, {"a": {"b": {}}}, [None], "mini", "1e-3", "é" * 50, "‮",
)  # fmt: skip
_TOKENS = (
    b"&a", b"*a", b"!!python/object:os.system ", b"!!binary ", b"<<: *a\n", b"[" * 40, b"{" * 40,
    b"- " * 200, b"\t", b"\x00", b"\xff\xfe", b"\xed\xa0\xbd", b"NaN", b"Infinity", b"1e999",
    b"9" * 5000, b'"', b"'", b"---\n", b"...\n", b"#", b": ", b"\xef\xbb\xbf", b"2026-02-30", b"0x",
)  # fmt: skip


def damaged_bytes(content: bytes, rng: random.Random) -> bytes:
    """One to four of: bytes changed, cut, doubled, moved, or a telling token put in."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(data) + 1)
        length = min(len(data) - place, rng.choice((1, 1, 2, 8, 64, len(data) // 3)))
        what = rng.randrange(7)
        if what == 0 and place < len(data):
            data[place] ^= 1 << rng.randrange(8)
        elif what == 1:
            del data[place : place + length]
        elif what == 2:
            data[place:place] = data[place : place + length]
        elif what == 3:
            data[place:place] = rng.choice(_TOKENS)
        elif what == 4:
            data[place : place + length] = rng.randbytes(length)
        elif what == 5:
            del data[place:]
        else:
            data[place:place] = rng.choice((b"\x00", b"\xff", b"\x7f")) * rng.choice((1, 4, 1000))
    return bytes(data)


def damaged_lines(content: bytes, rng: random.Random) -> bytes:
    """Lines doubled, dropped, swapped or indented otherwise."""
    lines = content.splitlines(keepends=True) or [b""]
    for _ in range(rng.randint(1, 3)):
        place, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        what = rng.randrange(4)
        if what == 0:
            lines.insert(other, lines[place])
        elif what == 1 and len(lines) > 1:
            del lines[place]
        elif what == 2:
            lines[place], lines[other] = lines[other], lines[place]
        else:
            lines[place] = rng.choice((b" ", b"  ", b"\t", b"- ")) + lines[place]
    return b"".join(lines)


def damaged_values(value: Any, rng: random.Random) -> Any:
    """The same with one to three of its parts replaced, removed, renamed, doubled or wrapped."""
    whole = [copy.deepcopy(value)]
    for _ in range(rng.randint(1, 3)):
        places = list(_places(whole))
        holder, key = rng.choice(places)
        what = rng.randrange(6)
        if what <= 1:
            holder[key] = copy.deepcopy(rng.choice(HOSTILE))
        elif what == 2 and holder is not whole:
            del holder[key]
        elif what == 3 and isinstance(holder, dict):
            holder[rng.choice(("x", "kind", str(key) + "s", ""))] = holder.pop(key)
        elif what == 4:
            holder[key] = [holder[key]]
        elif isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
            holder[key] = holder[key] * rng.choice((-1, 0, 10, 1e6, 1e-6))
        else:
            holder[key] = copy.deepcopy(rng.choice(places)[0]) if rng.random() < 0.2 else None
    return whole[0]


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every container and key below a value, at most a few of a long list."""
    found: list[tuple[Any, Any]] = []
    keys = value.keys() if isinstance(value, dict) else range(min(len(value), 6))
    for key in keys:
        found.append((value, key))
        if isinstance(value[key], dict | list):
            found += _places(value[key])
    return found


def damaged_json(content: bytes, rng: random.Random) -> bytes:
    """A JSON file of other values, or of other bytes."""
    if rng.random() < 0.4:
        return damaged_bytes(content, rng)
    return json.dumps(damaged_values(json.loads(content), rng)).encode("utf-8", "surrogatepass")


def one_of(rng: random.Random, *ways: Callable[[bytes, random.Random], bytes]) -> Any:
    """One of several ways to damage a file."""
    return rng.choice(ways)
