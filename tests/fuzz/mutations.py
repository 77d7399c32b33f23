"""How a whole file becomes a damaged one: by bytes, by lines, or by values."""

from __future__ import annotations

import copy
import json
import random
import re
from typing import Any

HOSTILE: tuple[Any, ...] = (
    None, True, [], {}, "", "x", -1, 0, 1e308, -1e308, 10**400, float("nan"), float("inf"), 2**63,
    "9" * 5000, "a" * 3000, "../../etc/passwd", "~nobody/x", "/dev/zero", "\ud83d", "\x00", "\r\n",
    "=HYPERLINK(1)", "</script><script>", "{}", "%s%n", "(a+)+$", [1], [[1, 2], [3]],
    {"kind": "lora"}, {"a": {"b": {}}}, [None], "mini", "1e-3", "é" * 50, "\u202e", -0.0, 5e-324,
    "\x1b[31mred\x1b[0m", "[bold]x[/bold] [link=file:///x]y", "..", "/",
    "e\u0301\u200b" * 99, "=1+1", "@x", "~", "*", "$(x)", "{{7*7}}", "\u2028", "\x9b31m", "🟥" * 70,
    [[[[[[[[]]]]]]]] * 9,
)  # fmt: skip
_DEEP = (30, 900, 100_000)
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
    """A JSON file of other values, of other bytes, or of what only its text can say."""
    way = rng.random()
    if way < 0.3:
        return damaged_bytes(content, rng)
    if way < 0.5:
        return _damaged_members(content, rng)
    return json.dumps(damaged_values(json.loads(content), rng)).encode("utf-8", "surrogatepass")


def _damaged_members(content: bytes, rng: random.Random) -> bytes:
    """A member twice, nested without end, or of a value that is no JSON, in the text itself."""
    members = list(_MEMBER.finditer(content))
    if not members:
        return damaged_bytes(content, rng)
    one, deep = rng.choice(members), rng.choice(_DEEP)
    values = (
        one["value"], b"NaN", b"-Infinity", b"1e999", b"-" + b"9" * 5000, b"[" * deep + b"]" * deep,
        b'{"a":' * deep + b"1" + b"}" * deep, b'"\\ud83d"', b"1.7976931348623157e308", b"0.1e-400",
    )  # fmt: skip
    other = one["name"] + b": " + rng.choice(values)
    is_second = rng.random() < 0.5
    put = (one[0], b", ", other) if is_second else (other,)
    return content[: one.start()] + b"".join(put) + content[one.end() :]


_MEMBER = re.compile(
    rb'(?P<name>"[^"\\\n]{1,60}"): (?P<value>-?[0-9][0-9.eE+-]*|"[^"\\\n]*"|true|null)'
)


def damaged_yaml(content: bytes, rng: random.Random) -> bytes:
    """YAML with anchors and aliases: values shared, merged, standing on themselves, multiplied."""
    lines = content.splitlines(keepends=True)
    places = [at for at, line in enumerate(lines) if re.match(rb"^\s*[a-z_]+: \S", line)]
    way = rng.randrange(4)
    if way == 0:  # a value that another line repeats
        first, second = sorted(rng.sample(places, 2))
        lines[first] = lines[first].replace(b": ", b": &one ", 1)
        lines[second] = lines[second].split(b":")[0] + b": *one\n"
    elif way == 1:  # a bomb: each level names the one below several times
        levels, wide = rng.choice((2, 9, 30)), rng.choice((2, 9))
        bomb = b"x0: &x0 [1, 2]\n" + b"".join(
            b"x%d: &x%d [%s]\n" % (at, at, b", ".join([b"*x%d" % (at - 1)] * wide))
            for at in range(1, levels)
        )
        lines.insert(0, bomb)
        at = rng.choice(places) + 1
        lines[at] = lines[at].split(b":")[0] + b": *x%d\n" % (levels - 1)
    elif way == 2:  # what stands on itself
        at = rng.choice(places)
        lines[at] = lines[at].split(b":")[0] + rng.choice((b": &i [*i]\n", b": &i {a: *i}\n"))
    else:  # merged, or given twice
        at = rng.choice(places)
        lines.insert(at, rng.choice((lines[at], b"<<: &m {<<: *m}\n", b"<<: {seed: 1, x: 2}\n")))
    return b"".join(lines)
