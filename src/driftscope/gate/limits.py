"""What can be limited: the metrics that a report holds, each with the options of the command."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from driftscope.errors import ConfigError
from driftscope.metric import Metric
from driftscope.metrics import FORECAST, METRICS, drifts
from driftscope.protocols import ACCURACIES


@dataclass(frozen=True)
class Gated:
    """A metric that can be limited, and whether the limit is the least or the most it may be."""

    metric: Metric
    bound: Literal["min", "max"]

    @property
    def parameter(self) -> str:
        """The option's name as Python writes it, such as `max_embedding_drift`."""
        return self.metric.limited_as(self.bound)

    @property
    def option(self) -> str:
        """The option as it is typed, such as `--max-embedding-drift`."""
        return self.metric.limit_option(self.bound)

    @property
    def meaning(self) -> str:
        """What is limited, for the command's help."""
        one = self.metric
        size = "size of the " if one.is_change else ""
        return f"{size}{one.definition}{f', {one.unit}' if one.unit else ''}"

    @property
    def of_transfer_set(self) -> bool:
        """Whether each transfer set has its own."""
        return "transfer" in self.metric.exists

    def keeps(self, value: float, limit: float) -> bool:
        """Whether a value is within the limit, which is itself within; NaN is not."""
        measured = abs(value) if self.metric.is_change else value
        return measured >= limit if self.bound == "min" else measured <= limit


def _gated(one: Metric) -> list[Gated]:
    if one.better is None:
        return [Gated(one, "max")] if one.is_change else [Gated(one, "min"), Gated(one, "max")]
    return [Gated(one, "min" if one.better == "higher" else "max")]


_OUTCOMES = (
    "retention_pct",
    FORECAST,
    *ACCURACIES.values(),
    "test_accuracy_pct",
    "val_accuracy_pct",
)
_IN_ORDER = sorted(drifts(), key=lambda one: one.is_change)
GATED = tuple(
    gated for one in (*map(METRICS.__getitem__, _OUTCOMES), *_IN_ORDER) for gated in _gated(one)
)
"""Everything that can be limited, in the order in which it is shown: every number of a report."""


@dataclass(frozen=True)
class Limit:
    """What was asked: a number's least or most; `transfer` is None for every transfer set."""

    gated: Gated
    value: float
    transfer: str | None = None


def parse_limit(gated: Gated, text: str) -> Limit:
    """The limit that an option's value asks for: `90`, or for a transfer set `pets=90`.

    Raises:
        ConfigError: it is no number, or one that this number's unit makes no sense of.
    """
    transfer, equals, number = text.rpartition("=")
    if equals and not gated.of_transfer_set:
        raise ConfigError(f"{gated.option} takes a number alone, not {text!r}")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        named = " or NAME=NUMBER" if gated.of_transfer_set else ""
        raise ConfigError(f"{gated.option} takes a number{named}, not {text!r}")
    least, most = gated.metric.limit_range
    if not least <= value <= most:
        unit = f" {gated.metric.unit}" if gated.metric.unit else ""
        end = f" to {most:g}" if math.isfinite(most) else " on"
        percent = f"; for {100 * value:g} % write {100 * value:g}" if 0 < value < least else ""
        raise ConfigError(
            f"{gated.option} {value:g} makes no sense: a limit lies from {least:g}{end}{unit}"
            f"{percent if gated.metric.unit == '%' else ''}"
        )
    return Limit(gated, value, transfer or None)
