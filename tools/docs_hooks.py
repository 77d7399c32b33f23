"""What MkDocs does to a page beside its theme (`hooks` in mkdocs.yml)."""

from __future__ import annotations

import re

_BLOCK = re.compile(r"(<pre.*?</pre>)", re.DOTALL)
_INLINE = re.compile(r"(?<=<code>)[^<]*(?=</code>)")
_OPTION = re.compile(r"(?<!\S)--?[a-z][\w-]*")


def on_page_content(html: str, **_: object) -> str:
    """Keeps options in one piece: browsers break lines behind a hyphen, also within `--out`."""
    parts = _BLOCK.split(html)  # every second one is a block of code, which is pushed sideways
    parts[::2] = [_INLINE.sub(_unbroken_options, part) for part in parts[::2]]
    return "".join(parts)


def _unbroken_options(found: re.Match[str]) -> str:
    return _OPTION.sub(r'<span class="unbroken">\g<0></span>', found[0])
