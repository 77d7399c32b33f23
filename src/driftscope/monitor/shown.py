"""Attention of a few images, held for looking at."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from driftscope.monitor.baseline import Baseline
from driftscope.monitor.observation import Observation
from driftscope.records import Overlay


class Shown:
    """The attention of the shown images at some steps; it is large, so few are held.

    Args:
        baseline: whose images are shown, and whose attention it is compared with.
    """

    def __init__(self, baseline: Baseline) -> None:
        self._baseline = baseline
        self._rows: dict[int, Tensor] = {}

    def keep_only(self, steps: Collection[int]) -> None:
        """Lets go of all other steps."""
        self._rows = {at: held for at, held in self._rows.items() if at in steps}

    def add(self, step: int, rows: Tensor | None) -> None:
        """Holds those of one more step, [image, layer, head, patch], if they could be read."""
        if rows is not None:
            self._rows[step] = rows

    def overlays(self, **named: Observation | None) -> dict[str, Overlay]:
        """Attention maps of these observations, as far as they are held."""
        return {
            f"{name} (step {one.step})": self._baseline.overlay(self._rows[one.step])
            for name, one in named.items()
            if one is not None and one.step in self._rows
        }
