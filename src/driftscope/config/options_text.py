"""A run's further options as one text that a table holds, and read back from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

DEFAULT = "default"
"""The text of a run without further options."""

UNKNOWN = "unknown"
"""What stands for the options of a run that does not tell them, such as an imported one."""

_JSON_STARTS = ('"', "[", "{")
_BETWEEN = ", "


def options_text(options: Mapping[str, Any]) -> str:
    """Options in words, to be read back by `options_in`.

    A plain text is written as it is, all else as JSON; so is a text that would be taken for more.

    >>> options_text({"train_images": 400, "pool": "my photos"}), options_text({})
    ('train_images 400, pool my photos', 'default')
    >>> options_text({"pool": "cats, dogs and mice"})
    'pool "cats, dogs and mice"'
    """
    return _BETWEEN.join(f"{name} {_value_text(one)}" for name, one in options.items()) or DEFAULT


def options_in(text: str) -> dict[str, str]:
    """The options that a text of `options_text` names, each with its value as it is written.

    >>> options_in('train_images 400, templates ["a {}, a big pet"]')
    {'train_images': '400', 'templates': '["a {}, a big pet"]'}
    >>> options_in("default")
    {}
    """
    found = {}
    while " " in text:
        name, _, rest = text.partition(" ")
        end = _end_of_value(rest)
        found[name] = rest[:end]
        text = rest[end:].removeprefix(_BETWEEN)
    return found


def _value_text(value: Any) -> str:
    is_plain = isinstance(value, str) and _BETWEEN not in value and value[:1] not in _JSON_STARTS
    return str(value) if is_plain else json.dumps(value, ensure_ascii=False)


def _end_of_value(rest: str) -> int:
    if rest.startswith(_JSON_STARTS):
        try:
            return json.JSONDecoder().raw_decode(rest)[1]
        except json.JSONDecodeError:
            pass  # of a version that wrote every text as it is
    return len(rest.partition(_BETWEEN)[0])
