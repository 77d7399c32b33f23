"""AltCLIP: CLIP's image tower beside an XLM-RoBERTa."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from driftscope.backbones.clip import Clip


class AltClip(Clip):
    """transformers' AltCLIPModel, or its image tower by itself."""

    family = "AltCLIP"
    whole = "AltCLIPModel"
    classes: ClassVar[Mapping[str, str]] = {
        "altclip": "AltCLIPModel",
        "altclip_vision_model": "AltCLIPVisionModel",
    }
    towers: ClassVar[Mapping[str, str]] = {"AltCLIPVisionModel": "encoder.layers"}
    trained_alone: ClassVar[tuple[str, ...]] = ("AltCLIPVisionModel",)

    def text_facts(self, config: Any) -> dict[str, object]:
        """Also the padding token, from whose number positions are counted."""
        text = getattr(config, "text_config", None)
        padding = {} if text is None else {"the text tower's padding token": text.pad_token_id}
        return {**super().text_facts(config), **padding}

    def text_length(self, config: Any) -> int:
        """RoBERTa counts positions from behind its padding token's number."""
        text = config.text_config
        return int(text.max_position_embeddings - text.pad_token_id - 1)

    def end_of_text(self, config: Any) -> None:
        """Texts are pooled at their first token."""
