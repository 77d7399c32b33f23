"""Alerts: what a person at a training would want to be told, and when."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from driftscope.deprecation import keywords
from driftscope.errors import ConfigError, did_you_mean
from driftscope.gate.limits import GATED, Gated, parse_limit
from driftscope.metric import Metric
from driftscope.metrics import KEPT_PCT, METRICS, known_retention
from driftscope.protocols import ZERO_SHOT, ability_on, protocol_of
from driftscope.reading import Drift

if TYPE_CHECKING:
    from driftscope.monitor.observation import Observation


UNREADABLE = "unreadable"
"""The kind that tells of the monitor, and nothing of the model."""


@keywords()
@dataclass(frozen=True)
class Thresholds:
    """When an alert is raised; None or False switches one off.

    Attributes:
        min_retention_pct: retention below which to alert: of the first transfer set, or where none
            was measured as the pool or a calibration tells it.
        drift_per_accuracy_point: embedding drift gained per percentage point of validation accuracy
            gained, above which drift outpaces accuracy. It speaks only where retention is neither
            measured, estimated nor forecast: drift alone says nothing of ability.
        least_drift_rise: the rise of embedding drift over which the two are compared, however many
            observations it took.
        late_contraction_pct: fall of attention entropy in the last third of the layers, in
            percent of the pretrained, from which it counts as contraction.
        max_embedding_drift: embedding drift above which to alert.
        limits: further limits by the names of `driftscope gate`, such as `{"max_text_kl": 0.5}`:
            every number of an observation can have one.
        adapter_inactive: whether an adapter that does not act is an alert.
        unchanged: whether an encoder that is to be trained and has not changed after an epoch,
            after more than 10 steps or at two observations in a row is an alert. (At one before
            that, a warmup may be at rate 0 still.)
        no_attention: whether a model whose attention cannot be read is an alert. (Its numbers are
            missing in any case.)
        unreadable: whether an observation that failed for want of memory, or by an error of torch's
            own, is an alert. It ends no training by itself.
        diverged: whether NaN or infinite weights or outputs are an alert.
        probe_in_training: whether probe images found among `train_images` are an alert.

    Raises:
        ConfigError: a value that cannot be meant.
    """

    min_retention_pct: float | None = KEPT_PCT
    drift_per_accuracy_point: float | None = 0.005
    least_drift_rise: float = 0.05
    late_contraction_pct: float | None = 15.0
    max_embedding_drift: float | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    adapter_inactive: bool = True
    unchanged: bool = True
    no_attention: bool = True
    unreadable: bool = True
    diverged: bool = True
    probe_in_training: bool = True

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name == "limits":
                for name, limit in value.items():
                    parse_limit(_gated(name), str(limit))
            elif one.name not in _LIMITS:
                if not isinstance(value, bool | None):
                    raise ConfigError(f"{one.name} is {value!r}; give True or False")
            elif value is False or value is None:
                object.__setattr__(self, one.name, None)
            else:
                _check_limit(one.name, value)
        if self.least_drift_rise is None:
            raise ConfigError(
                "least_drift_rise is off, but drift_per_accuracy_point needs it; "
                "to switch that alert off give drift_per_accuracy_point=None"
            )


_LIMITS = {
    "drift_per_accuracy_point": (0.0, 2.0),
    "least_drift_rise": (0.0, 2.0),
    "late_contraction_pct": (0.0, 100.0),
    "min_retention_pct": METRICS["retention_pct"].limit_range,
    "max_embedding_drift": METRICS["embedding_drift"].limit_range,
}
"""Where a threshold can lie; one outside was meant in another unit, and would never be met."""


def _gated(name: str) -> Gated:
    by_name = {one.parameter: one for one in GATED}
    if name not in by_name:
        raise ConfigError(
            f"limits has {name!r}, which limits nothing: {did_you_mean(name, by_name)}"
        )
    return by_name[name]


def _check_limit(name: str, value: Any) -> None:
    least, most = _LIMITS[name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and least <= value <= most):
        raise ConfigError(f"{name} is {value!r}; give a number from {least:g} to {most:g}, or None")


@dataclass(frozen=True)
class Alert:
    """One thing to be told.

    Attributes:
        kind: the threshold that it belongs to: `drift_outpaces_accuracy`, `late_contraction`,
            `low_retention`, `large_drift`, `adapter_inactive`, `unchanged`, `no_attention`,
            `unreadable`, `diverged`, `probe_in_training` or the name of a limit.
        sentence: what it is and what can be done, in plain words.
        step: where it was seen; 0 before training.
    """

    kind: str
    sentence: str
    step: int


def alerts_of(
    now: Observation, earlier: Sequence[Observation], thresholds: Thresholds
) -> tuple[Alert, ...]:
    """What holds of an observation that could be read, given those before it."""
    if now.drift is None:
        return ()
    checks: tuple[Callable[[], Iterator[tuple[str, str]]], ...] = (
        lambda: _drift_outpaces_accuracy(now, earlier, thresholds),
        lambda: _late_contraction(now.drift, thresholds),
        lambda: _beyond_budget(now, thresholds),
    )
    return tuple(Alert(kind, sentence, now.step) for check in checks for kind, sentence in check())


def unchanged_alert(step: int, *, has_adapter: bool, thresholds: Thresholds) -> tuple[Alert, ...]:
    """Not one weight of an encoder that is in training has changed after `step` steps."""
    if not thresholds.unchanged or step <= 0:
        return ()
    what = "the adapter has had no effect on" if has_adapter else "nothing has changed in"
    return (
        Alert(
            "unchanged",
            f"After {step} steps {what} the image encoder: its weights are still the pretrained "
            "ones. Check that the optimizer was given its parameters and that the loss reaches "
            "them.",
            step,
        ),
    )


def probe_in_training_alert(
    num_found: int, num_probe: int, thresholds: Thresholds
) -> tuple[Alert, ...]:
    """Some probe images are training images."""
    if not num_found or not thresholds.probe_in_training:
        return ()
    return (
        Alert(
            "probe_in_training",
            f"{num_found} of the {num_probe} probe images are in the training set (equal pixels at "
            "the model's input size): the signals then tell of memory as well as of drift. Take "
            "other probe images.",
            0,
        ),
    )


def first_told(history: Sequence[Observation]) -> list[Alert]:
    """The alerts of these observations, the earliest first; one that goes on is there once."""
    told: list[Alert] = []
    before: set[str] = set()
    for one in history:
        told += [alert for alert in one.alerts if alert.kind not in before]
        before = {alert.kind for alert in one.alerts}
    return told


def told_before_training(headers: Sequence[Mapping[str, Any]]) -> tuple[Alert, ...]:
    """What the processes of a training found before they began: of the last that looked."""
    found = [header["alerts"] for header in headers if header.get("alerts") is not None]
    return tuple(Alert(**alert) for alert in found[-1]) if found else ()


def _drift_outpaces_accuracy(
    now: Observation, earlier: Sequence[Observation], thresholds: Thresholds
) -> Iterator[tuple[str, str]]:
    """Against the last observation from which the drift has risen by enough to be compared."""
    limit = thresholds.drift_per_accuracy_point
    if known_retention(now.scalars()) is not None:
        return
    if limit is None or (here := _accuracy_and_drift(now)) is None:
        return
    accuracy, drift = here
    for before in reversed(earlier):
        there = _accuracy_and_drift(before)
        if there is None or drift - there[1] < thresholds.least_drift_rise:
            continue
        rise = drift - there[1]
        if rise > limit * max(0.0, accuracy - there[0]):
            yield (
                "drift_outpaces_accuracy",
                f"Since step {before.step} the representation drifted by {rise:.3f} (to "
                f"{drift:.3f}) while validation accuracy went from {there[0]:.1f} to "
                f"{accuracy:.1f} %. Retention is neither measured nor estimated here, so whether "
                "ability is lost is not known: give the monitor unlabeled images (pool) or a "
                "labeled set (transfer).",
            )
        return


def _accuracy_and_drift(one: Observation) -> tuple[float, float] | None:
    drift = one.drift.embedding_drift if one.drift else None
    if one.val_accuracy_pct is None or drift is None:
        return None
    return one.val_accuracy_pct, drift


def _late_contraction(drift: Drift | None, thresholds: Thresholds) -> Iterator[tuple[str, str]]:
    limit = thresholds.late_contraction_pct
    change = drift.delta_late_entropy_pct if drift else None
    if drift is None or limit is None or change is None or change > -limit:
        return
    num_layers = len(drift.cka_per_block)
    yield (
        "late_contraction",
        f"Attention in the last {math.ceil(num_layers / 3)} of {num_layers} layers has narrowed: "
        f"its entropy is {-change:.0f} % below the pretrained. It says where the model looks now, "
        "not how much it forgot; retention says that.",
    )


def _beyond_budget(now: Observation, thresholds: Thresholds) -> Iterator[tuple[str, str]]:
    scalars = now.scalars()
    retention, least = known_retention(scalars), thresholds.min_retention_pct
    if retention is not None and least is not None and retention[1] < least:
        yield "low_retention", _lost_sentence(now, *retention, least)
    drift, most = scalars.get("embedding_drift"), thresholds.max_embedding_drift
    if drift is not None and most is not None and drift > most:
        yield (
            "large_drift",
            f"Embedding drift is {METRICS['embedding_drift'].text(drift)}, above the {most:g} that "
            "was asked for.",
        )
    for name, limit in thresholds.limits.items():
        gated = _gated(name)
        value = scalars.get(gated.metric.key)
        if value is not None and not gated.keeps(value, limit):
            where = "below" if gated.bound == "min" else "above"
            yield (
                name,
                f"{gated.metric.name} is {gated.metric.with_unit(value)}, {where} the {limit:g} "
                "that was asked for.",
            )


def _lost_sentence(now: Observation, metric: Metric, retention: float, least: float) -> str:
    is_measured = metric.key == "retention_pct"
    name = next(iter(now.transfer)) if is_measured else ""
    what = ability_on(name) if is_measured else "zero-shot ability"
    rescue = ""
    if protocol_of(name) == ZERO_SHOT:  # what k-NN or a probe scores may have no texts to rescue by
        rescue = "Afterwards driftscope rescue can win some of it back without training. "
    return (
        f"Only {metric.with_unit(retention)} of the pretrained {what} is left ({metric.label}; the "
        f"limit is {least:g} %). {rescue}A lower learning rate or an adapter may keep more."
    )
