"""DINOv2, with registers or without: positions are interpolated to any image size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from driftscope.backbones.base import Backbone


class Dinov2(Backbone):
    """transformers' Dinov2Model and Dinov2WithRegistersModel, read as bare modules."""

    family = "DINOv2"
    model_type = "dinov2"
    towers: ClassVar[Mapping[str, str]] = {
        "Dinov2Model": "encoder.layer",
        "Dinov2WithRegistersModel": "encoder.layer",
    }
    has_fixed_input_size = False
    blocks_name = "vision_model.encoder.layer"
