"""What became of a run's retention budget."""

from __future__ import annotations

from driftscope.metrics import ESTIMATED, METRICS
from driftscope.records.folder import RunRecord


def budget_sentence(record: RunRecord) -> str:
    """Whether the selected epoch keeps the budget, as the pool tells it; "" without a budget.

    Such as "Budget 90 %: kept, by the lower end of 90.4 to 97.1 % (estimated 93.9 %); the change
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
    return (
        f"Budget {budget.retention_pct:g} %: {kept} (estimated {text(value)} %, lower end of the "
        f"90 % interval {text(low)} %){did}."
    )
