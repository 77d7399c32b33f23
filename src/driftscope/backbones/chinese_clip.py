"""Chinese-CLIP: CLIP's image tower beside a Chinese BERT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from driftscope.backbones.clip import Clip


class ChineseClip(Clip):
    """transformers' ChineseCLIPModel, or its image tower by itself."""

    family = "Chinese-CLIP"
    whole = "ChineseCLIPModel"
    classes: ClassVar[Mapping[str, str]] = {
        "chinese_clip": "ChineseCLIPModel",
        "chinese_clip_vision_model": "ChineseCLIPVisionModel",
    }
    processors: ClassVar[Mapping[str, Mapping[str, Any]]] = {"ChineseCLIP": {}}
    towers: ClassVar[Mapping[str, str]] = {"ChineseCLIPVisionModel": "encoder.layers"}
    trained_alone: ClassVar[tuple[str, ...]] = ("ChineseCLIPVisionModel",)

    def end_of_text(self, config: Any) -> None:
        """Texts are pooled at their first token."""
