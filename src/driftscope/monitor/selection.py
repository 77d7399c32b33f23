"""The best checkpoint by two metrics: accurate enough, then the least drift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from driftscope.deprecation import keywords
from driftscope.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from driftscope.monitor.observation import Observation

Metric = Literal["embedding_drift", "retention_pct", "estimated_retention_pct", "cka"]


@keywords()
@dataclass(frozen=True)
class Selection:
    """How the best checkpoint is chosen, and when training ends early.

    Among the observations whose validation accuracy is within `within_points` of the best so far,
    the best is the one with the least drift (the highest retention, measured or estimated, or the
    highest CKA); of equals the more accurate, then the earlier one.

    Attributes:
        within_points: percentage points of validation accuracy that less drift may cost.
        by: `embedding_drift`, `retention_pct` (of the first transfer set),
            `estimated_retention_pct` (of the pool) or `cka`.
        patience: observations in a row without a new best after which training should stop;
            None never.

    Raises:
        ConfigError: a value that cannot be meant.
    """

    within_points: float = 1.0
    by: Metric = "embedding_drift"
    patience: int | None = None

    def __post_init__(self) -> None:
        if self.by not in get_args(Metric):
            raise ConfigError(
                f"selection by {self.by!r}: {did_you_mean(self.by, get_args(Metric))}"
            )
        if not self.within_points >= 0:
            raise ConfigError(
                f"within_points is {self.within_points}, but it must be 0 or more percentage points"
            )
        if self.patience is not None and self.patience < 1:
            raise ConfigError(f"patience is {self.patience}, but it must be at least 1, or None")

    def best(self, history: Sequence[Observation]) -> Observation | None:
        """The best observation; None where none has an accuracy and the metric."""
        return min(self._near_the_top(history), key=self._rank, default=None)

    def can_be_best(self, history: Sequence[Observation]) -> list[Observation]:
        """The best one, and those that become it if a more accurate one pushes it out.

        When accuracy rises the margin moves up and those below it drop out, for good. What is left
        may then be best although it never was: it is kept unless another one is at least as good
        in both metrics.
        """
        pool = sorted(
            self._near_the_top(history), key=lambda one: (-_accuracy(one), *self._rank(one))
        )
        kept: list[Observation] = []
        for one in pool:
            if not kept or self._loss(one) < self._loss(kept[-1]):
                kept.append(one)
        return kept

    def is_patience_lost(self, history: Sequence[Observation]) -> bool:
        """Whether the last `patience` observations have not changed which one is the best."""
        usable = self._usable(history)
        if self.patience is None or len(usable) <= self.patience:
            return False
        first = len(usable) - self.patience
        bests = [self.best(usable[:end]) for end in range(first, len(usable) + 1)]
        return all(one is bests[-1] for one in bests)

    def _usable(self, history: Sequence[Observation]) -> list[Observation]:
        return [
            one for one in history if one.val_accuracy_pct is not None and self.by in one.scalars()
        ]

    def _near_the_top(self, history: Sequence[Observation]) -> list[Observation]:
        usable = self._usable(history)
        top = max((_accuracy(one) for one in usable), default=0.0)
        # 94.1 - 93.1 is a little more than 1 in binary
        return [one for one in usable if top - _accuracy(one) <= self.within_points + 1e-9]

    def _loss(self, one: Observation) -> float:
        value = one.scalars()[self.by]
        return value if self.by == "embedding_drift" else -value

    def _rank(self, one: Observation) -> tuple[float, float, int]:
        return self._loss(one), -_accuracy(one), one.step


def _accuracy(one: Observation) -> float:
    return float(one.val_accuracy_pct or 0.0)
