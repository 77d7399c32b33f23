"""One look at the model in training: its numbers, under the names that records use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from driftscope.errors import RecordError
from driftscope.monitor.alerts import Alert
from driftscope.reading import Drift, Reading
from driftscope.records import transfer_scalars

OBSERVATION = "observation"
"""The `kind` of its line in `events.jsonl`."""
_LEVELS = {
    "entropy_nats": "entropy",
    "erf95": "erf95",
    "gini": "gini",
    "head_diversity": "head_diversity",
}
_DRIFT_FIELDS = tuple(one.name for one in fields(Drift))


@dataclass(frozen=True)
class Observation:
    """What was seen of the model at one step.

    Attributes:
        step: optimizer steps done, as the caller counts them.
        epoch: epochs done, where the caller said.
        val_accuracy_pct: accuracy on the target task in percent, where the caller said.
        drift: against the pretrained model; None where the model could not be read, and then an
            alert says why.
        levels: attention signals themselves, such as `entropy_nats`, means over all.
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

    def scalars(self, *, per_layer: bool = False) -> dict[str, float]:
        """Every single number that is there and finite, by the names that records use.

        Units are in the names or in `driftscope.reading.UNITS`. For loggers and gates.

        Args:
            per_layer: also every layer's, as `cka_layer_01`, `delta_entropy_pct_layer_01`, …
        """
        scalars: dict[str, float | None] = {
            "val_accuracy_pct": self.val_accuracy_pct,
            **transfer_scalars(self.transfer),
            **(self.drift.scalars() if self.drift else {}),
            **self.levels,
            **(_layer_scalars(self.drift) if self.drift and per_layer else {}),
        }
        return {
            name: value
            for name, value in scalars.items()
            if value is not None and math.isfinite(value)
        }

    def summary(self) -> str:
        """One line for a terminal."""
        scalars = self.scalars()
        parts = [
            form.format(scalars[name]) for name, form in _SUMMARY_PARTS if name in scalars
        ] or ["the model could not be read"]
        epoch = "" if self.epoch is None else f", epoch {self.epoch:g}"
        return f"step {self.step}{epoch}: {', '.join(parts)}"

    def to_event(self) -> dict[str, Any]:
        """The observation as a line of `events.jsonl`; `from_event` restores it."""
        return {
            "kind": OBSERVATION,
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds,
            **(self.drift.to_dict() if self.drift else {}),
            **self.levels,
            "val_accuracy_pct": self.val_accuracy_pct,
            **transfer_scalars(self.transfer),
            "transfer": dict(self.transfer),
            "alerts": [asdict(alert) for alert in self.alerts],
        }

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> Observation:
        """The observation that `to_event` wrote.

        Raises:
            RecordError: the line is none.
        """
        try:
            drift = {name: event[name] for name in _DRIFT_FIELDS if name in event}
            return cls(
                step=int(event["step"]),
                epoch=event["epoch"],
                val_accuracy_pct=event["val_accuracy_pct"],
                drift=Drift(**drift) if drift else None,
                levels={name: event[name] for name in _LEVELS if name in event},
                transfer=event["transfer"],
                alerts=tuple(Alert(**alert) for alert in event["alerts"]),
                seconds=float(event["seconds"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RecordError(f"this is no stored observation ({error!r})") from None


def levels_of(reading: Reading) -> dict[str, float]:
    """The attention signals of a reading, each the mean over images, heads and layers."""
    return {name: reading.mean(signal) for name, signal in _LEVELS.items()}


def _layer_scalars(drift: Drift) -> dict[str, float | None]:
    """Every number of the per-layer lists, layers from 1 in two digits, so that names sort."""
    return {
        f"{name.removesuffix('_per_layer').removesuffix('_per_block')}_layer_{layer:02}": value
        for name, values in drift.to_dict().items()
        if isinstance(values, list)
        for layer, value in enumerate(values, start=1)
    }


_SUMMARY_PARTS = (
    ("val_accuracy_pct", "accuracy {:.1f} %"),
    ("retention_pct", "retention {:.1f} %"),
    ("embedding_drift", "embedding drift {:.3f}"),
    ("cka", "CKA {:.3f}"),
    ("delta_entropy_pct", "Δ entropy {:+.1f} %"),
)
