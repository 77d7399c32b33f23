"""Random small models of every family: a row each, for the conformance suite.

A family of another package has a row, too: `toy_family.py` stands for all that are to come.
"""

from __future__ import annotations

import copy
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from random_models import TINY, TINY_TEXT, build, sharpen
from torch import Tensor, nn
from toy_family import ToyConfig, ToyModel
from transformers import (
    AltCLIPConfig,
    AltCLIPModel,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    MetaClip2Config,
    MetaClip2Model,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    Tipsv2Config,
    Tipsv2Model,
    ViTConfig,
    ViTModel,
)

from driftscope.backbones import GROUP, families

WORDS = ["a", "photo", "of", "red", "green", "blue", "yellow"]
SPECIAL = ["[pad]", "[unk]", "[start]", "[end]"]
SMALL = {**TINY, "num_hidden_layers": 2, "image_size": 32}
TEXT = {
    **TINY_TEXT,
    "vocab_size": len(SPECIAL) + len(WORDS),
    "bos_token_id": 2,
    "eos_token_id": 3,
    "pad_token_id": 0,
}
BERT = {**TEXT, "max_position_embeddings": 24}


Eager = tuple[list[Tensor], list[Tensor]]


def transformers_eager(tower: Any, pixels: Tensor) -> Eager:
    """By transformers' own eager attention, of a copy."""
    copied = copy.deepcopy(tower)
    copied.set_attn_implementation("eager")
    seen = copied(pixel_values=pixels, output_attentions=True, output_hidden_states=True)
    return list(seen.attentions), list(seen.hidden_states[1:])


def toy_eager(tower: Any, pixels: Tensor) -> Eager:
    """Of its queries and keys, by the softmax of their products."""
    tokens, maps, states = tower.tokens(pixels), [], []
    for block in tower.blocks:
        query, key = (
            part(tokens).unflatten(-1, (2, -1)).transpose(1, 2)
            for part in (block.q_proj, block.k_proj)
        )
        maps.append((query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(dim=-1))
        tokens = block(tokens)
        states.append(tokens)
    return maps, states


@dataclass(frozen=True)
class Family:
    """How a family's model is made, and what the library itself says of it.

    Attributes:
        module: a model of random weights.
        embed: the library's own embeddings of normalised pixels.
        num_prefix: tokens before the patches.
        queries: the tokens whose rows are read; none where a probe pools.
        eager: the full attention maps of the image tower's blocks and their outputs, computed
            otherwise than by the attention that is read.
        state: what stands for the image in a hidden state.
        tower: where the image tower is in the module.
        frames_texts: whether the tokenizer sets a start and an end around a text.
    """

    module: Callable[[], nn.Module]
    embed: Callable[[Any, Tensor], Tensor]
    num_prefix: int = 1
    queries: tuple[int, ...] = (0,)
    eager: Callable[[Any, Tensor], Eager] = transformers_eager
    state: Callable[[Tensor], Tensor] = lambda tokens: tokens[:, 0]
    tower: str = "vision_model"
    frames_texts: bool = True

    @property
    def has_text(self) -> bool:
        """Whether the model has a text tower."""
        return hasattr(self.module(), "text_model")


def _features(module: Any, pixels: Tensor) -> Tensor:
    return module.get_image_features(pixel_values=pixels).pooler_output


def _pooled(module: Any, pixels: Tensor) -> Tensor:
    return module(pixel_values=pixels).pooler_output


def _cls(module: Any, pixels: Tensor) -> Tensor:
    return module(pixel_values=pixels).last_hidden_state[:, 0]


def _mean(tokens: Tensor) -> Tensor:
    return tokens.mean(dim=1)


def _whole(
    model: Any, config: Any, text: dict[str, Any], **options: Any
) -> Callable[[], nn.Module]:
    return lambda: _sharp(model, config(vision_config=SMALL, text_config=text, **options))


def _sharp(model: Any, config: Any) -> nn.Module:
    module = build(model, config)
    sharpen(module, 4.0)
    _shift_biases(module)
    return module


def _shift_biases(module: nn.Module) -> None:
    """Gives zero-initialised biases and logit biases values, so that leaving one out shows."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("bias"):
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
            if name == "logit_scale":
                parameter.fill_(2.0)
            if name == "temperature":
                parameter.fill_(0.1)


def _alone(model: Any, config: Any, **options: Any) -> Callable[[], nn.Module]:
    return lambda: _sharp(model, config(**SMALL, **options))


def _alone_as_it_is(model: Any, config: Any) -> Callable[[], nn.Module]:
    return lambda: build(model, config())


FAMILIES = {
    "CLIP": Family(_whole(CLIPModel, CLIPConfig, TEXT, projection_dim=16), _features),
    "SigLIP": Family(
        _whole(SiglipModel, SiglipConfig, {**TEXT, "projection_size": 64}),
        _features,
        num_prefix=0,
        queries=(),
        state=_mean,
    ),
    "MetaCLIP 2": Family(
        _whole(MetaClip2Model, MetaClip2Config, TEXT, projection_dim=16), _features
    ),
    "Chinese-CLIP": Family(
        _whole(ChineseCLIPModel, ChineseCLIPConfig, BERT, projection_dim=16), _features
    ),
    "AltCLIP": Family(
        _whole(AltCLIPModel, AltCLIPConfig, {**BERT, "project_dim": 16}, projection_dim=16),
        _features,
    ),
    "TIPSv2": Family(
        _whole(Tipsv2Model, Tipsv2Config, {**TEXT, "hidden_size": 64}),
        _features,
        num_prefix=2,
        queries=(0, 1),
        state=lambda tokens: tokens[:, :2].flatten(1),
        frames_texts=False,
    ),
    "CLIP tower": Family(_alone(CLIPVisionModel, CLIPVisionConfig), _pooled, tower=""),
    "CLIP tower, projected": Family(
        _alone(CLIPVisionModelWithProjection, CLIPVisionConfig, projection_dim=16),
        lambda module, pixels: module(pixel_values=pixels).image_embeds,
    ),
    "SigLIP tower": Family(
        _alone(SiglipVisionModel, SiglipVisionConfig),
        _pooled,
        num_prefix=0,
        queries=(),
        state=_mean,
        tower="",
    ),
    "ViT": Family(
        lambda: build(ViTModel, ViTConfig(**SMALL, initializer_range=0.1)), _cls, tower=""
    ),
    "DINOv2": Family(_alone(Dinov2Model, Dinov2Config, initializer_range=0.1), _pooled, tower=""),
    "DINOv2, registers": Family(
        _alone(
            Dinov2WithRegistersModel,
            Dinov2WithRegistersConfig,
            num_register_tokens=4,
            initializer_range=0.1,
        ),
        _pooled,
        num_prefix=5,
        tower="",
    ),
    "DINOv3": Family(
        _alone(DINOv3ViTModel, DINOv3ViTConfig, num_register_tokens=4, initializer_range=0.1),
        _pooled,
        num_prefix=5,
        tower="",
    ),
    "toy": Family(
        _alone_as_it_is(ToyModel, ToyConfig),
        lambda module, pixels: module(pixel_values=pixels),
        eager=toy_eager,
        tower="tower",
    ),
}


@contextmanager
def toy_family_installed(site: Path, more: str = "") -> Iterator[None]:
    """As if a package were installed that brings the toy family, and further entries."""
    info = site / "toy_family-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-family\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\ntoy = toy_family:Toy\n{more}")
    sys.path.insert(0, str(site))
    importlib.invalidate_caches()
    families.cache_clear()
    try:
        yield
    finally:
        sys.path.remove(str(site))
        families.cache_clear()


def save_family(name: str, folder: Path) -> Path:
    """A family's model as people have it: a folder with its pixels, and its tokenizer."""
    family = FAMILIES[name]
    module: Any = family.module()
    module.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3})
    )
    if family.has_text:
        _tokenizer(frames_texts=family.frames_texts).save_pretrained(folder)
    return folder


def _tokenizer(*, frames_texts: bool) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[unk]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if frames_texts:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[start] $A [end]", special_tokens=[("[start]", 2), ("[end]", 3)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[pad]", unk_token="[unk]", eos_token="[end]"
    )
