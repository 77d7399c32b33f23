"""What is left of a model's ability: a bar for every retention that was found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from driftscope.analysis.chart import Axis, Chart, Marks, Panel, points
from driftscope.analysis.zero_shot import is_number
from driftscope.metrics import KEPT_PCT, METRICS
from driftscope.records import retention_interval_pct

KEPT = "kept"
_RETENTION = METRICS["retention_pct"]

Bar = tuple[str, float, tuple[float, float] | None]
"""What it is of, how much is left, and the ends of its interval, in percent."""


def kept_chart(name: str, found: Mapping[str, Any], budget_pct: float = KEPT_PCT) -> Chart | None:
    """A bar a transfer set and one for the pool, with their intervals, and the budget's line.

    None where nothing is known.

    Args:
        name: the chart's name.
        found: with `transfer` and `estimate`, as the JSON values of a comparison or a look hold
            them.
        budget_pct: the retention to keep.
    """
    bars = [*_measured(found), *_estimated(found)]
    if not bars:
        return None
    names = tuple(what for what, _, _ in bars)
    ends = tuple(interval for _, _, interval in bars)
    most = max([100.0, *(pct for _, pct, _ in bars), *(high for _, high in filter(None, ends))])
    told = "; ".join(f"{what} {_RETENTION.with_unit(pct)}" for what, pct, _ in bars)
    panel = Panel(
        "kept",
        "",
        Axis(f"{_RETENTION.heading}\n(line: the {budget_pct:g} % to keep)", limits=(0.0, most)),
        Axis("", scale="names", names=names),
        (
            Marks(points(pct for _, pct, _ in bars), names, "bars", KEPT, x_ends=ends),
            Marks((budget_pct,) * 2, (-0.6, len(names) - 0.4)),
        ),
        words=f"Retention with its interval: {told}. A line stands at the {budget_pct:g} % to "
        "keep.",
    )
    return Chart(name, ((panel,),), legend=(KEPT,))


def _measured(found: Mapping[str, Any]) -> Iterator[Bar]:
    for name, score in (found.get("transfer") or {}).items():
        if is_number(score.get("retention_pct")):
            yield f"{name}, measured", score["retention_pct"], retention_interval_pct(score)


def _estimated(found: Mapping[str, Any]) -> Iterator[Bar]:
    estimate = found.get("estimate") or {}
    if is_number(estimate.get("retention_pct")):
        low, high = estimate.get("low_90_pct"), estimate.get("high_90_pct")
        ends = None if low is None or high is None else (float(low), float(high))
        yield f"{estimate['pool']}, estimated", estimate["retention_pct"], ends
