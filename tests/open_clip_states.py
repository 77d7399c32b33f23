"""A CLIPModel's weights by open_clip's names, written out by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

VISION_PARTS = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",
    "ln_pre.bias": "pre_layrnorm.bias",
    "ln_post.weight": "post_layernorm.weight",
    "ln_post.bias": "post_layernorm.bias",
}
_TEXT_PARTS = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}


def open_clip_state_of(model: Any) -> dict[str, Tensor]:
    """The state dict that open_clip would have of the same model."""
    state = model.state_dict()
    found = {
        "logit_scale": state["logit_scale"],
        "visual.proj": state["visual_projection.weight"].T,
        "text_projection": state["text_projection.weight"].T,
    }
    towers = (("visual.", "vision_model.", VISION_PARTS), ("", "text_model.", _TEXT_PARTS))
    for prefix, tower, parts in towers:
        found |= {prefix + own: state[tower + theirs] for own, theirs in parts.items()}
        for layer in range(len(model.get_submodule(f"{tower}encoder.layers"))):
            block, theirs = (
                f"{prefix}transformer.resblocks.{layer}.",
                f"{tower}encoder.layers.{layer}.",
            )
            for kind in ("weight", "bias"):
                joint = [state[f"{theirs}self_attn.{part}_proj.{kind}"] for part in "qkv"]
                found[f"{block}attn.in_proj_{kind}"] = torch.cat(joint)
                found[f"{block}attn.out_proj.{kind}"] = state[f"{theirs}self_attn.out_proj.{kind}"]
                for own, name in (("ln_1", "layer_norm1"), ("ln_2", "layer_norm2")):
                    found[f"{block}{own}.{kind}"] = state[f"{theirs}{name}.{kind}"]
                for own, name in (("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2")):
                    found[f"{block}{own}.{kind}"] = state[f"{theirs}{name}.{kind}"]
    return {name: tensor.clone().contiguous() for name, tensor in found.items()}
