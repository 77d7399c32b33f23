"""What a model family offers, and the image tower that is found by it."""

from __future__ import annotations

import copy
import importlib
import math
import re
from collections.abc import Container, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from driftscope.signals.attention import rollout_row

_MOST_IMAGES = 64
SELF_ATTN_TARGETS: Mapping[str, str] = {
    **{name: f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "out_proj")},
    **{name: f"mlp.{name}" for name in ("fc1", "fc2")},
}
ATTENTION_TARGETS: Mapping[str, str] = {
    **{name: f"attention.{name}" for name in ("q_proj", "k_proj", "v_proj")},
    "out_proj": "attention.o_proj",
    **{name: f"mlp.{name}" for name in ("fc1", "fc2")},
}
"""As CLIP's descendants in transformers call their parts, and as ViT's do."""
WRAPPERS = re.compile(r"(?:_fsdp_wrapped_module|_orig_mod|_checkpoint_wrapped_module)(?:\.|$)")
"""What FSDP, torch.compile and activation checkpointing put into names, at any depth."""
HALF_PIXELS: Mapping[str, tuple[float, ...]] = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
IMAGENET_PIXELS: Mapping[str, tuple[float, ...]] = {
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}


class Backbone:
    """One model family. A family is a subclass in a file of its own and a row of `FAMILIES`, or
    an entry point of an installed package.

    What is here holds for an image tower with a CLS token and no text tower, as transformers
    builds them. The names are those of the weights of the family's whole model; of a tower that
    stands by itself those of a model that holds it under `tower_name`.
    """

    family: ClassVar[str]
    package: ClassVar[str] = "transformers"
    """Where its classes are defined."""
    whole: ClassVar[str | None] = None
    """The transformers class with both towers; None where a model of the family has no text."""
    classes: ClassVar[Mapping[str, str]]
    """What `config.json` calls a model of the family -> the class of `package` that loads it."""
    load_options: ClassVar[Mapping[str, Any]] = {}
    """What its `from_pretrained` is told besides."""
    usual_pixels: ClassVar[Mapping[str, tuple[float, ...]]] = {}
    """Mean and std where a folder tells none; OpenAI's where nothing is here."""
    processors: ClassVar[Mapping[str, Mapping[str, Any]]] = {"CLIP": {}}
    """The image processors that its models come with, by the beginning of transformers' names for
    them, the one that is meant where none is named first -> its defaults, where transformers has
    the class with torchvision alone."""
    refused: ClassVar[Mapping[str, str]] = {}
    """Relatives that are not read, by class or by what `config.json` calls them -> why."""
    towers: ClassVar[Mapping[str, str]]
    """Class of the image tower -> where its blocks are. Found by class name, so that transformers
    (7 seconds to import) is not imported and subclasses are recognised through their bases."""
    trained_alone: ClassVar[tuple[str, ...]] = ()
    """Classes of an image tower that people train without its text tower, the outer ones first."""
    has_fixed_input_size: ClassVar[bool] = True
    needs: ClassVar[str] = ""
    """The package besides transformers that its models are made by."""
    kept_by: ClassVar[str] = "transformers"
    """Whose folder keeps such a model: transformers', or open_clip's."""

    tower_name: ClassVar[str] = "vision_model"
    blocks_name: ClassVar[str] = "vision_model.layers"
    final_norm_name: ClassVar[str] = "vision_model.layernorm"
    projection_name: ClassVar[str | None] = None
    pooling_name: ClassVar[str | None] = None
    """The attention head that pools the patches, in families that have one in the place of a CLS
    token."""
    positions_name: ClassVar[str | None] = "vision_model.embeddings.position_embeddings"
    """The learnt positions, one for each patch behind one for the CLS token; None where the size
    of the images decides the shape of no weight."""
    has_position_of_cls: ClassVar[bool] = True
    idle_names: ClassVar[tuple[str, ...]] = ()
    """How the names of weights begin that no image goes through: what only pretraining used."""
    text_prefix: ClassVar[str | None] = None
    """How the names of the text tower's weights, and its projection's, begin."""
    adapter_targets: ClassVar[Mapping[str, str]] = {}
    """Name of a target in a method's spec -> the module in a block."""
    pads_texts_to_the_full_length: ClassVar[bool] = False
    has_attention_of_its_own: bool = False
    """Whether attention is computed by torch itself, and not by transformers' interface."""
    no_attention_because: str = ""
    """Why no attention row is read, in words that go on from "…: "; empty where rows are read."""
    probe_prefix: int = 0
    """How many tokens before the patches the probe of a pooling head sees, too."""

    # ------------------------------------------------------------ what is read

    def num_prefix(self, config: Any) -> int:
        """How many tokens stand before the patches: the CLS token, then registers."""
        return 1 + int(getattr(config, "num_register_tokens", 0))

    def pooled_row(
        self,
        query: Float[Tensor, "image head token dim"],
        key: Float[Tensor, "image head token dim"],
        scaling: float,
        num_prefix: int,
    ) -> Float[Tensor, "image head patch"]:
        """The softmax of the query that pools the image, over the patch keys alone, float32.

        Equal to the full softmax with the CLS and register columns removed and the rest
        renormalised, but defined also where those columns take all the mass.
        """
        pooling_query = query[:, :, :1].float() * scaling
        # A product and a sum, not a matmul: for one query a batched matmul spends most of its time
        # on copying the keys into its own order first.
        logits = (key[:, :, num_prefix:].float() * pooling_query).sum(dim=-1)
        return logits.softmax(dim=-1)

    def block_state(self, tokens: Float[Tensor, "image token dim"]) -> Float[Tensor, "image dim"]:
        """What stands for the image at the output of a block."""
        return tokens[:, 0]

    def rollout_row(
        self, product: Float[Tensor, "image token token"], num_prefix: int
    ) -> Float[Tensor, "image patch"]:
        """What pools the image, of a rollout product over the patches, summing to 1."""
        return rollout_row(product, num_prefix)

    def probe_attention(self, tower: nn.Module) -> nn.Module | None:
        """The attention whose query is a learnt probe and pools the patches; None without one."""
        del tower
        return None

    def embed_images(self, module: nn.Module, pixel_values: Tensor) -> Tensor:
        """Unnormalised image embeddings of a module on its live path, projected where it does so.

        Here: the CLS token behind the last norm, which DINO classifies by.
        """
        embeddings: Tensor = module(pixel_values=pixel_values).last_hidden_state[:, 0]
        return embeddings

    def prepared_text(self, text: str) -> str:
        """A text as it goes to the tokenizer."""
        return text

    def embed_texts(self, module: Any, tokens: Mapping[str, Tensor]) -> Tensor:
        """Projected, unnormalised embeddings of tokenised texts."""
        embeddings: Tensor = module.get_text_features(**tokens).pooler_output
        return embeddings

    def logit_scale(self, plain: Any) -> Tensor:
        """The factor on cosine similarities in zero-shot logits, with its gradient."""
        scale: Tensor = plain.logit_scale.exp()
        return scale

    def logit_bias(self, plain: Any) -> Tensor | None:
        """What is added to the scaled similarities, where each text is judged by itself.

        Such a family's logits go through a sigmoid; None where they go through a softmax over the
        texts.
        """
        del plain
        return None

    def for_embedding_alone(self, plain: Any) -> AbstractContextManager[None]:
        """Inside, the tower may leave out what only other outputs than the embedding need."""
        del plain
        return nullcontext()

    def tower_with_projection(self, tower: nn.Module, projection: nn.Module | None) -> nn.Module:
        """A tower of `trained_alone` as a module that embeds images; `projection` where it has none
        of its own."""
        del projection
        return tower

    def options_for(self, config: Any) -> dict[str, Any]:
        """What `from_pretrained` is told of a model of this configuration."""
        return {**self.load_options, "config": config}

    def idle_of(self, config: Any) -> tuple[str, ...]:
        """How the names of weights begin that no image goes through, in a model as it is saved."""
        del config
        return self.idle_names

    def readable(self, module: nn.Module) -> nn.Module:
        """What is read of what transformers has loaded: it itself, or it behind other calls."""
        return module

    # ------------------------------------------------------------ the configuration

    def class_of(self, config: Any) -> str:
        """The class of `package` that loads a model of this configuration."""
        return self.classes[config.model_type]

    def model_class(self, config: Any) -> Any:
        """The same class itself."""
        return getattr(importlib.import_module(self.package), self.class_of(config))

    def class_among(self, module: nn.Module, names: Container[str]) -> str | None:
        """Which of the family's classes a module is of, or is derived from.

        By name, so that nothing need be imported: transformers takes 7 seconds.
        """
        for base in type(module).__mro__:
            if base.__name__ in names and base.__module__.partition(".")[0] == self.package:
                return base.__name__
        return None

    def vision_config(self, config: Any) -> Any:
        """The image tower's part of a configuration."""
        return getattr(config, "vision_config", config)

    def embedding_dim(self, plain: Any) -> int:
        """Length of an image embedding."""
        return int(plain.config.hidden_size)

    def has_text(self, config: Any) -> bool:
        """Whether a configuration is that of a model with a text tower."""
        return self.whole is not None and hasattr(config, "text_config")

    def text_length(self, config: Any) -> int:
        """The most tokens that the text tower takes."""
        return int(config.text_config.max_position_embeddings)

    def vocabulary_size(self, config: Any) -> int:
        """How many tokens the text tower knows."""
        return int(config.text_config.vocab_size)

    def end_of_text(self, config: Any) -> int | None:
        """The token that the text tower pools at, which every text must have; None for no such."""
        del config
        return None

    def image_facts(self, config: Any) -> dict[str, object]:
        """What decides the image tower's function beside its weights, by a name to be shown."""
        return _tower_facts("image", config)

    def text_facts(self, config: Any) -> dict[str, object]:
        """The same of the text tower, from the whole model's configuration; empty without one."""
        text = getattr(config, "text_config", None)
        return {} if text is None else _tower_facts("text", text)

    def grid_side(self, positions: Tensor) -> int:
        """How many patches a side of the image has, by the weight of their positions."""
        return math.isqrt(positions.shape[-2] - self.has_position_of_cls)

    def at_grid(self, plain: Any, side: int) -> Any:
        """An unfilled model like another one, with positions for so many patches a side."""
        config = copy.deepcopy(plain.config)
        vision = self.vision_config(config)
        vision.image_size = side * vision.patch_size
        with torch.random.fork_rng(devices=[]):
            return type(plain)(config, **self.load_options)

    # ------------------------------------------------------------ names of weights

    def is_encoder_weight(self, name: str) -> bool:
        """Whether a weight belongs to the image tower or its projection."""
        parts = (self.tower_name, self.projection_name or self.tower_name)
        is_idle = name.startswith(self.idle_names)
        return name.startswith(tuple(f"{part}." for part in parts)) and not is_idle

    def with_or_without_its_tower(self, beginnings: tuple[str, ...]) -> tuple[str, ...]:
        """How names begin in a whole model, and in an image tower by itself."""
        tower = f"{self.tower_name}."
        return (*beginnings, *(one.removeprefix(tower) for one in beginnings))

    def is_position(self, name: str) -> bool:
        """Whether a weight holds the positions of the patches."""
        return name == self.positions_name

    def is_text_weight(self, name: str) -> bool:
        """Whether a weight belongs to the text tower or its projection."""
        return self.text_prefix is not None and name.startswith(self.text_prefix)

    def block_of(self, name: str) -> int | None:
        """The block of the image tower that a weight or module is in, from 0."""
        match = re.match(rf"{re.escape(self.blocks_name)}\.(\d+)\.", name)
        return int(match.group(1)) if match else None


TOLD_BY_PARTS: Mapping[str, tuple[str, ...]] = {
    "activation": ("activation_fn", "intermediate_act_fn", "activation", "act_fn", "act"),
    "number of attention heads": ("num_heads", "num_attention_heads"),
    "layer norm epsilon": ("eps",),
}
"""How a tower's facts end that its modules tell of themselves, too -> by what names they do."""


def _tower_facts(tower: str, config: Any) -> dict[str, object]:
    return {
        f"the {tower} tower's activation": config.hidden_act,
        f"the {tower} tower's number of attention heads": config.num_attention_heads,
        f"the {tower} tower's layer norm epsilon": config.layer_norm_eps,
    }


@dataclass(frozen=True)
class ImageTower:
    """The image tower found inside a module: the part whose attention is read.

    `encoder` is the part that is called `tower_name`: the same, or what holds it and a projection.
    `num_prefix` counts the tokens before the patches: the CLS token, then registers.
    """

    module: nn.Module
    encoder: nn.Module
    blocks: list[nn.Module]
    num_prefix: int
    config: Any
    backbone: Backbone

    def num_patches(self, height: int, width: int) -> int:
        """How many patches an image of so many pixels has, by the positions that the tower holds.

        By the configuration where the tower fits its positions to the image, or has none.
        """
        backbone = self.backbone
        name = (backbone.positions_name or "").removeprefix(f"{backbone.tower_name}.")
        positions = dict(self.module.named_parameters()).get(name)
        if positions is not None and backbone.has_fixed_input_size:
            return backbone.grid_side(positions) ** 2
        patch = int(self.config.patch_size)
        return (height // patch) * (width // patch)

    @property
    def images_per_forward(self) -> int:
        """How many images to run at once where no gradient is wanted: 64, on a CPU maybe fewer.

        So few that the widest activation of a block, its MLP's, takes 8 MiB at most: it stays in
        the cache, and the allocator does not map it anew at every layer, as it does from 32 MiB on.
        """
        if next(self.module.parameters()).device.type != "cpu":
            return _MOST_IMAGES
        num_tokens = (self.config.image_size // self.config.patch_size) ** 2 + self.num_prefix
        num_bytes: int = 4 * num_tokens * 4 * self.config.hidden_size  # float32, four times as wide
        return max(1, min(_MOST_IMAGES, 2**23 // num_bytes))
