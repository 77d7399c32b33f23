"""`open_clip:NAME:FILE`: an open_clip checkpoint as a transformers CLIPModel, without open_clip.

open_clip names a model's parts differently, keeps query, key and value of an attention in one
matrix and projections transposed, and does not store the activation function. All else is the same
model, so what comes out gives the same embeddings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from driftscope.backbones.model import VisionLanguageModel, evaluating
from driftscope.backbones.weights import without_adapters
from driftscope.errors import ModelError, did_you_mean
from driftscope.files import named_path
from driftscope.hugging_face import offline_where_unreachable
from driftscope.sources.hub import load_tokenizer
from driftscope.sources.preprocessor import OPENAI_MEAN, OPENAI_STD
from driftscope.sources.state_dict import read_state, without_prefixes

if TYPE_CHECKING:
    from transformers import CLIPConfig, CLIPModel

    from driftscope.sources import Loader

KIND = "open_clip"
PREFIX = "open_clip:"
OPENAI_CLIP = "openai/clip-vit-base-patch32"
"""Whose tokenizer every open_clip model of OpenAI's text tower shares."""
_HEAD_DIM = 64
_LEAST_COSINE = 0.999
"""Of one input's embeddings, the model's own and the conversion's: half precision keeps more."""


@dataclass(frozen=True)
class _Geometry:
    width: int
    num_layers: int
    patch_size: int
    image_size: int


_GEOMETRIES = {
    "ViT-B-32": _Geometry(768, 12, 32, 224),
    "ViT-B-16": _Geometry(768, 12, 16, 224),
    "ViT-L-14": _Geometry(1024, 24, 14, 224),
    "ViT-L-14-336": _Geometry(1024, 24, 14, 336),
}
_QUICK_SUFFIX = "-quickgelu"

OPEN_CLIP_NAMES = tuple(sorted([*_GEOMETRIES, *(f"{name}{_QUICK_SUFFIX}" for name in _GEOMETRIES)]))
"""Model names of open_clip that are converted. The activation is in the name only: plain names mean
GELU; OpenAI's own weights, and some others, need the `-quickgelu` name."""

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
# In OpenAI's own archives beside the weights; facts that the shapes tell as well.
_FACTS = {"input_resolution", "context_length", "vocab_size"}


def recognises(name: str) -> bool:
    """Whether it is meant to name an open_clip checkpoint."""
    return name.startswith(PREFIX)


def load(name: str, _load_base: Loader) -> VisionLanguageModel:
    """The checkpoint file as a CLIPModel, with OpenAI's tokenizer where that is at hand."""
    parts = name.removeprefix(PREFIX).split(":", maxsplit=1)
    if len(parts) != 2 or not named_path(parts[1]).is_file():
        raise ModelError(
            f"{name!r} names no open_clip checkpoint; write open_clip:NAME:FILE, such as "
            "open_clip:ViT-B-32:/models/open_clip_model.safetensors"
        )
    clip = load_open_clip(named_path(parts[1]), parts[0])
    return replace(from_open_clip(clip), source=name, has_own_pixels=False)


def from_open_clip(
    clip: CLIPModel, mean: Sequence[float] = OPENAI_MEAN, std: Sequence[float] = OPENAI_STD
) -> VisionLanguageModel:
    """A converted open_clip model, with OpenAI's tokenizer where that is at hand."""
    with offline_where_unreachable():
        tokenizer = load_tokenizer(OPENAI_CLIP, clip.config.text_config.vocab_size)
    return VisionLanguageModel(
        module=clip,
        tokenizer=tokenizer,
        image_size=int(clip.config.vision_config.image_size),
        mean=tuple(mean),
        std=tuple(std),
        source=KIND,
    )


def is_live(module: nn.Module) -> bool:
    """Whether a module is an open_clip model, by class name, so that nothing need be imported."""
    return any(
        base.__module__.startswith("open_clip") and base.__name__ in ("CLIP", "CustomTextCLIP")
        for base in type(module).__mro__
    )


def converted(model: nn.Module) -> nn.Module:
    """An open_clip model's copy as a transformers CLIPModel, on the same device.

    Raises:
        ModelError: it is no plain ViT CLIP.
    """
    from transformers import CLIPModel

    plain: Any = without_adapters(model)
    try:
        block = plain.visual.transformer.resblocks[0]
        activation = "quick_gelu" if type(block.mlp.gelu).__name__ == "QuickGELU" else "gelu"
        head_dim = block.attn.embed_dim // block.attn.num_heads
    except (AttributeError, IndexError, TypeError):
        raise ModelError(
            "The open_clip model has no plain ViT as its image tower, so it cannot be read; "
            "models such as ViT-B-32 can."
        ) from None
    config, state = convert_open_clip(plain.state_dict(), activation=activation, head_dim=head_dim)
    clip: nn.Module = CLIPModel(config)
    clip.load_state_dict(state)
    clip.to(next(model.parameters()).device).eval()
    if hasattr(model, "encode_image"):
        _check_faithful(model, clip)
    return clip


def live_convention(model: nn.Module) -> dict[str, tuple[float, ...]]:
    """The mean and std that an open_clip model itself says its pixels have."""
    tower = getattr(model, "visual", None)
    said = {key: getattr(tower, f"image_{key}", None) for key in ("mean", "std")}
    return {key: tuple(values) for key, values in said.items() if values is not None}


def _check_faithful(model: Any, clip: Any) -> None:
    """One image and one text, embedded by the model itself and by its conversion, must agree.

    Raises:
        ModelError: they do not: the model has a part that the conversion does not know.
    """
    device, generator = next(model.parameters()).device, torch.Generator().manual_seed(0)
    text, side = clip.config.text_config, clip.config.vision_config.image_size
    pixels = torch.randn(1, 3, side, side, generator=generator).to(device)
    tokens = torch.randint(
        1, text.vocab_size - 2, (1, text.max_position_embeddings), generator=generator
    )
    end = tokens.shape[1] // 2
    tokens[:, end], tokens[:, end + 1 :] = text.vocab_size - 1, 0
    tokens = tokens.to(device)
    with evaluating(model), evaluating(clip):
        pairs = {
            "an image": (
                model.encode_image(pixels.to(next(model.visual.parameters()).dtype)),
                clip.get_image_features(pixel_values=pixels).pooler_output,
            ),
            "a text": (
                model.encode_text(tokens),
                clip.get_text_features(input_ids=tokens).pooler_output,
            ),
        }
    for what, (own, converted_one) in pairs.items():
        cosine = float(functional.cosine_similarity(own.float(), converted_one.float()))
        if not cosine > _LEAST_COSINE:
            raise ModelError(
                f"The open_clip model cannot be read: it embeds {what} as its conversion to a "
                f"CLIPModel does not (cosine {cosine:.4f}), so it pools, masks or normalises "
                "otherwise than a plain ViT CLIP."
            )


def load_open_clip(path: Path | str, name: str) -> CLIPModel:
    """A CLIPModel from an open_clip checkpoint file, float32, in eval mode.

    Args:
        path: a .safetensors file, or a .pt/.bin file that holds tensors only (it is read with
            weights_only=True; of a training checkpoint the entry of its weights is used).
        name: the open_clip model name, one of `OPEN_CLIP_NAMES`; it decides the activation, and
            the weights must have its shape.

    Raises:
        ModelError: the name is unknown, the file cannot be read safely, or the weights are not
            those of a plain open_clip ViT of that name.
    """
    if name not in OPEN_CLIP_NAMES:
        raise ModelError(
            f"open_clip model {name!r} cannot be converted; {did_you_mean(name, OPEN_CLIP_NAMES)}."
        )
    state = read_state(Path(path))
    activation = "quick_gelu" if name.endswith(_QUICK_SUFFIX) else "gelu"
    config, converted = convert_open_clip(state, activation=activation)
    _check_geometry(config, name)

    from transformers import CLIPModel

    model = CLIPModel(config)
    model.load_state_dict(converted)
    return model.eval()


def convert_open_clip(
    state: Mapping[str, Tensor], *, activation: str, head_dim: int = _HEAD_DIM
) -> tuple[CLIPConfig, dict[str, Tensor]]:
    """The configuration and float32 state dict of the CLIPModel that open_clip weights describe.

    Args:
        state: an open_clip state dict of a plain ViT (with or without the `text.` prefix).
        activation: `gelu` or `quick_gelu`, which the weights do not tell.
        head_dim: width of an attention head, which the weights do not tell either; 64 in every
            model of `OPEN_CLIP_NAMES`.

    Raises:
        ModelError: a tensor is missing, or there is one that a plain ViT has not.
    """
    rest = {_plain_name(name): tensor.float() for name, tensor in without_prefixes(state).items()}
    rest = {name: tensor for name, tensor in rest.items() if name not in _FACTS}
    if "visual.conv1.weight" not in rest or "token_embedding.weight" not in rest:
        raise ModelError(
            "These are not the weights of an open_clip ViT: visual.conv1.weight or "
            "token_embedding.weight is missing; give a checkpoint of one of "
            f"{', '.join(OPEN_CLIP_NAMES)}."
        )
    config = _config_of(rest, activation, head_dim)
    converted = {
        "logit_scale": _take(rest, "logit_scale").reshape(()),
        "visual_projection.weight": _take(rest, "visual.proj").T.contiguous(),
        "text_projection.weight": _take(rest, "text_projection").T.contiguous(),
    }
    for source, target, parts, layers in (
        ("visual.", "vision_model.", _VISION_PARTS, config.vision_config.num_hidden_layers),
        ("", "text_model.", _TEXT_PARTS, config.text_config.num_hidden_layers),
    ):
        converted |= {target + to: _take(rest, source + name) for name, to in parts.items()}
        for layer in range(layers):
            block = _take_block(rest, f"{source}transformer.resblocks.{layer}.")
            converted |= {f"{target}encoder.layers.{layer}.{n}": t for n, t in block.items()}
    if rest:
        raise ModelError(
            f"The checkpoint has {len(rest)} tensors that a plain open_clip ViT has not (the "
            f"first: {min(rest)}), so it cannot be a CLIPModel; convert one of "
            f"{', '.join(OPEN_CLIP_NAMES)}."
        )
    return config, converted


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


def _config_of(state: Mapping[str, Tensor], activation: str, head_dim: int) -> CLIPConfig:
    """What the shapes tell about the two towers."""
    from transformers import CLIPConfig

    patches = state["visual.conv1.weight"]
    positions = _shape(state, "visual.positional_embedding")[0] - 1
    vocab_size, text_width = state["token_embedding.weight"].shape
    towers: dict[str, dict[str, Any]] = {}
    for tower, prefix, width in (("vision", "visual.", len(patches)), ("text", "", text_width)):
        towers[tower] = {
            "hidden_size": width,
            "num_attention_heads": width // head_dim,
            "num_hidden_layers": _num_layers(state, prefix),
            "intermediate_size": _shape(state, f"{prefix}transformer.resblocks.0.mlp.c_fc.bias")[0],
            "hidden_act": activation,
            "layer_norm_eps": 1e-5,
        }
    towers["vision"] |= {
        "patch_size": patches.shape[-1],
        "image_size": round(positions**0.5) * patches.shape[-1],
    }
    towers["text"] |= {
        "vocab_size": vocab_size,
        "max_position_embeddings": _shape(state, "positional_embedding")[0],
        # open_clip pools at the highest token id, which is its end-of-text token.
        "bos_token_id": vocab_size - 2,
        "eos_token_id": vocab_size - 1,
        "pad_token_id": vocab_size - 1,
    }
    return CLIPConfig(
        vision_config=towers["vision"],
        text_config=towers["text"],
        projection_dim=_shape(state, "visual.proj")[1],
    )


def _shape(state: Mapping[str, Tensor], name: str) -> torch.Size:
    return _take(dict(state), name).shape


def _num_layers(state: Mapping[str, Tensor], prefix: str) -> int:
    pattern = re.compile(rf"{re.escape(prefix)}transformer\.resblocks\.(\d+)\.")
    found = {int(match.group(1)) for name in state if (match := pattern.match(name))}
    return max(found, default=-1) + 1


def _check_geometry(config: CLIPConfig, name: str) -> None:
    expected = _GEOMETRIES[name.removesuffix(_QUICK_SUFFIX)]
    vision = config.vision_config
    found = _Geometry(
        vision.hidden_size, vision.num_hidden_layers, vision.patch_size, vision.image_size
    )
    if found != expected:
        raise ModelError(f"The checkpoint is not a {name}: it has {found}, not {expected}.")
