"""Which epochs a run's numbers are of, where they are of two."""

from __future__ import annotations

from driftscope.records.folder import RunRecord


def epochs_sentence(record: RunRecord) -> str:
    """That drift is of another epoch than retention, as under `paper`; "" where it is not."""
    point, selected = record.structure_point, record.result.selected
    if point is None or selected is None or point.epoch == selected.epoch:
        return ""
    return (
        f"Drift and attention are of epoch {point.epoch}, the last one, as the protocol "
        f"“{record.spec.protocol}” has it. Accuracy and retention are of epoch {selected.epoch}, "
        "whose model is kept."
    )
