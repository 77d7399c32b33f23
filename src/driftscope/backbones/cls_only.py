"""The image tower's last block, computed for the one token that is used of it.

A CLIP embedding is made of the CLS token alone. So of the last block, keys and values are needed
of every token, but query, output projection and MLP of one. Embedding and gradients are the same
to rounding; ten twelfths of that block's matrix products are not made.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

from torch import Tensor, nn


@contextmanager
def last_block_for_cls(vision_model: Any) -> Iterator[None]:
    """Inside, the tower's last block gives the CLS token alone: `[image, 1, dim]`.

    The block is left as it is where something else has put itself in its place already, and under
    gradient checkpointing, which runs it once more after the context has ended.

    Args:
        vision_model: the `CLIPVisionModel` of a CLIPModel, with adapter layers or without.
    """
    block = vision_model.encoder.layers[-1]
    if "forward" in vars(block) or block.gradient_checkpointing:
        yield
        return
    block.forward = MethodType(_forward, block)
    try:
        yield
    finally:
        del block.forward


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
