"""The old package of models, which is now `backbones` and `sources`; its names go on working."""

from __future__ import annotations

from typing import Any

from driftscope import sources
from driftscope.deprecation import renamed

__file__ = sources.__file__  # beside which the embedded models lie
_OLD = ("EMBEDDED", "MINI", "default_device", "load", "usable_device")


def __getattr__(name: str) -> Any:
    """What was imported from here, from where it is now."""
    if name not in _OLD:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    renamed(f"driftscope.models.{name}", f"driftscope.sources.{name}")
    from driftscope.sources import embedded

    return getattr(embedded if name.isupper() else sources, name)
