"""When an observation is due."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from driftscope.errors import ConfigError

Every = Literal["epoch"] | int | Sequence[int]


@dataclass
class Schedule:
    """Due at the end of epochs, every so many steps, or at given steps.

    Raises:
        ConfigError: `every` is none of these.
    """

    every: Every

    def __post_init__(self) -> None:
        every = self.every
        if isinstance(every, str) and every == "epoch":
            return
        steps = every if isinstance(every, Sequence) else [every]
        is_steps = all(
            isinstance(step, int) and not isinstance(step, bool) and step > 0 for step in steps
        )
        if not (is_steps and steps):
            raise ConfigError(
                f"every is {every!r}; give 'epoch', a number of steps such as 500, or a list of "
                "steps such as [100, 1000]"
            )

    def is_due(
        self, step: int, epoch: float | None, last_step: int, last_epoch: float | None
    ) -> bool:
        """Whether to observe now, given where the last observation was (step 0 before any)."""
        if self.every == "epoch":
            return _epoch_is_due(epoch, last_epoch)
        if isinstance(self.every, int):
            return step // self.every != last_step // self.every
        return any(last_step < due <= step for due in self.every if isinstance(due, int))


def has_gone_back(step: int, epoch: float | None, last_step: int, last_epoch: float | None) -> bool:
    """Whether another training has begun since: by steps, or by whole epochs (floats round)."""
    if epoch is None or last_epoch is None:
        return step < last_step
    return step < last_step or math.floor(epoch) < math.floor(last_epoch)


def _epoch_is_due(epoch: float | None, last_epoch: float | None) -> bool:
    if epoch is None:
        return True
    if isinstance(epoch, int):
        return last_epoch is None or math.floor(last_epoch) != epoch
    return math.floor(epoch) > math.floor(last_epoch or 0.0)
