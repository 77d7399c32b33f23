"""A CLIP that embeds an image as the mean of its patch tokens, open_clip's `pool_type: avg`.

transformers has no such class, so none is loaded or saved; a live open_clip model is read as one.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from driftscope.backbones.clip import Clip
from driftscope.signals.attention import mean_rollout_row


def __getattr__(name: str) -> Any:
    """CLIP's eager attention, which the capture asks for where a tower's class is defined."""
    if name != "eager_attention_forward":
        raise AttributeError(name)
    from transformers.models.clip.modeling_clip import eager_attention_forward

    return eager_attention_forward


class MeanPooledTower(nn.Module):
    """The parts of a CLIPVisionModel, of which the patches and not the CLS token are pooled.

    Args:
        tower: the CLIPVisionModel.
        norm_after: whether the last norm is taken of the mean, and not before it.
    """

    def __init__(self, tower: Any, *, norm_after: bool) -> None:
        super().__init__()
        self.embeddings, self.pre_layrnorm = tower.embeddings, tower.pre_layrnorm
        self.encoder, self.post_layernorm = tower.encoder, tower.post_layernorm
        self.config, self.norm_after = tower.config, norm_after
        # told in the configuration, by which models are compared and cached readings found
        self.config.pools = "the mean of normed patches" if not norm_after else "the patches' mean"

    def forward(self, pixel_values: Tensor, **_named: Any) -> Any:
        """The tokens of the last block, and the pooled one."""
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        embedded = self.pre_layrnorm(self.embeddings(pixel_values))
        tokens = self.encoder(inputs_embeds=embedded).last_hidden_state
        patches = tokens[:, 1:]
        if self.norm_after:
            pooled = self.post_layernorm(patches.mean(dim=1))
        else:
            pooled = self.post_layernorm(patches).mean(dim=1)
        return BaseModelOutputWithPooling(last_hidden_state=tokens, pooler_output=pooled)


def pooled(clip: Any) -> dict[str, Any]:
    """What open_clip's configuration says of a model's pooling; nothing of one of the CLS token."""
    tower = clip.vision_model
    if not isinstance(tower, MeanPooledTower):
        return {}
    return {"pool_type": "avg", "final_ln_after_pool": tower.norm_after}


class MeanPooledClip(Clip):
    """A CLIPModel with a `MeanPooledTower`."""

    family = "mean-pooled CLIP"
    package: ClassVar[str] = "driftscope"
    kept_by: ClassVar[str] = "open_clip"
    """No class of transformers pools so."""
    whole: ClassVar[str | None] = None  # type: ignore[assignment]
    classes: ClassVar[Mapping[str, str]] = {}
    towers: ClassVar[Mapping[str, str]] = {"MeanPooledTower": "encoder.layers"}
    trained_alone: ClassVar[tuple[str, ...]] = ()

    def has_text(self, config: Any) -> bool:
        """It has, as every CLIP."""
        return hasattr(config, "text_config")

    def pooled_row(
        self,
        query: Float[Tensor, "image head token dim"],
        key: Float[Tensor, "image head token dim"],
        scaling: float,
        num_prefix: int,
    ) -> Float[Tensor, "image head patch"]:
        """The mean of the patches' rows: every patch has the same part in the embedding."""
        patches = query[:, :, num_prefix:].float() * scaling
        logits = patches @ key[:, :, num_prefix:].float().transpose(-1, -2)
        return logits.softmax(dim=-1).mean(dim=2)

    def rollout_row(
        self, product: Float[Tensor, "image token token"], num_prefix: int
    ) -> Float[Tensor, "image patch"]:
        """The mean of the patches' rows."""
        return mean_rollout_row(product, num_prefix)

    def block_state(self, tokens: Float[Tensor, "image token dim"]) -> Float[Tensor, "image dim"]:
        """The mean patch token."""
        return tokens[:, 1:].mean(dim=1)

    def for_embedding_alone(self, plain: Any) -> AbstractContextManager[None]:
        """All tokens are needed."""
        del plain
        return nullcontext()
