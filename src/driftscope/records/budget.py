"""What became of a run's retention budget."""

from __future__ import annotations

from driftscope.config import BudgetSpec
from driftscope.enough_images import why_too_few
from driftscope.metrics import ESTIMATED, METRICS
from driftscope.records.folder import RunRecord


def budget_sentence(record: RunRecord) -> str:
    """Whether the selected epoch keeps the budget, as the pool tells it; "" without a budget.

    Such as "Budget 90 %: kept (estimated 93.9 % on the 150 images of PLACES that the budget looks
    at, lower end of the 90 % interval 90.4 %; on all 400 that were read it is 93.1 %); the change
    was shrunk at 2 of 5 looks.".
    """
    budget, selected = record.spec.budget, record.result.selected
    looks = [event for event in record.events if event.kind == "budget"]
    if budget is None or selected is None:
        return ""
    seen = [look for look in looks if look["epoch"] == selected.epoch]
    if not seen:
        return f"Budget {budget.retention_pct:g} %: the encoder does not move, so nothing is lost."
    low, value = seen[-1]["kept_low_90_pct"], seen[-1]["kept_retention_pct"]
    text = METRICS[ESTIMATED].text
    kept = "kept" if low >= budget.retention_pct else "NOT kept"
    shrunk = sum(look["budget_strength"] < 1 for look in looks)
    factor = seen[-1]["rate_factor"]
    acts = [f"the change was shrunk at {shrunk} of {len(looks)} looks"] if shrunk else []
    acts += (
        [f"the learning rate fell to {100 * factor:.0f} % of its schedule"] if factor < 1 else []
    )
    did = "; " + ", ".join(acts) if acts else ", and nothing had to be done"
    few, others = _read_on(record, budget.images, is_searched=budget.strengths == "searched")
    return (
        f"Budget {budget.retention_pct:g} %: {kept} (estimated {text(value)} % on {few}, lower end "
        f"of the 90 % interval {text(low)} %{others}){did}.{_too_few_judge(record, budget)}"
    )


def _too_few_judge(record: RunRecord, budget: BudgetSpec) -> str:
    """That so few images let the model change little within the budget."""
    read = record.spec.pool_images
    why = why_too_few(min(budget.images, read or budget.images), budget.retention_pct)
    if not why:
        return ""
    return f" {why} So the model may change little. More images of the budget let it change more."


def _read_on(record: RunRecord, num_looked_at: int, *, is_searched: bool) -> tuple[str, str]:
    """Of which images the budget's estimate is, and what all of the pool that was read says."""
    selected, pool = record.result.selected, record.spec.pool
    estimate = selected.estimate if selected else None
    if estimate is None or estimate.retention_pct is None or estimate.num_images is None:
        return f"at most {num_looked_at:,} images of {pool}", ""
    if num_looked_at >= estimate.num_images:
        return f"the {estimate.num_images:,} images of {pool}", ""
    whole = METRICS[ESTIMATED].text(estimate.retention_pct)
    seen = ", which is too high, as the search has learned to keep the others" * is_searched
    return (
        f"the {num_looked_at:,} images of {pool} that the budget looks at",
        f"; on all {estimate.num_images:,} that were read it is {whole} %{seen}",
    )
