"""CLIP: two towers, an image embedding made of the CLS token, a projection each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import MethodType, SimpleNamespace
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional

from driftscope.backbones.base import SELF_ATTN_TARGETS, Backbone
from driftscope.errors import ModelError

POOLS_AT_HIGHEST = 2
"""The `eos_token_id` by which transformers' text tower pools at the token of the highest number."""


class Clip(Backbone):
    """transformers' CLIPModel, or its image tower by itself."""

    family = "CLIP"
    whole = "CLIPModel"
    classes: ClassVar[Mapping[str, str]] = {
        "clip": "CLIPModel",
        "clip_vision_model": "CLIPVisionModelWithProjection",
    }
    towers: ClassVar[Mapping[str, str]] = {"CLIPVisionModel": "encoder.layers"}
    trained_alone: ClassVar[tuple[str, ...]] = ("CLIPVisionModelWithProjection", "CLIPVisionModel")

    positions_name = "vision_model.embeddings.position_embedding.weight"
    blocks_name = "vision_model.encoder.layers"
    final_norm_name = "vision_model.post_layernorm"
    projection_name = "visual_projection"
    text_prefix = "text_"
    adapter_targets = SELF_ATTN_TARGETS

    def embed_images(self, module: nn.Module, pixel_values: Tensor) -> Tensor:
        """Of a tower by itself what its own projection gives; without one, the pooled CLS token."""
        run: Any = getattr(module, "get_image_features", module)
        seen = run(pixel_values=pixel_values)
        projected: Tensor | None = getattr(seen, "image_embeds", None)
        pooled: Tensor = seen.pooler_output if projected is None else projected
        return pooled

    def end_of_text(self, config: Any) -> int | None:
        """By its configuration. A 2 means the token of the highest number, which every text has.

        Raises:
            ModelError: the configuration names no single token.
        """
        number = config.text_config.eos_token_id
        return None if number == POOLS_AT_HIGHEST else token_number(number)

    def class_of(self, config: Any) -> str:
        """Of a tower by itself the class that it was saved from: with its projection or without."""
        known = [name for name in config.architectures or () if name in self.trained_alone]
        return known[0] if known else super().class_of(config)

    def image_facts(self, config: Any) -> dict[str, object]:
        """Also what is pooled, which is another thing in `mean_pooled`."""
        pools = getattr(config, "pools", "the CLS token")
        return {**super().image_facts(config), "what the image tower pools": pools}

    def text_facts(self, config: Any) -> dict[str, object]:
        """Also the token that is pooled: of a configuration that says 2, the highest."""
        text = getattr(config, "text_config", None)
        if text is None:
            return {}
        pooled = text.vocab_size - 1 if text.eos_token_id == POOLS_AT_HIGHEST else text.eos_token_id
        return {**super().text_facts(config), "the token that the text tower pools at": pooled}

    def embedding_dim(self, plain: Any) -> int:
        """Of a tower without a projection its width."""
        projection = getattr(plain, str(self.projection_name), None)
        config = self.vision_config(plain.config)
        return int(config.hidden_size if projection is None else plain.config.projection_dim)

    def for_embedding_alone(self, plain: Any) -> AbstractContextManager[None]:
        """The last block is computed for the CLS token alone."""
        return last_block_for_cls(getattr(plain, "vision_model", plain))

    def tower_with_projection(self, tower: nn.Module, projection: nn.Module | None) -> nn.Module:
        """The tower behind the call that a CLIPModel embeds images by."""
        return _ImageTowerOnly(tower, projection)


def token_number(number: object) -> int:
    """The `eos_token_id` of a configuration.

    Raises:
        ModelError: it is no single token.
    """
    if not isinstance(number, int):
        raise ModelError(
            f"the text tower pools at its eos_token_id, which is {number!r}; one number is right"
        )
    return number


class _ImageTowerOnly(nn.Module):
    """An image tower that is trained alone, with what of a CLIPModel embedding images asks for."""

    def __init__(self, tower: nn.Module, projection: nn.Module | None) -> None:
        super().__init__()
        self.tower = tower
        if not hasattr(tower, "visual_projection") and projection is not None:
            self.visual_projection = projection

    @property
    def vision_model(self) -> nn.Module:
        """The tower without a projection; no second place for it among the submodules."""
        tower: nn.Module = getattr(self.tower, "vision_model", self.tower)
        return tower

    def get_image_features(self, pixel_values: Tensor) -> SimpleNamespace:
        seen = self.tower(pixel_values=pixel_values)
        embeddings = getattr(seen, "image_embeds", None)
        if embeddings is None:
            pooled, projection = seen.pooler_output, getattr(self, "visual_projection", None)
            if projection is None:  # nor has the pretrained one
                embeddings = pooled
            elif (
                type(projection) is nn.Linear
                and projection.bias is None
                and _acts_as_its_class(projection)
            ):
                # the pretrained one may be on another device, or of another precision
                embeddings = functional.linear(pooled, projection.weight.to(pooled))
            else:
                embeddings = projection(pooled)
        return SimpleNamespace(pooler_output=embeddings)


# The image tower's last block, computed for the one token that is used of it. An embedding is made
# of the CLS token alone. So of the last block, keys and values are needed of every token, but
# query, output projection and MLP of one. Embedding and gradients are the same to rounding; ten
# twelfths of that block's matrix products are not made.


@contextmanager
def last_block_for_cls(vision_model: Any) -> Iterator[None]:
    """Inside, the tower's last block gives the CLS token alone: `[image, 1, dim]`.

    The block is left as it is where it, or a part of it, is not what transformers made: of another
    class, with a forward of its own, or with hooks that may change what it gives. So it is under
    gradient checkpointing, too, which runs it once more after the context has ended.

    Args:
        vision_model: the `CLIPVisionModel` of a CLIPModel, with adapter layers or without.
    """
    block = vision_model.encoder.layers[-1]
    if not _is_plain(block) or block.gradient_checkpointing:
        yield
        return
    block.forward = MethodType(_forward, block)
    try:
        yield
    finally:
        del block.forward


_BLOCKS: Mapping[str, str] = {
    "CLIPEncoderLayer": "CLIPAttention",
    "MetaClip2EncoderLayer": "MetaClip2Attention",
    "ChineseCLIPVisionLayer": "ChineseCLIPVisionAttention",
    "AltCLIPEncoderLayer": "AltCLIPAttention",
}
"""Blocks that compute what CLIP's do -> their attention."""
_KNOWN = ("torch", "transformers", "peft", "loralib", "bitsandbytes", "driftscope")
"""Whose linear layers, norms and MLPs treat every token by itself."""
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def _is_plain(block: Any) -> bool:
    """Whether a block computes for the first token what `_forward` computes."""
    attention = type(getattr(block, "self_attn", None)).__name__
    is_known = _BLOCKS.get(type(block).__name__) == attention
    return is_known and all(_acts_as_its_class(part) for part in block.modules())


def _acts_as_its_class(module: nn.Module) -> bool:
    """Whether a module computes what its library wrote, with no hook that somebody else put on."""
    hooks = (hook for kind in _HOOKS for hook in vars(module).get(kind, {}).values())
    makers = (_maker(one) for one in (type(module).forward, *hooks))
    return "forward" not in vars(module) and all(one in _KNOWN for one in makers)


def _maker(of: Any) -> str:
    """The package that a function, or the class of an object that is called, was written in."""
    written = of if isinstance(getattr(of, "__module__", None), str) else type(of)
    return str(written.__module__).partition(".")[0]


def _forward(
    block: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
) -> Tensor:
    """What CLIPEncoderLayer computes, for the first token."""
    tokens = block.layer_norm1(hidden_states)
    cls = hidden_states[:, :1] + _attended(block.self_attn, tokens, attention_mask, **kwargs)
    changed: Tensor = cls + block.mlp(block.layer_norm2(cls))
    return changed


def _attended(
    attention: Any, tokens: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> Tensor:
    """What CLIPAttention computes, for the first token's query."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
    from transformers.models.clip.modeling_clip import eager_attention_forward

    def per_head(projection: nn.Module, of: Tensor) -> Tensor:
        projected: Tensor = projection(of)
        return projected.view(*of.shape[:-1], -1, attention.head_dim).transpose(1, 2)

    # contiguous, for of a slice torch multiplies in another way where the weight takes no gradient,
    # and a frozen encoder would differ from the same encoder in its last bits
    cls = tokens[:, :1].contiguous()
    function = ALL_ATTENTION_FUNCTIONS.get_interface(
        attention.config._attn_implementation, eager_attention_forward
    )
    found, _ = function(
        attention,
        per_head(attention.q_proj, cls),
        per_head(attention.k_proj, tokens),
        per_head(attention.v_proj, tokens),
        attention_mask,
        scaling=attention.scale,
        dropout=attention.dropout if attention.training else 0.0,
        **kwargs,
    )
    output: Tensor = attention.out_proj(found.flatten(2))
    return output
