"""One look at the model in training: its numbers, under the names that records use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from driftscope.errors import RecordError
from driftscope.metrics import (
    ESTIMATED,
    FORECAST,
    METRICS,
    drifts,
    find_metric,
    first_layer,
    levels,
    plugged_in,
)
from driftscope.monitor.alerts import Alert
from driftscope.reading import Drift, Reading
from driftscope.records import transfer_scalars

OBSERVATION = "observation"
"""The `kind` of its line in `events.jsonl`."""


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
        retrieval: recall both ways with `retention_pct`, by retrieval set.
        estimate: of retention from the pool, as JSON values; empty without one.
        forecast: of retention by a calibration, likewise.
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
    retrieval: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    estimate: Mapping[str, Any] = field(default_factory=dict)
    forecast: Mapping[str, Any] = field(default_factory=dict)

    def scalars(self, *, per_layer: bool = False) -> dict[str, float]:
        """Every single number that is there and finite, by the names that records use.

        Units are in the names or in `driftscope.metrics.units`. For loggers and gates.

        Args:
            per_layer: also every layer's, as `cka_layer_01`, `delta_entropy_pct_layer_01`, …
        """
        scalars: dict[str, float | None] = {
            "val_accuracy_pct": self.val_accuracy_pct,
            **transfer_scalars(self.transfer),
            FORECAST: self.forecast.get("retention_pct"),
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
        told = [*(METRICS[name] for name in _SUMMARY_PARTS), *plugged_in("epoch")]
        known = [one for one in told if one.key in scalars]
        parts = [f"{one.label} {one.with_unit(scalars[one.key])}" for one in known]
        parts = parts or ["the model could not be read"]
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
            "retrieval": dict(self.retrieval),
            **({"estimate": dict(self.estimate)} if self.estimate else {}),
            **({"forecast": dict(self.forecast)} if self.forecast else {}),
            "alerts": [asdict(alert) for alert in self.alerts],
        }

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> Observation:
        """The observation that `to_event` wrote.

        Raises:
            RecordError: the line is none.
        """
        try:
            drift = {name: event[name] for name in event if _is_of_a_drift(name)}
            return cls(
                step=int(event["step"]),
                epoch=event["epoch"],
                val_accuracy_pct=event["val_accuracy_pct"],
                drift=Drift.from_dict(drift) if "cka" in drift else None,
                levels={one.key: event[one.key] for one in levels() if one.key in event},
                transfer=event["transfer"],
                estimate=event.get("estimate") or {},
                forecast=event.get("forecast") or {},
                retrieval=event.get("retrieval", {}),
                alerts=tuple(Alert(**alert) for alert in event["alerts"]),
                seconds=float(event["seconds"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RecordError(f"this is no stored observation ({error!r})") from None


def levels_of(reading: Reading) -> dict[str, float]:
    """The attention signals of a reading, each the mean over images, heads and layers.

    Empty where attention was not read.
    """
    if not reading.num_layers:
        return {}
    return {one.key: reading.mean(one.field) for one in levels() if one.reads == "rows"}


def _is_of_a_drift(name: str) -> bool:
    found = find_metric(name)
    is_drift = found is not None and found.is_signal
    return is_drift or name in ("num_images", "unmeasured")


def _layer_scalars(drift: Drift) -> dict[str, float | None]:
    """Every number of the per-layer lists, layers from 1 in two digits, so that names sort."""
    num_layers = len(drift.cka_per_block)
    return {
        f"{one.key}_layer_{layer:02}": value
        for one in drifts()
        if (values := drift.by_layer.get(one.layer_field))
        for layer, value in enumerate(values, start=first_layer(len(values), num_layers))
    }


_SUMMARY_PARTS = (
    "val_accuracy_pct",
    "retention_pct",
    ESTIMATED,
    FORECAST,
    "cka",
    "embedding_drift",
    "delta_entropy_pct",
)
"""What a line in the terminal tells, before what plug-ins add."""
