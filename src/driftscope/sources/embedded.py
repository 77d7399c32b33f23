"""The models that come with driftscope."""

from __future__ import annotations

from pathlib import Path

from driftscope.backbones.model import VisionLanguageModel
from driftscope.sources.form import Beside
from driftscope.sources.hub import load_hub_layout

MINI = "mini"
EMBEDDED = {
    MINI: Path(__file__).parent / "mini",
    "mini-p14": Path(__file__).parent / "mini_p14",
}
"""Name -> folder: one with 49 patch tokens, one with 16."""


def recognises(name: str) -> bool:
    """Whether a model of that name comes with driftscope."""
    return name in EMBEDDED


def load(name: str, _beside: Beside) -> VisionLanguageModel:
    """The embedded model of that name."""
    return load_hub_layout(EMBEDDED[name], name)
