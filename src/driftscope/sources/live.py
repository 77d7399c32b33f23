"""A model in memory, not copied, with what belongs to it where it was loaded from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from driftscope.backbones.model import VisionLanguageModel
from driftscope.hugging_face import offline_where_unreachable
from driftscope.sources.embedded import EMBEDDED
from driftscope.sources.hub import OPENAI_MEAN, OPENAI_STD, load_tokenizer, pixel_convention

if TYPE_CHECKING:
    from transformers import CLIPModel


def from_clip(clip: CLIPModel) -> VisionLanguageModel:
    """A CLIPModel as it is.

    Without a known place it gets OpenAI's pixel convention and no tokenizer.
    """
    where = str(clip.name_or_path or "")
    embedded = {str(folder): name for name, folder in EMBEDDED.items()}
    pixels: dict[str, Any] = {"mean": OPENAI_MEAN, "std": OPENAI_STD, "has_own_pixels": False}
    tokenizer = None
    if where:
        with offline_where_unreachable():
            pixels = pixel_convention(where, where)
            tokenizer = load_tokenizer(where, clip.config.text_config.vocab_size)
    return VisionLanguageModel(
        module=clip,
        tokenizer=tokenizer,
        image_size=int(clip.config.vision_config.image_size),
        source=embedded.get(where, where or "the given CLIPModel"),
        **pixels,
    )
