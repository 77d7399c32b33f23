"""The old place of the conversion of open_clip models that are in memory."""

from __future__ import annotations

from torch import nn

from driftscope.deprecation import renamed
from driftscope.sources import open_clip


def converted_open_clip(model: nn.Module) -> nn.Module:
    """The old name of `driftscope.sources.open_clip.converted`."""
    renamed("monitor.targets.converted_open_clip", "sources.open_clip.converted")
    return open_clip.converted(model)
