"""What became of a run's interventions."""

from __future__ import annotations

from driftscope.records.folder import RunRecord


def intervention_sentences(record: RunRecord) -> list[str]:
    """A sentence an act that the model of the selected epoch has behind it; none without any.

    Such as "Step 20: reset_attention_epoch1 undid a change of norm 1.26.".
    """
    selected = record.result.selected
    acts = [event for event in record.events if event.kind == "intervention"]
    if selected is None:
        return []
    until = [act for act in acts if act["epoch"] <= selected.epoch]
    # what is done again at every look is told of the last one
    latest = {act["intervention"]: act for act in until}
    return [f"Step {act['step']}: {act['intervention']} {_did(act)}." for act in latest.values()]


def _did(act: dict[str, float]) -> str:
    if "num_shrunk" in act:
        return f"shrank a layer's change {act['num_shrunk']} times in the epoch"
    if "mean_factor" in act:
        factor = f"{100 * act['mean_factor']:.0f} %"
        return f"let the steps of the epoch run at {factor} of their learning rates on average"
    return f"undid a change of norm {act['undone_norm']:.3g}"
