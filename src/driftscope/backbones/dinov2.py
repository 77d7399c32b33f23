"""DINOv2, with registers or without: positions are interpolated to any image size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from driftscope.backbones.base import ATTENTION_TARGETS, IMAGENET_PIXELS, Backbone


class Dinov2(Backbone):
    """transformers' Dinov2Model and Dinov2WithRegistersModel."""

    family = "DINOv2"
    classes: ClassVar[Mapping[str, str]] = {
        "dinov2": "Dinov2Model",
        "dinov2_with_registers": "Dinov2WithRegistersModel",
    }
    usual_pixels = IMAGENET_PIXELS
    processors: ClassVar[Mapping[str, Mapping[str, Any]]] = {"Bit": {}}
    towers: ClassVar[Mapping[str, str]] = {
        "Dinov2Model": "encoder.layer",
        "Dinov2WithRegistersModel": "encoder.layer",
    }
    has_fixed_input_size = False
    blocks_name = "vision_model.encoder.layer"
    idle_names = ("vision_model.embeddings.mask_token",)
    adapter_targets = ATTENTION_TARGETS
