"""One look at the model in training: its numbers, under the names that records use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from driftscope.monitor.alerts import Alert
from driftscope.readings import Drift

OBSERVATION = "observation"
"""The `kind` of its line in `events.jsonl`."""
_DRIFT_FIELDS = frozenset(one.name for one in fields(Drift))


@dataclass(frozen=True)
class Observation:
    """What was seen of the model at one step.

    Attributes:
        step: optimizer steps done, as the caller counts them.
        epoch: epochs done, where the caller said.
        val_accuracy_pct: accuracy on the target task in percent, where the caller said.
        drift: against the pretrained model; None where the model could not be read, and then an
            alert says why.
        levels: mean attention signals, such as `entropy_nats`.
        transfer: a score's fields with `retention_pct`, by transfer set.
        alerts: what holds at this step, the same at every observation until it is over.
        seconds: wall time that this observation took.
    """

    step: int
    epoch: float | None
    val_accuracy_pct: float | None
    drift: Drift | None
    levels: Mapping[str, float] = field(default_factory=dict)
    transfer: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    alerts: tuple[Alert, ...] = ()
    seconds: float = 0.0

    def scalars(self) -> dict[str, float]:
        """Every single number that is there and finite, by the names that records use.

        Units are in the names or in `driftscope.readings.UNITS`. For loggers and gates.
        """
        raise NotImplementedError

    def summary(self) -> str:
        """One line for a terminal."""
        raise NotImplementedError

    def to_event(self) -> dict[str, Any]:
        """The observation as a line of `events.jsonl`; `from_event` restores it."""
        raise NotImplementedError

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> Observation:
        """The observation that `to_event` wrote.

        Raises:
            RecordError: the line is none.
        """
        raise NotImplementedError
