"""What another budget would give, from the points that a rescue has looked at."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from driftscope.rescuing.points import Point

Option = Callable[[float], str]


def other_budgets(
    chosen: Point,
    points: Sequence[Point],
    pretrained: Point,
    option: Option = "--keep {:g}".format,
) -> list[str]:
    """What to ask for where too little is kept of the task, or of the old ability.

    Both ends are left out: neither is a blend.

    Args:
        chosen, points, pretrained: of the rescue.
        option: what asks for a budget.
    """
    blends = [one for one in points if one.is_blend and one.is_useful(pretrained)]
    return [
        _more_of_the_task(chosen, blends, option),
        _more_of_the_rest(chosen, blends, option),
    ]


def _more_of_the_task(chosen: Point, blends: Sequence[Point], option: Option) -> str:
    """The point that costs least retention among those that keep more of the task."""
    better = [
        one for one in blends if _of_task(one) > _of_task(chosen) and highest_budget(one) >= 1
    ]
    if better:
        best = max(better, key=highest_budget)
        return f"If it keeps too little of the task, ask for less: {_met(best, option)}."
    what = "is likelier to the adapted model"
    if chosen.accuracy is not None:
        is_agreement = chosen.accuracy.is_agreement
        what = f"{'agrees more' if is_agreement else 'is more accurate'} on the images that choose"
    return (
        f"If it keeps too little of the task: no other blend in the table {what}."
        f"{_better_elsewhere(chosen, blends, option)}"
    )


def _better_elsewhere(chosen: Point, blends: Sequence[Point], option: Option) -> str:
    """The most accurate point on the images that do not choose; "" where that is the chosen one."""
    best = max(blends, key=_reported, default=chosen)
    ours, theirs = _reported(chosen), _reported(best)
    if theirs <= ours:
        return ""
    verb = "does" if best.accuracy and best.accuracy.is_agreement else "is"
    more = "images" if best.accuracy and best.accuracy.is_agreement else "labeled images"
    return (
        f" On the other test images {_name(best)} {verb}: {theirs:.1f} % against {ours:.1f} %, and "
        f"it meets `{option(highest_budget(best))}`. More {more} would tell which is right."
    )


def _more_of_the_rest(chosen: Point, blends: Sequence[Point], option: Option) -> str:
    """The point that keeps most of the task among those that keep more retention."""
    low = chosen.estimate.low_90_pct or 0.0
    safer = [one for one in blends if highest_budget(one) > low]
    if not safer:
        return "If it keeps too little of the old ability: no other blend in the table keeps more."
    best = max(safer, key=_of_task)
    return f"If it keeps too little of the old ability, ask for more: {_met(best, option)}."


def _of_task(point: Point) -> float:
    """What the choice is made by, without regard to retention."""
    if point.accuracy is not None:
        return point.accuracy.choosing_pct
    return -1.0 if point.likeness is None else point.likeness


def _reported(point: Point) -> float:
    """Accuracy on the images that do not choose, in percent; 0 where there is none."""
    return point.accuracy.refitted.accuracy_pct if point.accuracy is not None else 0.0


def _name(point: Point) -> str:
    return f"{point.way} at scale {point.scale:.2f}"


def highest_budget(point: Point) -> float:
    """The highest budget that a point keeps, in percent to one decimal; 0 where none is known."""
    return math.floor(10 * (point.estimate.low_90_pct or 0.0)) / 10


def _met(point: Point, option: Option) -> str:
    """The budget that a point keeps, and what it has of the task."""
    kept = f"likeness {_of_task(point):.3f}"
    if point.accuracy is not None:
        good = "agreement" if point.accuracy.is_agreement else "accurate"
        kept = f"{point.accuracy.choosing_pct:.1f} % {good} on the images that choose"
    anew = " (a search is then made for that budget)" * (point.way == "search")
    return f"{_name(point)} ({kept}) meets `{option(highest_budget(point))}`{anew}"
