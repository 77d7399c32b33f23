"""Ways from the pretrained to the adapted model: the strengths at every scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from driftscope.blending import TEXT, Blend, Strength, mean_strength
from driftscope.config import Way
from driftscope.estimate import Pool, Referee
from driftscope.rescuing.judge import GRID, HALVINGS, Judge
from driftscope.rescuing.points import Point, last_that_keeps
from driftscope.strength_search import Change, ToKeep, ToLearn, found_strengths

Path = Callable[[float], Mapping[str, Strength]]
REACH = 1.5
"""How far the search's way goes: a search may stop before all that its budget allows."""
START_PCT = 90.0
"""A search for a larger budget starts where this one is kept: near W₀ strengths hardly move."""


def path_of(way: Way, blend: Blend, judge: Judge, keep_pct: float, seed: int) -> Path:
    """The strengths at every scale of a way, from 0 at scale 0.

    The search starts at the largest uniform strength that keeps the budget, or 90 %: from ½, where
    little may be left, it did not find back to what keeps much.
    """
    if way == "wise":
        return blend.uniform
    if way == "lines":
        return blend.linear_in_depth
    if way == "layers":
        return one_by_one(least_harmful_first(blend, judge))
    return towards(searched(blend, judge, keep_pct, seed))


def least_harmful_first(blend: Blend, judge: Judge) -> list[str]:
    """The groups by the retention that they cost, on the half of the pool that does not judge.

    What a group costs is the mean of what it loses alone and what is regained without it.
    """
    referee = _referee_of_search(judge)

    def retention(tuned: set[str]) -> float:
        model = blend.set(dict.fromkeys(tuned, 1.0))
        texts = judge.pool.texts_of(model) if TEXT in tuned else None
        found = referee.estimate(model.embed_images(judge.searching).float().cpu(), texts)
        return found.retention_pct or 0.0

    groups = set(blend.groups)
    ends = retention(set()), retention(groups)
    cost = {
        group: (ends[0] - retention({group})) + (retention(groups - {group}) - ends[1])
        for group in blend.groups
    }
    return sorted(blend.groups, key=lambda group: cost[group])


def _referee_of_search(judge: Judge) -> Referee:
    """What the pretrained model makes of the half of the pool that does not judge."""
    embeddings = judge.before.embed_images(judge.searching).float().cpu()
    return Referee.of(_pool_of_search(judge), embeddings)


def _pool_of_search(judge: Judge) -> Pool:
    return replace(judge.pool, pixels=judge.searching)


def one_by_one(order: Sequence[str]) -> Path:
    """The first groups tuned whole, the next one partly, the others not at all."""

    def at(scale: float) -> dict[str, float]:
        done = scale * len(order)
        return {group: min(1.0, max(0.0, done - place)) for place, group in enumerate(order)}

    return at


def towards(strengths: Mapping[str, Strength]) -> Path:
    """From nothing at scale 0 to these strengths at scale 1: all are multiplied by the scale.

    A group of one strength, which of a search is the text tower, goes no further than it was
    adapted.
    """

    def at(scale: float) -> dict[str, Strength]:
        return {group: _times(scale, one) for group, one in strengths.items()}

    return at


def _times(scale: float, strength: Strength) -> Strength:
    if isinstance(strength, Mapping):
        return {name: scale * rows for name, rows in strength.items()}
    return min(1.0, scale * strength)


def searched(blend: Blend, judge: Judge, keep_pct: float, seed: int) -> dict[str, Strength]:
    """Where the search's way ends: `REACH` times strengths that keep the pool and learn the target.

    Kept are the pretrained model's distributions on the pool, at the price of the budget.

    What is learnt are the target's labels or, without any, what its classifier makes of the adapted
    model's embeddings; without a classifier, these embeddings.

    Every row of every weight has its own: with one for a whole group, where damage and task sit in
    the same group, neither can be had without the other. The text tower, where it moved, goes by
    the mean of the others.

    Args:
        blend, judge: of both models.
        keep_pct: the budget.
        seed: of the search.
    """
    start = largest_uniform(blend, judge, min(keep_pct, START_PCT))
    delta = blend.delta
    moved = [n for group, names in delta.groups.items() if group != TEXT for n in names]
    change = Change(
        blend.set(blend.uniform(0.0)),
        {name: delta.before[name] for name in moved},
        {name: delta.after[name] for name in moved},
    )
    keep = ToKeep.of(_pool_of_search(judge), keep_pct)
    given = judge.target.labels
    labels = None if given is None or given.are_answers else given.fit
    learn = ToLearn(judge.target.pixels, judge.tuned, judge.teacher, labels)
    found = found_strengths(change, keep, learn, start, seed)
    return {
        group: REACH * mean_strength(found)
        if group == TEXT
        else {name: REACH * found[name] for name in names}
        for group, names in delta.groups.items()
    }


def largest_uniform(blend: Blend, judge: Judge, keep_pct: float) -> float:
    """The largest single strength that keeps a budget, by a few looks at some of the images."""

    def ask(scale: float) -> Point:
        return judge.by_fewer.estimated("wise", blend, scale, blend.uniform(scale))

    seen = {at: ask(at) for at in (0.0, *GRID, 1.0)}
    return last_that_keeps(keep_pct, seen, ask, HALVINGS).scale
