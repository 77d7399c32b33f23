"""An image tower of a folder in the model that it is compared with, which lends it the texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from driftscope.backbones.model import VisionLanguageModel
from driftscope.backbones.relation import check_same_function
from driftscope.sources.fitting import completed
from driftscope.sources.preprocessor import pixel_convention


def with_texts_of(
    like: VisionLanguageModel, state: Mapping[str, Tensor], config: Any, folder: Path, name: str
) -> VisionLanguageModel:
    """A model's image tower with another model's texts, and its projection if it has none.

    Args:
        like: the model that lends them.
        state: the folder's weights.
        config: what the folder says of the tower.
        folder: where the preprocessor's configuration may be.
        name: how the user knows the folder.

    Raises:
        ModelError: the weights do not fit that model, or it computes another function of them.
    """
    model = completed(state, like, name)
    check_same_function(
        like.backbone.image_facts(like.backbone.vision_config(like.plain.config)),
        like.backbone.image_facts(config),
        like.source,
        name,
    )
    pixels = pixel_convention(str(folder), name, model.image_size, like.backbone)
    notes = model.notes + pixels.pop("notes", ())
    return replace(model, **pixels, notes=notes) if pixels.get("has_own_pixels", True) else model
