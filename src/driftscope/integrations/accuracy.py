"""What both callbacks take: a monitor, and the accuracy that a trainer's evaluation leaves."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from reprlib import repr as short
from typing import Any, Literal

from driftscope.errors import ConfigError
from driftscope.monitor import Monitor

AccuracyUnit = Literal["fraction", "percent"]
_PER_CENT = {"fraction": 100.0, "percent": 1.0}


def check_monitor(monitor: object, usage: str) -> None:
    """Raises ConfigError where a callback is given something else as its monitor."""
    if not isinstance(monitor, Monitor):
        raise ConfigError(
            f"monitor is a {type(monitor).__name__}; give a driftscope.Monitor, as in {usage}"
        )


class AccuracyMetric:
    """Which of a trainer's metrics is the accuracy on the target task, and in what unit.

    Training is never ended over it: where the metric cannot be used, one warning says what there
    is, and the monitor goes on without an accuracy.

    Args:
        name: the metric's name; None where there is none.
        unit: `fraction` for values in [0, 1], `percent` for values in [0, 100].

    Raises:
        ConfigError: the unit is neither.
    """

    def __init__(self, name: str | None, unit: AccuracyUnit) -> None:
        if unit not in _PER_CENT:
            raise ConfigError(
                f"accuracy_unit is {unit!r}, but it must be 'fraction' (values in [0, 1]) or "
                "'percent' (values in [0, 100])."
            )
        self.name = name
        self.unit = unit
        self._has_warned = False

    def in_percent(self, metrics: Mapping[str, Any]) -> float | None:
        """The accuracy in percent, in [0, 100]; None where it is not among the metrics."""
        if self.name is None:
            return None
        if self.name not in metrics:
            self._warn_once(
                f"the evaluation gave no metric {self.name!r}, so drift cannot be weighed against "
                f"accuracy; it gave {', '.join(sorted(metrics)) or 'none at all'}"
            )
            return None
        try:
            value = float(metrics[self.name])
        except (TypeError, ValueError, RuntimeError):  # a dict, a word, a tensor of several
            self._warn_once(f"the metric {self.name!r} is {short(metrics[self.name])}, no number")
            return None
        accuracy_pct = value * _PER_CENT[self.unit]
        if 0.0 <= accuracy_pct <= 100.0:
            return accuracy_pct
        self._warn_once(
            f"the metric {self.name!r} is {value:g}, which is no accuracy as a {self.unit}"
        )
        return None

    def _warn_once(self, sentence: str) -> None:
        if not self._has_warned:
            warnings.warn(
                f"driftscope: {sentence}. Name the metric with accuracy_metric= and its unit with "
                "accuracy_unit='fraction' or 'percent'.",
                stacklevel=3,
            )
            self._has_warned = True
