"""Class names as sentences for the text tower."""

from __future__ import annotations

from collections.abc import Sequence

PHOTO_TEMPLATE = "a photo of a {}"
"""The paper's only prompt (4.4)."""


def class_prompts(class_names: Sequence[str], template: str = PHOTO_TEMPLATE) -> list[str]:
    """One sentence a class; underscores are spaces."""
    return [template.format(name.replace("_", " ").strip()) for name in class_names]
