"""What observing costs of the time that a training takes."""

from __future__ import annotations

import time


class Cost:
    """The wall time of this process's observations, beside that since the training was begun.

    Attributes:
        seconds: what the observations took.
        num_observations: how many they were.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.num_observations = 0
        self._began = self._until = time.perf_counter()

    def note_time(self) -> None:
        """Says that the training has come this far: what is done after it is not its time."""
        self._until = time.perf_counter()

    def add(self, seconds: float) -> None:
        """Counts one observation that has just ended."""
        self.seconds += seconds
        self.num_observations += 1
        self.note_time()

    def share_with(self, more_seconds: float = 0.0) -> float:
        """The observations' share of the time in percent, in [0, 100]; one may be going on."""
        until = time.perf_counter() if more_seconds else self._until
        spent = self.seconds + more_seconds
        return min(100.0, 100 * spent / max(until - self._began, 1e-9))
