"""TIPSv2: two CLS tokens, the second supervised by synthetic captions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from driftscope.backbones.base import ATTENTION_TARGETS, Backbone


class Tipsv2(Backbone):
    """transformers' Tipsv2Model, or its image tower by itself.

    What transformers' configuration calls register tokens are further CLS tokens. All of them are
    read: the rows of the first CLS token's heads, then the second's; at every block the states of
    both, one behind the other. The embedding is the first one's, and so is the rollout's row.
    """

    family = "TIPSv2"
    whole = "Tipsv2Model"
    classes: ClassVar[Mapping[str, str]] = {
        "tipsv2": "Tipsv2Model",
        "tipsv2_vision_model": "Tipsv2VisionModel",
    }
    usual_pixels: ClassVar[Mapping[str, tuple[float, ...]]] = {
        "mean": (0.0,) * 3,
        "std": (1.0,) * 3,
    }
    processors: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "Tipsv2": {
            "size": {"height": 448, "width": 448},
            "default_to_square": True,
            "resample": 2,
            "do_normalize": False,
        }
    }
    towers: ClassVar[Mapping[str, str]] = {"Tipsv2VisionModel": "encoder.layer"}
    trained_alone: ClassVar[tuple[str, ...]] = ("Tipsv2VisionModel",)
    has_fixed_input_size = False

    blocks_name = "vision_model.encoder.layer"
    idle_names = ("vision_model.embeddings.mask_token",)
    text_prefix = "text_"
    adapter_targets = ATTENTION_TARGETS

    def pooled_row(
        self,
        query: Float[Tensor, "image head token dim"],
        key: Float[Tensor, "image head token dim"],
        scaling: float,
        num_prefix: int,
    ) -> Float[Tensor, "image row patch"]:
        """Every CLS token's rows: all heads of the first, then all of the second."""
        own = super().pooled_row
        rows = [own(query[:, :, at:], key, scaling, num_prefix) for at in range(num_prefix)]
        return torch.cat(rows, dim=1)

    def block_state(self, tokens: Float[Tensor, "image token dim"]) -> Float[Tensor, "image dim"]:
        """Both CLS tokens, one behind the other."""
        return tokens[:, :2].flatten(1)

    def embed_images(self, module: nn.Module, pixel_values: Tensor) -> Tensor:
        """The first CLS token behind the last norm; there is no projection."""
        run: Any = getattr(module, "get_image_features", module)
        pooled: Tensor = run(pixel_values=pixel_values).pooler_output
        return pooled

    def logit_scale(self, plain: Any) -> Tensor:
        """One over the temperature."""
        scale: Tensor = 1 / plain.temperature
        return scale

    def text_facts(self, config: Any) -> dict[str, object]:
        """Also how words are scaled before the first block, and pooled behind the last."""
        text = getattr(config, "text_config", None)
        if text is None:
            return {}
        return {
            **super().text_facts(config),
            "the epsilon that the text tower pools with": text.pooling_epsilon,
            "whether the text tower scales words by its width": text.scale_sqrt_depth,
        }

    def embedding_dim(self, plain: Any) -> int:
        """The image tower's width."""
        return int(self.vision_config(plain.config).hidden_size)
