"""The note beside adapted weights: what they were adapted from, by name and fingerprint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.weights import encoder_fingerprint
from driftscope.errors import ModelError, one_line
from driftscope.files import read_bytes, write_whole

ORIGIN_FILE = "adapted.json"
BASE_KEY = "driftscope_base_fingerprint"
"""Of the configuration of a plain folder that driftscope wrote: what its model was made from."""


def note_origin(folder: Path, base: str, base_fingerprint: str) -> None:
    """Writes what the weights in a folder were adapted from."""
    origin = {"base": base, "base_fingerprint": base_fingerprint}
    write_whole(folder / ORIGIN_FILE, json.dumps(origin, indent=1).encode())


def noted(folder: Path, key: str) -> str:
    """What the note says.

    Raises:
        ModelError: the note is damaged.
    """
    value = read_json(folder / ORIGIN_FILE).get(key)
    if not isinstance(value, str):
        raise ModelError(f"{folder / ORIGIN_FILE} is damaged: it has no {key!r}")
    return value


def checked_base(folder: Path, name: str, base: VisionLanguageModel) -> str:
    """The base's fingerprint, which must be the noted one where there is a note.

    Raises:
        ModelError: the base is another than when the weights were saved.
    """
    found = encoder_fingerprint(base)
    if not (folder / ORIGIN_FILE).exists():
        return found
    if (expected := noted(folder, "base_fingerprint")) != found:
        raise ModelError(
            f"{name} was adapted from a model with fingerprint {expected}, but its base "
            f"{base.source} now has {found}: the base differs"
        )
    return found


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        content = from_json(read_bytes(path))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {one_line(error)}") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} cannot be read: it holds no JSON object")
    return content
