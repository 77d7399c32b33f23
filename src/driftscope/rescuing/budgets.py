"""What each way keeps at fixed budgets, and both ends keep, measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from driftscope.backbones.model import VisionLanguageModel
from driftscope.blending import Blend
from driftscope.config import Way
from driftscope.rescuing.judge import Judge
from driftscope.rescuing.points import Point, last_that_keeps
from driftscope.rescuing.ways import Path, path_of

BUDGETS_PCT = (90.0, 95.0, 99.0)
_GRID, _HALVINGS = (0.25, 0.5, 0.75, 1.0), 3


@dataclass(frozen=True)
class Kept:
    """What the last point of a way that keeps a budget is worth, useful or not.

    Attributes:
        way: or an end: `pretrained`, `adapted`.
        budget_pct: asked of the lower end of the estimate's 90 % interval; None of an end.
        scale: where the point lies on the way; 0 is the pretrained model.
        estimated_retention_pct, low_90_pct: by the pool.
        retention_pct: measured; None where there is nothing to measure it on.
        refitted_accuracy_pct: of a classifier fitted anew; of the pretrained end a linear probe.
        kept_head_accuracy_pct: of the classifier that was trained along.
        test_num_images: of these accuracies.
        judging_num_images: of the pool, which the estimate is of.
        cpu_seconds: of the looks for this budget, the search for it included. Looks that were made
            before, for another way or budget, are not made again and do not count again.
    """

    way: str
    budget_pct: float | None
    scale: float
    estimated_retention_pct: float | None
    low_90_pct: float | None
    retention_pct: float | None
    refitted_accuracy_pct: float
    kept_head_accuracy_pct: float | None
    test_num_images: int
    judging_num_images: int
    cpu_seconds: float


Retention = Callable[[VisionLanguageModel], float | None]
"""Measures a model, in percent; None where there is nothing to measure it on."""


def kept_at_ends(blend: Blend, judge: Judge, retention: Retention) -> Iterator[Kept]:
    """The pretrained and the adapted model."""
    for name, end in (("pretrained", 0.0), ("adapted", 1.0)):
        point = judge.estimated("wise", blend, end, blend.uniform(end))
        yield kept_at_point(point, blend, judge, retention, name)


def kept_at_budgets(
    blend: Blend,
    judge: Judge,
    retention: Retention,
    ways: Sequence[Way],
    seed: int = 0,
    budgets_pct: Sequence[float] | None = None,
) -> Iterator[Kept]:
    """Every way at every budget.

    Args:
        blend: of both models.
        judge: with a labeled target.
        retention: measures a model.
        ways: in the order of the rows.
        seed: of the search.
        budgets_pct: asked of the lower end of the estimate's 90 % interval; by default
            `BUDGETS_PCT`.
    """

    first = judge.estimated("wise", blend, 0.0, blend.uniform(0.0))
    for way in ways:
        seen: dict[float, Point] = {}
        for budget in budgets_pct or BUDGETS_PCT:
            started = time.process_time()
            if way == "search" or not seen:  # a search is for one budget
                path = path_of(way, blend, judge, budget, seed)

                def ask(at: float, way: Way = way, path: Path = path) -> Point:
                    return judge.estimated(way, blend, at, path(at))

                seen = {0.0: replace(first, way=way), **{at: ask(at) for at in _GRID}}
            point = last_that_keeps(budget, seen, ask, _HALVINGS)
            seconds = time.process_time() - started
            yield kept_at_point(point, blend, judge, retention, way, budget, seconds)


def kept_at_point(
    point: Point,
    blend: Blend,
    judge: Judge,
    retention: Retention,
    way: str,
    budget_pct: float | None = None,
    cpu_seconds: float = 0.0,
) -> Kept:
    """What a point is worth, measured.

    Raises:
        ValueError: the target has no labels.
    """
    accuracy = judge.completed(point, blend)[0].accuracy
    if accuracy is None:
        raise ValueError(f"the target {judge.target.name} has no labels")
    return Kept(
        way=way,
        budget_pct=budget_pct,
        scale=point.scale,
        estimated_retention_pct=point.estimate.retention_pct,
        low_90_pct=point.estimate.low_90_pct,
        retention_pct=retention(blend.set(point.strengths)),
        refitted_accuracy_pct=accuracy.refitted.accuracy_pct,
        kept_head_accuracy_pct=accuracy.kept_head.accuracy_pct if accuracy.kept_head else None,
        test_num_images=accuracy.refitted.num_images,
        judging_num_images=point.estimate.num_images,
        cpu_seconds=cpu_seconds,
    )
