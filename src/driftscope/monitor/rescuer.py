"""The rescue of what a monitored training left, at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driftscope.backbones.model import VisionLanguageModel
from driftscope.data.given import Images
from driftscope.errors import ConfigError, DriftscopeError
from driftscope.monitor.kept_models import RESCUED_FOLDER, drop_rescued, kept_model


@dataclass(frozen=True, eq=False)
class Rescuer:
    """What a rescue needs, as the monitor was given it.

    Raises:
        ConfigError: the pretrained model has no name to load it by once more.
    """

    pretrained: Any
    images: Images
    pool: Images | None
    keep_pct: float
    asked_of: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not isinstance(self.pretrained, str | Path | VisionLanguageModel):
            raise ConfigError(
                "rescue loads the pretrained model once more, and a module may be trained by then; "
                "give it by name or folder"
            )

    def leave_in(self, out: Path) -> str:
        """Rescues the model of the stop, or the last one; a line of what came out."""
        kept = kept_model(out)
        if kept is None or self.pool is None:
            return "no model is rescued: none was kept"
        from driftscope.rescuing import rescue

        try:
            drop_rescued(out)
            found = rescue(
                self.pretrained,
                kept,
                self.images,
                self.pool,
                keep_pct=self.keep_pct,
                **self.asked_of,
            )
            found.save(out / RESCUED_FOLDER)
        except (OSError, RuntimeError, DriftscopeError) as error:
            return f"no model is rescued: {error}"
        return f"the rescued model is in {out / RESCUED_FOLDER}. {found.sentence()}"
