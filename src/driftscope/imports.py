"""The old name of `driftscope.paper.author_records`, which the docs of 0.1 gave."""

from __future__ import annotations

from typing import Any

from driftscope.deprecation import renamed


def __getattr__(name: str) -> Any:
    from driftscope.paper import author_records

    value = getattr(author_records, name)
    renamed(f"driftscope.imports.{name}", f"driftscope.paper.author_records.{name}")
    return value
