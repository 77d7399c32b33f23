"""The old place of the conversion of open_clip's files."""

from __future__ import annotations

from typing import Any

from driftscope.deprecation import renamed
from driftscope.sources import open_clip


def __getattr__(name: str) -> Any:
    """What was imported from here, from where it is now."""
    if name not in ("OPEN_CLIP_NAMES", "convert_open_clip", "load_open_clip"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    renamed(f"driftscope.models.open_clip_convert.{name}", f"driftscope.sources.open_clip.{name}")
    return getattr(open_clip, name)
