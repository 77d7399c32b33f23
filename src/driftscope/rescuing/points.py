"""Points between both models, and which of them is chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from torch import Tensor

from driftscope.blending import Strength, mean_strength
from driftscope.config import Way
from driftscope.estimate import Estimate
from driftscope.rescuing.target import Accuracy

WAYS: tuple[Way, ...] = get_args(Way)
USUAL: tuple[Way, ...] = ("search", "lines", "wise")
"""The search, and its rivals on the same picture."""

_USEFUL = 0.05
"""Below this likeness to the adapted model, beyond the pretrained one's, nothing was kept of it."""


@dataclass(frozen=True)
class Point:
    """One model between two.

    Attributes:
        way: how its strengths came about.
        scale: where it lies on the way, from 0 (pretrained) to 1.
        strengths: α of each group, or of every row of its weights.
        estimate: of its retention, from the pool.
        likeness: of its image embeddings of the target to the adapted model's, mean cosine; None
            where it was not looked at.
        accuracy: where the target has labels.
    """

    way: Way
    scale: float
    strengths: Mapping[str, Strength]
    estimate: Estimate
    likeness: float | None = None
    accuracy: Accuracy | None = None

    def keeps(self, keep_pct: float) -> bool:
        """Whether the lower end of the estimate's 90 % interval keeps a budget."""
        low = self.estimate.low_90_pct
        return low is not None and low >= keep_pct

    @property
    def is_blend(self) -> bool:
        """Whether it is neither of both models: one strength and whole groups end at one."""
        return self.scale > 0 and (self.scale < 1 or self.way in ("search", "lines"))

    def is_useful(self, pretrained: Point) -> bool:
        """Whether it has kept something of the adapted model: it is likelier to it by a share.

        Or it has learnt what the pretrained one does not know: it is more accurate.
        """
        before = pretrained.likeness or 0.0
        is_like = (self.likeness or 0.0) >= before + _USEFUL * (1 - before)
        return is_like or self._is_more_accurate_than(pretrained)

    def _is_more_accurate_than(self, pretrained: Point) -> bool:
        if self.accuracy is None or pretrained.accuracy is None:
            return False
        return self.accuracy.choosing_pct > pretrained.accuracy.choosing_pct

    @property
    def by_row(self) -> dict[str, Tensor]:
        """The strengths of every row, by weight, of the groups that have them."""
        groups = [one for one in self.strengths.values() if isinstance(one, Mapping)]
        return {name: rows for one in groups for name, rows in one.items()}

    @property
    def worth(self) -> tuple[float, float]:
        """What the choice is made by: accuracy and, where it is equal, retention; else likeness.

        Without labels what likeness is worth is not known, and so is no noise of it.
        """
        if self.accuracy is None:
            return 0.0, -1.0 if self.likeness is None else self.likeness
        return self.accuracy.choosing_pct, self.estimate.low_90_pct or 0.0

    def to_dict(self) -> dict[str, Any]:
        """The point as JSON values."""
        return {
            "way": self.way,
            "scale": self.scale,
            "strengths": {group: mean_strength(one) for group, one in self.strengths.items()},
            "is_by_row": bool(self.by_row),
            "likeness": self.likeness,
            "estimate": self.estimate.to_dict(),
            "accuracy": self.accuracy.to_dict() if self.accuracy else None,
        }


def chosen_of(kept: Sequence[Point]) -> tuple[Point, tuple[Point, ...]]:
    """The best of points that keep the budget, and the others that are as accurate within noise.

    Of these the one of the most retention comes first.
    """
    best = max(kept, key=lambda one: one.worth)
    if best.accuracy is None:
        return best, ()
    alike = [
        one
        for one in kept
        if one is not best and one.accuracy is not None and best.accuracy.is_alike(one.accuracy)
    ]
    return best, tuple(sorted(alike, key=lambda one: -(one.estimate.low_90_pct or 0.0)))


def last_that_keeps(
    keep_pct: float, seen: dict[float, Point], ask: Callable[[float], Point], halvings: int
) -> Point:
    """The furthest known point of a way that keeps a budget, after some halvings.

    Args:
        keep_pct: the budget; scale 0 keeps every one.
        seen: the points by scale, 0 among them; what is asked for is added.
        ask: gives the point at a scale.
        halvings: of the stretch between the last that keeps it and the next that does not.
    """
    good = max(at for at, one in seen.items() if one.keeps(keep_pct) or at == 0)
    bad = min((at for at in seen if at > good), default=good)
    for _ in range(halvings if bad > good else 0):
        middle = (good + bad) / 2
        seen[middle] = ask(middle)
        good, bad = (middle, bad) if seen[middle].keeps(keep_pct) else (good, middle)
    return seen[good]
