"""ViT: an image tower with a CLS token and no text tower."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from driftscope.backbones.base import ATTENTION_TARGETS, HALF_PIXELS, Backbone


class Vit(Backbone):
    """transformers' ViTModel, without its pooler: what ViT and DINO are classified by is the CLS
    token behind the last norm.
    """

    family = "ViT"
    classes: ClassVar[Mapping[str, str]] = {"vit": "ViTModel"}
    load_options: ClassVar[Mapping[str, bool]] = {"add_pooling_layer": False}
    usual_pixels = HALF_PIXELS
    processors: ClassVar[Mapping[str, Mapping[str, Any]]] = {"ViT": {}, "DeiT": {}, "Beit": {}}
    towers: ClassVar[Mapping[str, str]] = {"ViTModel": "layers"}
    adapter_targets = ATTENTION_TARGETS
    idle_names = ("vision_model.pooler.", "vision_model.embeddings.mask_token")
