"""MetaCLIP 2: CLIP with a text tower for many languages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from driftscope.backbones.clip import Clip, token_number


class MetaClip2(Clip):
    """transformers' MetaClip2Model, or its image tower by itself."""

    family = "MetaCLIP 2"
    whole = "MetaClip2Model"
    classes: ClassVar[Mapping[str, str]] = {
        "metaclip_2": "MetaClip2Model",
        "metaclip_2_vision_model": "MetaClip2VisionModelWithProjection",
    }
    towers: ClassVar[Mapping[str, str]] = {"MetaClip2VisionModel": "encoder.layers"}
    trained_alone: ClassVar[tuple[str, ...]] = (
        "MetaClip2VisionModelWithProjection",
        "MetaClip2VisionModel",
    )

    def end_of_text(self, config: Any) -> int:
        """A 2 is the token of that number here."""
        return token_number(config.text_config.eos_token_id)
