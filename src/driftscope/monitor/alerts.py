"""Alerts: what a person at a training would want to be told, and when."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Thresholds:
    """When an alert is raised; None switches one off.

    Attributes:
        drift_per_accuracy_point: embedding drift gained per point of validation accuracy gained,
            from one observation to the next, above which drift outpaces accuracy.
        least_drift_rise: smaller rises of embedding drift than this never outpace anything.
        late_contraction_pct: fall of attention entropy in the last third of the layers, in
            percent of the pretrained, from which it counts as contraction.
        min_retention_pct: retention (of the first transfer set) below which to alert.
        max_embedding_drift: embedding drift above which to alert.
        adapter_inactive: whether an adapter that does not act, or a model that has not changed
            at all after the first steps, is an alert.
        no_attention: whether a model whose attention cannot be read is an alert. (Its reading is
            missing in any case.)
        diverged: whether NaN or infinite weights or outputs are an alert.
        probe_in_training: whether probe images found among `train_images` are an alert.
    """

    drift_per_accuracy_point: float | None = 0.02
    least_drift_rise: float = 0.02
    late_contraction_pct: float | None = 15.0
    min_retention_pct: float | None = None
    max_embedding_drift: float | None = None
    adapter_inactive: bool = True
    no_attention: bool = True
    diverged: bool = True
    probe_in_training: bool = True


@dataclass(frozen=True)
class Alert:
    """One thing to be told.

    kind: `drift_outpaces_accuracy`, `late_contraction`, `low_retention`, `large_drift`,
        `adapter_inactive`, `unchanged`, `no_attention`, `diverged` or `probe_in_training`.
    sentence: what it is and what can be done, in plain words.
    step: where it was first seen; 0 before training.
    """

    kind: str
    sentence: str
    step: int
