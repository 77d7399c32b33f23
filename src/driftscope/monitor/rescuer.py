"""The rescue of what a monitored training left, at its end."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from driftscope.backbones.model import VisionLanguageModel
from driftscope.data.given import Images
from driftscope.errors import ConfigError, DriftscopeError
from driftscope.monitor.kept_folders import is_kept, kept_folder
from driftscope.monitor.kept_models import RESCUED_FOLDER, kept_model


@dataclass(frozen=True, eq=False)
class Rescuer:
    """What a rescue needs, as the monitor was given it.

    Attributes:
        pretrained: by name, or as a copy: the module that was given may be trained by then.
        images, pool, keep_pct: as `rescue` takes them.
        asked_of: what else it is told.
    """

    pretrained: str | Path | VisionLanguageModel
    images: Images
    pool: Images
    keep_pct: float
    asked_of: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        pretrained: object,
        images: Images,
        pool: Images,
        keep_pct: float,
        asked_of: Mapping[str, Any],
        *,
        is_main: bool = True,
    ) -> Rescuer:
        """With the pretrained model as it is now, copied in the process that will rescue.

        Raises:
            ConfigError: it has no name to load it by once more.
        """
        if isinstance(pretrained, VisionLanguageModel) and is_main:
            pretrained = replace(pretrained, module=copy.deepcopy(pretrained.module))
        if not isinstance(pretrained, str | Path | VisionLanguageModel):
            raise ConfigError(
                "rescue loads the pretrained model once more, and a module may be trained by then; "
                "give it by name or folder"
            )
        return cls(pretrained, images, pool, keep_pct, asked_of)

    def leave_in(self, out: Path) -> str:
        """Rescues the model of the stop, or the last one; a line of what came out."""
        kept, place = kept_model(out), out / RESCUED_FOLDER
        if kept is None:
            return "no model is rescued: none was kept"
        from driftscope.rescuing import rescue

        try:
            found = rescue(
                self.pretrained,
                kept,
                self.images,
                self.pool,
                keep_pct=self.keep_pct,
                **self.asked_of,
            )
            with kept_folder(place) as partial:
                found.write_into(partial, called=place)
        except (OSError, RuntimeError, DriftscopeError) as error:
            earlier = f". {place} is of an earlier part of the training" * is_kept(place)
            return f"no model is rescued: {str(error).rstrip('.')}{earlier}"
        return f"the rescued model is in {place}. {found.sentence()}"


def refuse_rescue_at_another_size(
    keep_pct: float | None, image_size: int | None, pretrained: VisionLanguageModel
) -> None:
    """Raises `ConfigError` where a rescue is asked for that could only fail after the training."""
    if keep_pct is None or image_size in (None, pretrained.image_size):
        return
    raise ConfigError(
        f"rescue blends models of one image size, and image_size is {image_size}, but "
        f"{pretrained.source} reads images of {pretrained.image_size} pixels; leave rescue out, or "
        "train at that size"
    )
