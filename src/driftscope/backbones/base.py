"""What a model family offers, and the image tower that is found by it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

_MOST_IMAGES = 64


class Backbone:
    """One model family. A family is a subclass in a file of its own and a row of `FAMILIES`.

    What is here holds for an image tower with a CLS token and no text tower, as transformers
    builds them. The names are those of the weights of the family's whole model.
    """

    family: ClassVar[str]
    model_type: ClassVar[str]
    """What transformers calls it in `config.json`."""
    whole: ClassVar[str | None] = None
    """The transformers class with both towers; None where a model of the family has no text."""
    towers: ClassVar[Mapping[str, str]]
    """Class of the image tower -> where its blocks are. Found by class name, so that transformers
    (7 seconds to import) is not imported and subclasses are recognised through their bases."""
    trained_alone: ClassVar[tuple[str, ...]] = ()
    """Classes of an image tower that people train without its text tower, the outer ones first."""
    has_fixed_input_size: ClassVar[bool] = True

    tower_name: ClassVar[str] = "vision_model"
    blocks_name: ClassVar[str] = "vision_model.layers"
    final_norm_name: ClassVar[str] = "vision_model.layernorm"
    projection_name: ClassVar[str | None] = None
    text_prefix: ClassVar[str | None] = None
    """How the names of the text tower's weights, and its projection's, begin."""
    adapter_targets: ClassVar[Mapping[str, str]] = {}
    """Name of a target in a method's spec -> the module in a block."""

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

    def embed_images(self, module: nn.Module, pixel_values: Tensor) -> Tensor | None:
        """Runs a module on its live path; its projected embeddings, None where it has none."""
        module(pixel_values=pixel_values)
        return None

    def embed_texts(self, module: Any, tokens: Mapping[str, Tensor]) -> Tensor:
        """Projected, unnormalised embeddings of tokenised texts."""
        embeddings: Tensor = module.get_text_features(**tokens).pooler_output
        return embeddings

    def logit_scale(self, plain: Any) -> Tensor:
        """The factor on cosine similarities in the zero-shot softmax, with its gradient."""
        scale: Tensor = plain.logit_scale.exp()
        return scale

    def for_embedding_alone(self, plain: Any) -> AbstractContextManager[None]:
        """Inside, the tower may leave out what only other outputs than the embedding need."""
        del plain
        return nullcontext()

    def tower_with_projection(self, tower: nn.Module, projection: nn.Module | None) -> nn.Module:
        """A tower of `trained_alone` as a module that embeds images; `projection` where it has none
        of its own."""
        del projection
        return tower

    # ------------------------------------------------------------ the configuration

    def vision_config(self, config: Any) -> Any:
        """The image tower's part of a configuration."""
        return getattr(config, "vision_config", config)

    def embedding_dim(self, config: Any) -> int:
        """Length of a projected embedding."""
        return int(config.projection_dim)

    def text_length(self, config: Any) -> int:
        """The most tokens that the text tower takes."""
        return int(config.text_config.max_position_embeddings)

    def vocabulary_size(self, config: Any) -> int:
        """How many tokens the text tower knows."""
        return int(config.text_config.vocab_size)

    def image_facts(self, config: Any) -> dict[str, object]:
        """What decides the image tower's function beside its weights, by a name to be shown."""
        return _tower_facts("image", config)

    def text_facts(self, config: Any) -> dict[str, object]:
        """The same of the text tower, from the whole model's configuration; empty without one."""
        text = getattr(config, "text_config", None)
        return {} if text is None else _tower_facts("text", text)

    # ------------------------------------------------------------ names of weights

    def is_encoder_weight(self, name: str) -> bool:
        """Whether a weight belongs to the image tower or its projection."""
        parts = (self.tower_name, self.projection_name or self.tower_name)
        return name.startswith(tuple(f"{part}." for part in parts))

    def is_text_weight(self, name: str) -> bool:
        """Whether a weight belongs to the text tower or its projection."""
        return self.text_prefix is not None and name.startswith(self.text_prefix)

    def block_of(self, name: str) -> int | None:
        """The block of the image tower that a weight or module is in, from 0."""
        match = re.match(rf"{re.escape(self.blocks_name)}\.(\d+)\.", name)
        return int(match.group(1)) if match else None


def _tower_facts(tower: str, config: Any) -> dict[str, object]:
    return {
        f"the {tower} tower's activation": config.hidden_act,
        f"the {tower} tower's number of attention heads": config.num_attention_heads,
        f"the {tower} tower's layer norm epsilon": config.layer_norm_eps,
    }


@dataclass(frozen=True)
class ImageTower:
    """The image tower found inside a module: the part whose attention is read.

    `num_prefix` counts the tokens before the patches: the CLS token, then registers.
    """

    module: nn.Module
    blocks: list[nn.Module]
    num_prefix: int
    config: Any
    backbone: Backbone

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
