"""MetaCLIP 2: CLIP with a text tower for many languages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from driftscope.backbones.clip import Clip


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
