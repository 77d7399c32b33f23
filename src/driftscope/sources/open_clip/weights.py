"""An open_clip state dict as a transformers CLIPModel's.

open_clip names a model's parts differently, keeps query, key and value of an attention in one
matrix and projections transposed, and does not store activation, heads and epsilon. All else is the
same model, so what comes out gives the same embeddings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from driftscope.backbones.clip import POOLS_AT_HIGHEST
from driftscope.errors import ModelError
from driftscope.sources.open_clip.names import USUAL_HEAD_WIDTH
from driftscope.sources.state_dict import (
    about_extra,
    main_prefix,
    prefixes_of,
    refuse_no_plain_numbers,
    told_of_rounding,
)

if TYPE_CHECKING:
    from transformers import CLIPConfig, CLIPVisionConfig

# Parts of one tower outside its blocks: open_clip's name -> transformers'.
_VISION_PARTS = {
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
_BLOCK_PARTS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_NO_WEIGHTS = {"input_resolution", "context_length", "vocab_size", "attn_mask", "logit_bias"}
"""Facts that the shapes tell as well, a mask, and what shifts all logits of an image alike."""
_ANCHORS = ("visual.conv1.weight", "visual.class_embedding", "visual.positional_embedding")
_TOWER_ANCHORS = ("conv1.weight", "class_embedding", "ln_pre.weight", "ln_post.weight")
_OF_TEXTS = {"text", "token_embedding", "ln_final"}
_ROOTS = ("visual.", "transformer.", "text.", "token_embedding.", "ln_final.", "text_decoder.")


@dataclass(frozen=True)
class TowerFacts:
    """What decides a tower's function and is not in its weights."""

    activation: str
    head_width: int = USUAL_HEAD_WIDTH
    layer_norm_eps: float = 1e-5


def holds(state: Mapping[str, Tensor]) -> bool:
    """Whether tensors are an open_clip ViT's, under whatever prefix."""
    return bool(prefixes_of(state, _ANCHORS[:1]))


def is_tower_alone(state: Mapping[str, Tensor]) -> bool:
    """Whether tensors are an open_clip ViT's image tower without texts, under whatever prefix.

    As `model.visual.state_dict()` gives them.
    """
    has_texts = any(_OF_TEXTS & set(key.split(".")) for key in state)
    most = max(prefixes_of(state, _TOWER_ANCHORS).values(), default=0)
    return most == len(_TOWER_ANCHORS) and not has_texts


def convert_tower(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """An image tower alone by transformers' names; what stands beside it keeps its name.

    Raises:
        ModelError: it has weights that a plain ViT has not, or lacks some.
    """
    prefix, _ = main_prefix(state, _TOWER_ANCHORS, source)
    own = ("proj", "transformer.", *_VISION_PARTS)
    rest = {
        name: one
        for key, one in state.items()
        if key.startswith(prefix) and (name := key.removeprefix(prefix)).startswith(own)
    }
    refuse_no_plain_numbers(rest, source)
    beside = {key: one for key, one in state.items() if key.removeprefix(prefix) not in rest}
    tower = {f"vision_model.{to}": _take(rest, name) for name, to in _VISION_PARTS.items()}
    for layer in range(num_layers(rest, "")):
        block = _take_block(rest, f"transformer.resblocks.{layer}.")
        tower |= {f"vision_model.encoder.layers.{layer}.{name}": one for name, one in block.items()}
    if "proj" in rest:
        tower["visual_projection.weight"] = rest.pop("proj").T.contiguous()
    if rest or (prefix and any(key.startswith(prefix) for key in beside)):
        first = min([*rest, *(key for key in beside if key.startswith(prefix))])
        raise ModelError(
            f"{source} has {first}, which a plain open_clip ViT has not, so it cannot be read as "
            f"a CLIP's image tower; {about_extra(first)}"
        )
    return {**tower, **beside}


def without_prefix(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """The model's weights by open_clip's own names, float32; what is beside them is left.

    Raises:
        ModelError: they are not an open_clip ViT's, or several models'.
    """
    if is_tower_alone(state):
        raise ModelError(
            f"{source} holds an image tower without a text tower; give the file by itself, as the "
            "second model of a comparison, whose first one has the texts"
        )
    if not holds(state):
        if _is_transformers(state):
            raise ModelError(
                f"{source} holds a transformers model's weights and no open_clip ViT; give it "
                "without open_clip:NAME: before it"
            )
        raise ModelError(
            f"{source} holds no open_clip ViT (visual.conv1.weight is missing), which a folder of "
            "open_clip and open_clip:NAME:FILE must"
        )
    if not prefixes_of(state, _ANCHORS[1:2]):
        raise ModelError(
            f"{source} is of an open_clip model whose image tower is no plain ViT "
            f"({_ANCHORS[1]} is missing), so it cannot be converted"
        )
    prefix, _ = main_prefix(state, _ANCHORS, source)
    own = {key.removeprefix(prefix): one for key, one in state.items() if key.startswith(prefix)}
    named = {_plain_name(key): one for key, one in own.items()}
    plain = {key: one for key, one in named.items() if key not in _NO_WEIGHTS}
    refuse_no_plain_numbers(plain, source)
    return {key: one.float() for key, one in plain.items()}


def file_notes(state: Mapping[str, Tensor], source: str) -> tuple[str, ...]:
    """What is to be said of a file: that it holds a moving average, too, or rounded numbers."""
    prefix, averages = main_prefix(state, _ANCHORS, source)
    notes = told_of_rounding((str(one.dtype) for one in state.values()), source)
    if averages:
        notes += (f"of {source} the weights under {prefix!r} are read, not {', '.join(averages)}",)
    return notes


def num_layers(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many blocks the tower with this prefix has."""
    pattern = re.compile(rf"{re.escape(prefix)}transformer\.resblocks\.(\d+)\.")
    found = {int(match.group(1)) for name in state if (match := pattern.match(name))}
    return max(found, default=-1) + 1


def convert_open_clip(
    state: Mapping[str, Tensor],
    vision: TowerFacts,
    text: TowerFacts,
    source: str = "the checkpoint",
) -> tuple[CLIPConfig, dict[str, Tensor]]:
    """The configuration and float32 state dict of the CLIPModel that open_clip weights describe.

    Args:
        state: an open_clip state dict of a plain ViT (with or without the `text.` prefix).
        vision: what the weights of the image tower do not tell.
        text: what those of the text tower do not tell.
        source: how the user knows it.

    Raises:
        ModelError: a tensor is missing, or there is one that a plain ViT has not.
    """
    rest = without_prefix(state, source)
    config = _config_of(rest, vision, text)
    converted = {
        "logit_scale": _take(rest, "logit_scale").reshape(()),
        "visual_projection.weight": _take(rest, "visual.proj").T.contiguous(),
        "text_projection.weight": _take(rest, "text_projection").T.contiguous(),
    }
    for prefix, target, parts, layers in (
        ("visual.", "vision_model.", _VISION_PARTS, config.vision_config.num_hidden_layers),
        ("", "text_model.", _TEXT_PARTS, config.text_config.num_hidden_layers),
    ):
        converted |= {target + to: _take(rest, prefix + name) for name, to in parts.items()}
        for layer in range(layers):
            block = _take_block(rest, f"{prefix}transformer.resblocks.{layer}.")
            converted |= {f"{target}encoder.layers.{layer}.{n}": t for n, t in block.items()}
    unknown = sorted(name for name in rest if name.startswith(_ROOTS))
    if unknown:
        raise ModelError(
            f"{source} has {len(unknown)} tensors that a plain open_clip ViT has not (the first: "
            f"{unknown[0]}), so it cannot be a CLIPModel; {about_extra(unknown[0])}"
        )
    return config, converted


def to_open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A CLIPModel's weights by open_clip's names: what `convert_open_clip` undoes."""
    found = {
        "logit_scale": state["logit_scale"],
        "visual.proj": state["visual_projection.weight"].T,
        "text_projection": state["text_projection.weight"].T,
    }
    for prefix, source, parts in (
        ("visual.", "vision_model.", _VISION_PARTS),
        ("", "text_model.", _TEXT_PARTS),
    ):
        found |= {prefix + name: state[source + own] for name, own in parts.items()}
        layer = 0
        while f"{source}encoder.layers.{layer}.layer_norm1.weight" in state:
            block = f"{source}encoder.layers.{layer}."
            found |= {
                f"{prefix}transformer.resblocks.{layer}.{name}": tensor
                for name, tensor in _given_block(state, block).items()
            }
            layer += 1
    return {name: tensor.detach().cpu().contiguous() for name, tensor in found.items()}


def _given_block(state: Mapping[str, Tensor], block: str) -> dict[str, Tensor]:
    """One transformer block, its query, key and value joined."""
    found: dict[str, Tensor] = {}
    for kind in ("weight", "bias"):
        parts = [state[f"{block}self_attn.{part}_proj.{kind}"] for part in "qkv"]
        found[f"attn.in_proj_{kind}"] = torch.cat(parts)
        for name, own in _BLOCK_PARTS.items():
            found[f"{name}.{kind}"] = state[f"{block}{own}.{kind}"]
    return found


def _is_transformers(state: Mapping[str, Tensor]) -> bool:
    return any("embeddings.patch_embedding.weight" in name for name in state)


def _plain_name(name: str) -> str:
    """Without the prefix of open_clip's CustomTextCLIP."""
    return name.removeprefix("text.")


def _take(rest: dict[str, Tensor], name: str) -> Tensor:
    try:
        return rest.pop(name)
    except KeyError:
        raise ModelError(
            f"The open_clip checkpoint lacks {name}, which every plain ViT CLIP has; it may be "
            "truncated, or of another architecture."
        ) from None


def _take_block(rest: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """One transformer block, its joint in_proj split into query, key and value."""
    block: dict[str, Tensor] = {}
    for kind in ("weight", "bias"):
        joint = _take(rest, f"{prefix}attn.in_proj_{kind}")
        for part, tensor in zip("qkv", joint.chunk(3), strict=True):
            block[f"self_attn.{part}_proj.{kind}"] = tensor.clone()
        for name, to in _BLOCK_PARTS.items():
            block[f"{to}.{kind}"] = _take(rest, f"{prefix}{name}.{kind}")
    return block


def convert_tower_alone(
    state: Mapping[str, Tensor], facts: TowerFacts, source: str
) -> tuple[CLIPVisionConfig, dict[str, Tensor]]:
    """The configuration and state dict of transformers' image tower with its projection.

    Args:
        state: of an open_clip ViT by itself.
        facts: what its weights do not tell.
        source: how the user knows it.

    Raises:
        ModelError: it is no plain ViT, or has no projection.
    """
    from transformers import CLIPVisionConfig

    if "proj" not in state:
        raise ModelError(f"{source} has no projection (proj), which a CLIP's images go through")
    named = {f"visual.{name}": one for name, one in state.items()}
    projection_dim = _get(named, "visual.proj").shape[1]
    config = CLIPVisionConfig(**_vision_config(named, facts), projection_dim=projection_dim)
    return config, {name: one.float() for name, one in convert_tower(state, source).items()}


def _config_of(state: Mapping[str, Tensor], vision: TowerFacts, text: TowerFacts) -> CLIPConfig:
    """What the shapes tell about the two towers, and what they do not."""
    from transformers import CLIPConfig

    vocab_size, text_width = _get(state, "token_embedding.weight").shape
    of_texts = {
        **_tower_config(state, "", text_width, text),
        "vocab_size": vocab_size,
        "max_position_embeddings": len(_get(state, "positional_embedding")),
        "bos_token_id": vocab_size - 2,
        "eos_token_id": POOLS_AT_HIGHEST,  # as open_clip does, whichever tokenizer it has
        "pad_token_id": vocab_size - 1,
    }
    return CLIPConfig(
        vision_config=_vision_config(state, vision),
        text_config=of_texts,
        projection_dim=_get(state, "visual.proj").shape[1],
    )


def _vision_config(state: Mapping[str, Tensor], facts: TowerFacts) -> dict[str, Any]:
    patches = _get(state, "visual.conv1.weight")
    positions = _get(state, "visual.positional_embedding").shape[0] - 1
    return {
        **_tower_config(state, "visual.", len(patches), facts),
        "patch_size": patches.shape[-1],
        "image_size": round(positions**0.5) * patches.shape[-1],
    }


def _tower_config(
    state: Mapping[str, Tensor], prefix: str, width: int, facts: TowerFacts
) -> dict[str, Any]:
    if width % facts.head_width:
        raise ModelError(
            f"the {'vision' if prefix else 'text'} tower is {width} wide, of which attention heads "
            f"of {facts.head_width} are no whole number; it is no plain open_clip ViT"
        )
    return {
        "hidden_size": width,
        "num_attention_heads": width // facts.head_width,
        "num_hidden_layers": num_layers(state, prefix),
        "intermediate_size": len(_get(state, f"{prefix}transformer.resblocks.0.mlp.c_fc.bias")),
        "hidden_act": facts.activation,
        "layer_norm_eps": facts.layer_norm_eps,
    }


def _get(state: Mapping[str, Tensor], name: str) -> Tensor:
    return _take(dict(state), name)
