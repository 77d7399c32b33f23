"""What became of a run's retention budget."""

from __future__ import annotations

from collections.abc import Sequence

from driftscope.config import BudgetSpec
from driftscope.config.interventions import Restore
from driftscope.enough_images import why_too_few
from driftscope.metrics import ESTIMATED, METRICS
from driftscope.records.folder import RunRecord
from driftscope.records.schema import Point
from driftscope.records.watched_schema import Event


def budget_sentence(record: RunRecord) -> str:
    """Whether the selected epoch keeps the budget, as the pool tells it; "" without a budget.

    It is told of the last look, but where a part goes back to W₀ after every look (`restore`), of
    the model that is kept.

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
    restored = [one.label for one in record.spec.interventions if isinstance(one, Restore)]
    judged = (
        _judged_as_kept(selected, seen[-1], restored, record, budget)
        if restored
        else _judged_by_look(seen[-1], record, budget)
    )
    shrunk = sum(look["budget_strength"] < 1 for look in looks)
    factor = seen[-1]["rate_factor"]
    acts = [f"the change was shrunk at {shrunk} of {len(looks)} looks"] if shrunk else []
    acts += (
        [f"the learning rate fell to {100 * factor:.0f} % of its schedule"] if factor < 1 else []
    )
    did = "; " + ", ".join(acts) if acts else ", and nothing had to be done"
    too_few = _too_few_judge(record, budget)
    return f"Budget {budget.retention_pct:g} %: {judged}{did}.{too_few}"


def _judged_by_look(look: Event, record: RunRecord, budget: BudgetSpec) -> str:
    few, others = _read_on(record, budget.images, is_searched=budget.strengths == "searched")
    value, low = look["kept_retention_pct"], look["kept_low_90_pct"]
    return f"{_is_kept(low, budget)} ({_estimated(value, low, few)}{others})"


def _judged_as_kept(
    selected: Point, look: Event, restored: Sequence[str], record: RunRecord, budget: BudgetSpec
) -> str:
    """By the estimate of the model with its parts at W₀, on all of the pool that was read."""
    whose = f"of the model that is kept, with {' and '.join(restored)}"
    before = f"; before that {METRICS[ESTIMATED].text(look['kept_retention_pct'])} %"
    found = selected.estimate
    if found is None or found.retention_pct is None or found.low_90_pct is None:
        return f"not known to be kept (nothing was estimated {whose}{before})"
    count = found.num_images
    is_learned = budget.strengths == "searched" and (count is None or count > budget.images)
    images = f"{'' if count is None else f'the {count:,} '}images of {record.spec.pool}"
    told = _estimated(found.retention_pct, found.low_90_pct, images)
    learned = _LEARNED * is_learned
    return f"{_is_kept(found.low_90_pct, budget)} ({told}, {whose}{learned}{before})"


def _is_kept(low_90_pct: float, budget: BudgetSpec) -> str:
    return "kept" if low_90_pct >= budget.retention_pct else "NOT kept"


def _estimated(value: float, low: float, images: str) -> str:
    text = METRICS[ESTIMATED].text
    return f"estimated {text(value)} % on {images}, lower end of the 90 % interval {text(low)} %"


_LEARNED = ", which is too high, as the search has learned to keep the others"


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
    seen = _LEARNED * is_searched
    return (
        f"the {num_looked_at:,} images of {pool} that the budget looks at",
        f"; on all {estimate.num_images:,} that were read it is {whole} %{seen}",
    )
