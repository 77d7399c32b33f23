"""The course of one training: what was seen of it so far, and what was decided."""

from __future__ import annotations

from collections.abc import Sequence

from driftscope.monitor.alerts import Alert, first_told
from driftscope.monitor.observation import Observation
from driftscope.monitor.schedule import has_gone_back


class Course:
    """What one training has behind it.

    Args:
        before_training: the alerts of before its first step.
        history: what was observed of it until it is taken up here, in this process or another.
        at: the step at which it is taken up, where that is known; it has been observed then.
        stopped_before: why a former process's training was to end, where nothing came after.

    Attributes:
        history: every observation, the earliest first.
        alerts: every alert, the earliest first; one that goes on is there once.
        stop_reason: why it should end, in a sentence; None while it should not.
        stop_is_kept: whether the model at the stop has been written.
        text_tower: which one's class embeddings scored last; None before the first look of this
            process.
    """

    def __init__(
        self,
        before_training: Sequence[Alert],
        history: Sequence[Observation] = (),
        *,
        at: int | None = None,
        stopped_before: str | None = None,
    ) -> None:
        self.history = list(history)
        self.alerts = [*before_training, *first_told(history)]
        self.stop_reason: str | None = None
        self.stopped_before = stopped_before
        self.stop_is_kept = False
        self.text_tower: str | None = None
        self._taken_up_at = at
        self._num_taken_up = len(self.history)
        self._told: set[str] = set()

    @property
    def is_taken_up(self) -> bool:
        """Whether it goes on from observations, and none has been added to them yet."""
        return 0 < len(self.history) == self._num_taken_up

    def add(self, seen: Observation) -> list[Alert]:
        """Adds an observation; gives those of its alerts that have not been told since taken up."""
        going_on = {alert.kind for alert in self.history[-1].alerts} if self.history else set()
        self.alerts += [alert for alert in seen.alerts if alert.kind not in going_on]
        new = [alert for alert in seen.alerts if alert.kind not in self._told]
        self._told = {alert.kind for alert in seen.alerts}
        self.history.append(seen)
        self.stopped_before = None
        return new

    def continuing(self, history: list[Observation]) -> list[Observation]:
        """These observations, and what was seen of the same training after them.

        A trainer's checkpoint may have been written just before its own step was observed. Of one
        look in two places the seconds that it took are the same, of two looks they are not.
        """
        ours = self.history[: len(history)]
        is_same = [_which(one) for one in ours] == [_which(one) for one in history]
        return self.history if is_same else history

    def behind(self, step: int, epoch: float | None) -> list[Observation]:
        """The observations that a training at this place has behind it.

        All of them while it goes forward. One that has gone back, or is taken up at a step that was
        observed before, goes over its steps again: those before it remain. None do where one of
        them is of a later epoch, for then they are of another training.
        """
        if not self.history:
            return []
        last = self.history[-1]
        goes_over = self.is_taken_up and step <= last.step and step != self._taken_up_at
        if not goes_over and not has_gone_back(step, epoch, last.step, last.epoch):
            return self.history
        earlier = [one for one in self.history if one.step < step]
        is_another = any(has_gone_back(step, epoch, one.step, one.epoch) for one in earlier)
        return [] if is_another else earlier


def _which(one: Observation) -> tuple[int, float]:
    return one.step, one.seconds
