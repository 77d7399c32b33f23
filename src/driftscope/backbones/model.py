"""One representation of a model whose images and texts are embedded, whatever it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from driftscope.backbones import find_image_tower
from driftscope.backbones.base import Backbone
from driftscope.backbones.evaluating import evaluating
from driftscope.data.framing import Framing
from driftscope.deprecation import keywords, renamed
from driftscope.errors import ModelError, told_as

if TYPE_CHECKING:
    from transformers import BatchEncoding, PreTrainedTokenizerBase

    from driftscope.data import PixelSource


@keywords(clip="module")
@dataclass(frozen=True)
class VisionLanguageModel:
    """A model ready to be read: the module, its tokenizer and its pixel convention.

    `module` is the family's whole model, or its image tower, or PEFT around one; call it as it is.
    `tokenizer` is None where the folder holds none (then texts cannot be embedded).
    `base_fingerprint` is that of the encoder it was adapted from, where that is known.
    """

    module: nn.Module = field(repr=False)
    tokenizer: PreTrainedTokenizerBase | None = field(repr=False)
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str
    base_fingerprint: str | None = None
    has_own_pixels: bool = True
    """Whether mean, std and framing are the model's own, and not CLIP's for want of any."""
    own_framing: Framing | None = None
    """Its preprocessor's, where that is not CLIP's."""
    notes: tuple[str, ...] = ()
    """What whoever reads its numbers should know of how it was loaded, a sentence each."""

    @property
    def framing(self) -> Framing:
        """How images become the square that it reads: `images.pixels(indices, model.framing)`."""
        return self.own_framing or Framing(self.image_size)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device

    @property
    def is_adapter(self) -> bool:
        """Whether a PEFT adapter wraps the model."""
        # peft leaves its peft_config on the wrapped model, too
        return hasattr(self.module, "get_base_model")

    @property
    def has_text(self) -> bool:
        """Whether it has a text tower, too."""
        return self.backbone.has_text(getattr(self.plain, "config", None))

    @cached_property
    def backbone(self) -> Backbone:
        """Its family."""
        return find_image_tower(self.module).backbone

    @property
    def plain(self) -> Any:
        """The whole model itself, with adapter layers inside where there are any."""
        return self.module.get_base_model() if self.is_adapter else self.module  # type: ignore[operator]

    @property
    def clip(self) -> nn.Module:
        """The old name of `module`."""
        renamed("VisionLanguageModel.clip", "VisionLanguageModel.module")
        return self.module

    @property
    def plain_clip(self) -> Any:
        """The old name of `plain`."""
        renamed("VisionLanguageModel.plain_clip", "VisionLanguageModel.plain")
        return self.plain

    @property
    def logit_scale(self) -> float:
        """The factor on cosine similarities in the model's own zero-shot softmax."""
        return float(self.backbone.logit_scale(self.plain).detach())

    @property
    def logit_bias(self) -> float | None:
        """What is added to them where each text is judged by itself, by a sigmoid; else None."""
        bias = self.backbone.logit_bias(self.plain)
        return None if bias is None else float(bias.detach())

    @property
    def embedding_dim(self) -> int:
        """Length of an image embedding."""
        return self.backbone.embedding_dim(self.plain)

    @cached_property
    def own_prefix(self) -> str:
        """What the family's whole model puts before the names of weights that `plain` has.

        Empty for a whole model; for an image tower by itself the tower's name there.
        """
        is_tower = find_image_tower(self.module).module is self.plain
        return f"{self.backbone.tower_name}." if is_tower else ""

    def normalise(
        self, pixels: UInt8[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image 3 height width"]:
        """Pixels as the encoder wants them, on its device: scaled to [0, 1], mean and std off."""
        shape = (1, len(self.mean), 1, 1)
        mean = torch.tensor(self.mean, device=self.device).view(shape)
        std = torch.tensor(self.std, device=self.device).view(shape)
        return (pixels.to(self.device, non_blocking=True).float() / 255 - mean) / std

    def image_embeddings(
        self, pixels: UInt8[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image dim"]:
        """Projected, unnormalised embeddings of one batch through the live path, with gradients."""
        with self.backbone.for_embedding_alone(self.plain):
            return self.backbone.embed_images(self.module, self.normalise(pixels))

    def embed_images(
        self, pixels: PixelSource, batch_size: int | None = None
    ) -> Float[Tensor, "image dim"]:
        """Projected, unnormalised embeddings in eval mode without gradients; mode restored."""
        batch_size = batch_size or find_image_tower(self.module).images_per_forward
        starts = range(0, len(pixels), batch_size)
        with evaluating(self.module):
            return torch.cat(
                [self.image_embeddings(pixels[start : start + batch_size]) for start in starts]
            )

    def embed_texts(self, texts: Sequence[str], batch_size: int = 256) -> Float[Tensor, "text dim"]:
        """Projected, unnormalised text embeddings.

        Raises:
            ModelError: the model came without a tokenizer.
        """
        parts = []
        with evaluating(self.module):
            for start in range(0, len(texts), batch_size):
                tokens = self.tokenised(texts[start : start + batch_size])
                parts.append(self.backbone.embed_texts(self.module, tokens))
        return torch.cat(parts)

    def tokenised(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Texts as the text tower takes them, on its device: padded, and cut to its length.

        Raises:
            ModelError: the model came without a tokenizer, or with another model's.
        """
        if not self.has_text:
            raise ModelError(
                f"{self.source} has no text tower, so class names cannot be turned into embeddings"
            )
        if self.tokenizer is None:
            raise ModelError(
                f"{self.source} has no tokenizer, so class names cannot be turned into embeddings; "
                "put the tokenizer files (tokenizer.json, tokenizer_config.json) into its folder"
            )
        tokens = self.encoded(
            [self.backbone.prepared_text(text) for text in texts],
            padding="max_length" if self.backbone.pads_texts_to_the_full_length else True,
            truncation=True,
            max_length=self.backbone.text_length(self.plain.config),
            return_tensors="pt",
        )
        size = self.backbone.vocabulary_size(self.plain.config)
        if (last := int(tokens["input_ids"].max())) >= size:
            raise ModelError(
                f"the tokenizer of {self.source} gives a token the number {last:,}, and the model "
                f"knows {size:,} tokens: it is another model's"
            )
        end = self.backbone.end_of_text(self.plain.config)
        if end is not None and not (tokens["input_ids"] == end).any(dim=-1).all():
            raise ModelError(  # transformers would pool at the first token, the same of all texts
                f"the text tower of {self.source} pools at the token {end}, and the tokenizer ends "
                "a text without it: it is another model's; put the model's own tokenizer files "
                "into its folder"
            )
        return dict(tokens.to(self.device))

    def encoded(self, texts: str | list[str], **options: Any) -> BatchEncoding:
        """What the tokenizer makes of texts.

        Raises:
            ModelError: there is none, or it fails on them, as its own patterns can make it.
        """
        if self.tokenizer is None:
            raise ModelError(f"{self.source} has no tokenizer")
        with told_as(ModelError, f"the tokenizer of {self.source} cannot read a text"):
            return self.tokenizer(texts, **options)

    def at_size(self, image_size: int) -> VisionLanguageModel:
        """The same, for which images are made at another size."""
        return replace(self, image_size=image_size, own_framing=self.framing.at(image_size))

    def to(self, device: torch.device | str) -> VisionLanguageModel:
        """The same model after moving its weights to a device."""
        self.module.to(device)
        return self
