"""ViT: an image tower with a CLS token and no text tower."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from driftscope.backbones.base import Backbone


class Vit(Backbone):
    """transformers' ViTModel, read as a bare module."""

    family = "ViT"
    model_type = "vit"
    towers: ClassVar[Mapping[str, str]] = {"ViTModel": "layers"}
