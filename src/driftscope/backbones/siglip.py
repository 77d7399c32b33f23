"""SigLIP, and SigLIP 2 of a fixed size: a learnt probe pools the patches, no CLS token does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from driftscope.backbones.base import HALF_PIXELS, SELF_ATTN_TARGETS, Backbone
from driftscope.errors import CaptureError

_NAFLEX = (
    "SigLIP 2 NaFlex cuts every image into patches of its own number, under a mask; what is read "
    "needs one grid. The SigLIP 2 models of a fixed size, such as "
    "google/siglip2-base-patch16-224, are read"
)


class Siglip(Backbone):
    """transformers' SiglipModel, or its image tower by itself.

    The pooled token is the embedding: there is no projection behind it.
    """

    family = "SigLIP"
    whole = "SiglipModel"
    classes: ClassVar[Mapping[str, str]] = {
        "siglip": "SiglipModel",
        "siglip_vision_model": "SiglipVisionModel",
    }
    usual_pixels = HALF_PIXELS
    processors: ClassVar[Mapping[str, Mapping[str, Any]]] = {"Siglip": {}}
    refused: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("siglip2", "siglip2_vision_model", "Siglip2VisionModel"), _NAFLEX
    )
    towers: ClassVar[Mapping[str, str]] = {"SiglipVisionModel": "encoder.layers"}
    trained_alone: ClassVar[tuple[str, ...]] = ("SiglipVisionModel",)

    positions_name = "vision_model.embeddings.position_embedding.weight"
    has_position_of_cls = False
    blocks_name = "vision_model.encoder.layers"
    final_norm_name = "vision_model.post_layernorm"
    pooling_name = "vision_model.head"
    text_prefix = "text_"
    adapter_targets = SELF_ATTN_TARGETS
    pads_texts_to_the_full_length = True

    def num_prefix(self, config: Any) -> int:
        """None: every token is a patch."""
        del config
        return 0

    def block_state(self, tokens: Float[Tensor, "image token dim"]) -> Float[Tensor, "image dim"]:
        """The mean patch token, for want of a token that stands for the image."""
        return tokens.mean(dim=1)

    def probe_attention(self, tower: nn.Module) -> nn.MultiheadAttention | None:
        """The pooling head's; None in a tower that was made without one."""
        head = getattr(tower, "head", None)
        attention: nn.MultiheadAttention | None = getattr(head, "attention", None)
        return attention

    def embed_images(self, module: nn.Module, pixel_values: Tensor) -> Tensor:
        """The pooled token."""
        run: Any = getattr(module, "get_image_features", module)
        pooled: Tensor | None = run(pixel_values=pixel_values).pooler_output
        if pooled is None:
            raise CaptureError(
                "The SigLIP image tower was made without its pooling head (vision_use_head is "
                "false), so it gives no image embedding; give one with the head."
            )
        return pooled

    def prepared_text(self, text: str) -> str:
        """In small letters, as both are trained; SigLIP 2's tokenizer does not see to it."""
        return text.lower()

    def embed_texts(self, module: Any, tokens: Mapping[str, Tensor]) -> Tensor:
        """Without a mask: the model is trained to read the padding, and pools at the last token."""
        return super().embed_texts(module, {"input_ids": tokens["input_ids"]})

    def logit_bias(self, plain: Any) -> Tensor | None:
        """Learnt with the scale, for the sigmoid of every image and text."""
        bias: Tensor = plain.logit_bias
        return bias

    def embedding_dim(self, plain: Any) -> int:
        """The image tower's width."""
        return int(self.vision_config(plain.config).hidden_size)
