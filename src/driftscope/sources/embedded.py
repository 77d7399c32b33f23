"""The models that come with driftscope."""

from __future__ import annotations

from pathlib import Path

from driftscope.backbones.model import VisionLanguageModel
from driftscope.sources.form import Beside
from driftscope.sources.hub import load_hub_layout
from driftscope.suites import BROUGHT_MODELS

MINI = BROUGHT_MODELS[0]
EMBEDDED = {name: Path(__file__).parent / name.replace("-", "_") for name in BROUGHT_MODELS}
"""Name -> folder: one with 49 patch tokens, one with 16."""


def recognises(name: str) -> bool:
    """Whether a model of that name comes with driftscope."""
    return name in EMBEDDED


def load(name: str, _beside: Beside) -> VisionLanguageModel:
    """The embedded model of that name."""
    return load_hub_layout(EMBEDDED[name], name)
