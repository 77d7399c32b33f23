"""DINOv3: registers and rotary positions, which suit any image size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from driftscope.backbones.base import ATTENTION_TARGETS, IMAGENET_PIXELS, Backbone


class Dinov3(Backbone):
    """transformers' DINOv3ViTModel; its ConvNeXt sister has no attention to read."""

    family = "DINOv3"
    classes: ClassVar[Mapping[str, str]] = {"dinov3_vit": "DINOv3ViTModel"}
    usual_pixels = IMAGENET_PIXELS
    processors: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "DINOv3ViT": {
            "size": {"height": 224, "width": 224},
            "default_to_square": True,
            "resample": 2,
            "image_mean": IMAGENET_PIXELS["mean"],
            "image_std": IMAGENET_PIXELS["std"],
        }
    }
    towers: ClassVar[Mapping[str, str]] = {"DINOv3ViTModel": "model.layer"}
    has_fixed_input_size = False
    positions_name = None  # they are turned, not learnt
    blocks_name = "vision_model.model.layer"
    idle_names = ("vision_model.embeddings.mask_token",)
    final_norm_name = "vision_model.norm"
    adapter_targets: ClassVar[Mapping[str, str]] = {
        **ATTENTION_TARGETS,
        "fc1": "mlp.up_proj",
        "fc2": "mlp.down_proj",
    }

    def image_facts(self, config: Any) -> dict[str, object]:
        """Also what the rotary positions turn by."""
        facts = super().image_facts(config)
        return facts | {"the image tower's base of rotary positions": config.rope_theta}
