"""The best checkpoint by two metrics: accurate enough, then the most ability kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from driftscope.deprecation import keywords
from driftscope.errors import ConfigError, did_you_mean
from driftscope.metrics import METRICS, plugged_in

if TYPE_CHECKING:
    from driftscope.monitor.observation import Observation

SUREST = ("retention_pct", "estimated_retention_pct", "cka")
"""What a selection goes by unless told, the first that is known: drift saturates, CKA less so."""


def selectable() -> tuple[str, ...]:
    """What a selection can go by: ours, and what plug-ins add that says which way is better."""
    return (*SUREST, "embedding_drift", *(one.key for one in plugged_in("epoch") if one.better))


@keywords()
@dataclass(frozen=True)
class Selection:
    """How the best checkpoint is chosen, and when training ends early.

    Among the observations whose validation accuracy is within `within_points` of the best so far,
    the best is the one with the highest retention (measured, else estimated), the highest CKA, the
    least embedding drift or the better number of a plug-in; of equals the more accurate, then the
    earlier one.

    Attributes:
        within_points: percentage points of validation accuracy that more retention may cost.
        by: `retention_pct` (of the first transfer set), `estimated_retention_pct` (of the pool),
            `cka`, `embedding_drift` or the key of a plug-in's metric; None for the first of the
            first three that is known.
        patience: observations in a row without a new best after which training should stop;
            None never.

    Raises:
        ConfigError: a value that cannot be meant.
    """

    within_points: float = 1.0
    by: str | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        if self.by is not None and self.by not in selectable():
            raise ConfigError(f"selection by {self.by!r}: {did_you_mean(self.by, selectable())}")
        if not self.within_points >= 0:
            raise ConfigError(
                f"within_points is {self.within_points}, but it must be 0 or more percentage points"
            )
        if self.patience is not None and self.patience < 1:
            raise ConfigError(f"patience is {self.patience}, but it must be at least 1, or None")

    def goes_by(self, history: Sequence[Observation]) -> str | None:
        """The metric that chooses among these observations; None where none is known."""
        known = {name for one in history for name in one.scalars()}
        return self.by or next((one for one in SUREST if one in known), None)

    def best(self, history: Sequence[Observation]) -> Observation | None:
        """The best observation; None where none has an accuracy and the metric."""
        candidates = self._near_the_top(history)
        return min(candidates, key=_Candidate.rank).seen if candidates else None

    def can_be_best(self, history: Sequence[Observation]) -> list[Observation]:
        """The best one, and those that become it if a more accurate one pushes it out.

        When accuracy rises the margin moves up and those below it drop out, for good. What is left
        may then be best although it never was: it is kept unless another one is at least as good
        in both metrics.
        """
        kept: list[_Candidate] = []
        for one in sorted(
            self._near_the_top(history), key=lambda one: (-one.accuracy, *one.rank())
        ):
            if not kept or one.loss < kept[-1].loss:
                kept.append(one)
        return [one.seen for one in kept]

    def is_patience_lost(self, history: Sequence[Observation]) -> bool:
        """Whether the last `patience` observations have not changed which one is the best."""
        usable = [one.seen for one in self._usable(history)]
        if self.patience is None or len(usable) <= self.patience:
            return False
        first = len(usable) - self.patience
        bests = [self.best(usable[:end]) for end in range(first, len(usable) + 1)]
        return all(one is bests[-1] for one in bests)

    def _usable(self, history: Sequence[Observation]) -> list[_Candidate]:
        by = self.goes_by(history)
        turn = 1 if by is not None and METRICS[by].better == "lower" else -1
        return [
            _Candidate(one, one.val_accuracy_pct, turn * value)
            for one in history
            if by is not None
            and one.val_accuracy_pct is not None
            and (value := one.scalars().get(by)) is not None
        ]

    def _near_the_top(self, history: Sequence[Observation]) -> list[_Candidate]:
        usable = self._usable(history)
        top = max((one.accuracy for one in usable), default=0.0)
        # 94.1 - 93.1 is a little more than 1 in binary
        return [one for one in usable if top - one.accuracy <= self.within_points + 1e-9]


@dataclass(frozen=True)
class _Candidate:
    """An observation that can be chosen; `loss` is the metric, turned so that less is better."""

    seen: Observation
    accuracy: float
    loss: float

    def rank(self) -> tuple[float, float, int]:
        return self.loss, -self.accuracy, self.seen.step
