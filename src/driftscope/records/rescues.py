"""What the ways of a rescue kept of a run, in words."""

from __future__ import annotations

from collections.abc import Sequence

from driftscope.enough_images import why_too_few
from driftscope.metrics import METRICS
from driftscope.records.folder import RunRecord
from driftscope.records.schema import StoredRescue


def rescue_sentences(record: RunRecord) -> list[str]:
    """A sentence a budget, and one of what they are held against; none without a way in `post`.

    Such as "Rescue at 90 %: 94.7 % by search (retention measured 94.0 %), 92.0 % by wise (…).".
    """
    rows = record.result.rescues
    if not rows:
        frozen = bool(record.spec.ways) and record.result.selected is not None
        return ["Rescue: the encoder does not move, so nothing is lost."] if frozen else []
    budgets = dict.fromkeys(one.budget_pct for one in rows if one.budget_pct is not None)
    told = [
        f"Rescue at {budget:g} %: "
        + ", ".join(_kept(one) for one in rows if one.budget_pct == budget)
        + "."
        for budget in budgets
    ]
    told += _too_few_judge(rows[0].judging_num_images, list(budgets))
    ends = {one.way: one for one in rows if one.budget_pct is None}
    accuracy = METRICS["refitted_accuracy_pct"]
    probe, adapted = (ends[end].refitted_accuracy_pct for end in ("pretrained", "adapted"))
    return [
        *told,
        f"These are accuracies of new classifiers, not of the run's own "
        f"({rows[0].test_num_images} images): a linear probe on the untouched model, which keeps "
        "everything, has "
        f"{accuracy.text(probe)} %, the adapted model {accuracy.text(adapted)} %.",
    ]


def _too_few_judge(num_images: int | None, budgets_pct: Sequence[float]) -> list[str]:
    """That the ways keep little of the change at budgets that so few images judge."""
    if num_images is None:
        return []
    why = {budget: why_too_few(num_images, budget) for budget in budgets_pct}
    return [
        f"{told} So the ways keep little of the change there. A larger pool (pool_images) lets "
        "them keep more."
        for budget, told in why.items()
        if told
    ]


def _kept(one: StoredRescue) -> str:
    accuracy = METRICS["refitted_accuracy_pct"].text(one.refitted_accuracy_pct)
    if one.scale == 0:
        return f"by {one.way} nothing of the change"
    if one.retention_pct is None:
        return f"{accuracy} % by {one.way}"
    kept = METRICS["retention_pct"].text(one.retention_pct)
    return f"{accuracy} % by {one.way} (retention measured {kept} %)"
